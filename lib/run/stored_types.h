// In which type the numbers of a folder lie, tensor by tensor, so that a model made from it can be
// written as it was.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "lib/core/dtype.h"

namespace moe {

struct StoredTypes {
  std::map<std::string, DType> of;  // those of plain numbers: f32, bf16, f16
  DType usual = DType::f32;         // of those types the one that most bytes are in

  // `usual` where no tensor of that name is there; of correction biases float32
  DType type(const std::string& tensor) const;
};

// Of a folder in safetensors; of anything else none, and float32.
StoredTypes stored_types(const std::filesystem::path&);

}  // namespace moe
