// The part of GGUF v3 that importance matrices use: keys with values, and tensors of f32. Checked
// against the file before anything is believed (llama.cpp docs/gguf.md).
#pragma once
#include <map>
#include <string>

#include "lib/files/number_array.h"
#include "lib/import/inputs.h"

namespace moe {

struct GgufContents {
  std::map<std::string, std::string> texts;
  std::map<std::string, std::uint64_t> numbers;
  std::map<std::string, NumberArray> tensors;  // of f32
};

GgufContents read_gguf(const ImportFile&);  // throws Error(input) in one sentence

}  // namespace moe
