// HDF5 stores the time of creation in the header of the superblock's extension, which no property
// switches off: without this two recordings of the same run would differ in two bytes and a
// checksum.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>

namespace moe {

// of a closed file of our own making; throws Error(io)
void forget_times(const std::filesystem::path&);

// The checksum of HDF5's metadata blocks: Jenkins' lookup3 (hashlittle with initial value 0).
std::uint32_t metadata_checksum(std::span<const std::uint8_t>);

}  // namespace moe
