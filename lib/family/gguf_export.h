// A model in the words of llama.cpp: the keys of its architecture and its tensors, as its converter
// would write them from the published class. The reverse of gguf_model.h, which reads every file
// that is written by this.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "lib/checkpoint/gguf_write.h"
#include "lib/model/decoder.h"

namespace moe {

// The architecture of llama.cpp that a published family is converted to; nothing where it has none,
// or this program does not write it.
std::optional<std::string> gguf_architecture_of(const std::string& family);

struct GgufExport {
  GgufKeyWriter keys;              // without those of the tokenizer
  std::vector<GgufEntry> entries;  // numbers are taken from the model when they are written
  std::vector<std::string> notes;  // sentences on what llama.cpp does not open, or opens as another
  int narrow = 0;                  // tensors in F16, whose rows are no whole blocks of `type`
};
// `type`: of matrices; vectors, biases and routers stay in float32. `name`: general.name. The model
// must live until all is written. Throws Error(usage) where llama.cpp has no architecture for the
// family.
GgufExport gguf_export(Decoder<float>&, const std::string& family, const std::string& name,
                       const GgmlType& type);

// Whether a file that was written says the same model; else a sentence on what it cannot say.
std::string gguf_difference(const ModelConfig& written, const ModelConfig& read);

}  // namespace moe
