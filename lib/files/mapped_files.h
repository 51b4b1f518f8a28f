// Which files are mapped at the moment, so that a handler of SIGBUS can say whose bytes are gone.
#pragma once
#include <cstddef>
#include <filesystem>

namespace moe {

// Remembers up to 4096 files; of more none is named. Returns the place, -1 = none.
int remember_mapped(const void* begin, std::size_t bytes, const std::filesystem::path&);
void forget_mapped(int place);

// The path of the file whose map holds the address, printable and cut after 500 bytes; null = no
// file is known there. Takes no lock and no memory.
const char* mapped_file_at(const void* address);

}  // namespace moe
