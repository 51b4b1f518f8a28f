// The readers of files that others made, each as a function of bytes. What a reader may do with any
// bytes: read them, or throw moe::Error. Anything else is a finding.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace moe::fuzz {

struct Reader {
  std::string_view name;
  std::string_view file;   // the name that the bytes get as a file
  std::string_view seeds;  // a folder below golden, or empty
  void (*read)(const char* path);
};

const std::vector<Reader>& readers();  // readers.def
const Reader* find_reader(std::string_view name);

// Writes the bytes to a file of the reader's name, in memory where the system has it, and reads it.
// Errors that the program would say in a sentence are swallowed; what else is thrown goes on.
void try_bytes(const Reader&, std::span<const std::uint8_t>);

}  // namespace moe::fuzz
