// What a folder of a model holds beside its numbers and its sizes, and a checkpoint made from it
// keeps byte for byte: the files that turn text into ids, chat templates, settings of generation,
// code of its own and licences; and config.json, whose keys stay where nothing changed.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "lib/checkpoint/safetensors.h"
#include "lib/files/json.h"

namespace moe {

struct KeptFile {
  std::string name, bytes;
};
// One of a folder inside, which may be large: copied when it is written.
struct KeptCopy {
  std::string name;  // "image_tower/model.safetensors"
  std::filesystem::path from;
};
struct KeptFiles {
  std::vector<KeptFile> files;         // sorted by name
  std::shared_ptr<const Json> config;  // config.json; null = the folder has none
  std::vector<std::string> left;       // names of other files, which are not kept; sorted
  // Encoders of pictures and sounds beside the language model, and what brings their rows into it:
  // read when they are written.
  std::vector<NamedTensor> tensors = {};
  // Of a folder with an encoder's own checkpoint, which config.json names; sorted by name.
  std::vector<KeptCopy> copies = {};

  bool has(const std::string& name) const;
};

// Of a folder; nothing of a path that is none (a GGUF file). Throws Error(input) naming a file that
// cannot be read or is larger than 256 MiB.
KeptFiles kept_files(const std::filesystem::path&);
// The same without what belongs to the tokenizer: for a model that goes on with another one.
KeptFiles without_tokenizer(KeptFiles);

}  // namespace moe
