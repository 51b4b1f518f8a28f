// A GGUF file as a published model: its configuration, the names of its tensors, and its weights as
// the class has them.
#pragma once
#include <filesystem>
#include <memory>

#include "lib/checkpoint/weights.h"
#include "lib/family/families.h"

namespace moe {

struct Names;

struct GgufModel {
  Published published;
  std::shared_ptr<const Names> names;  // of GGUF, for load() and rows_elsewhere()
  std::unique_ptr<const Weights> weights;
  std::vector<std::string> notes;  // where llama.cpp computes something else than the class
};
// Throws Error(input) naming file and key, tensor, type or architecture that is not read.
GgufModel open_gguf(const std::filesystem::path&);

// Tensors of the file that are no part of the layers that run: those for multi-token prediction,
// and factors of the rotary embedding, which the configuration has. True also of names that no file
// has.
bool beside_the_layers(const ModelConfig&, const std::string& tensor);

}  // namespace moe
