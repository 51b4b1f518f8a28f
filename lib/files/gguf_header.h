// What stands in front of the numbers of one GGUF file.
#pragma once
#include "lib/files/gguf.h"

namespace moe {

struct GgufHeader {
  std::map<std::string, GgufValue, std::less<>> keys;  // values lie in the bytes given
  std::vector<GgufTensor> tensors;                     // sorted by name; `file` is left at 0
};
// Reads and checks the header of the mapped file: names unique, types known, tensors whole,
// aligned, inside the file and apart from each other. Throws Error(input), one sentence with file
// and key or tensor. Takes time in proportion to the header and memory in proportion to its
// entries.
GgufHeader read_gguf_header(const std::filesystem::path&, std::span<const std::byte> file);

}  // namespace moe
