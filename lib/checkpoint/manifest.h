// MANIFEST.json: which files a checkpoint has, how long they are, and their hashes. Its presence
// says that the checkpoint is whole.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "lib/checkpoint/safetensors.h"

namespace moe {

inline constexpr std::string_view manifest_name = "MANIFEST.json";

struct Manifest {
  std::int64_t step = -1;
  std::map<std::string, WrittenFile> files;
};

bool plain_name(std::string_view);   // names a file in the same folder
bool inside_name(std::string_view);  // names a file there or in a folder below: "tower/config.json"
// hashes and syncs a file that someone else wrote; throws Error(bug) for a folder
WrittenFile adopt(const std::filesystem::path& file);
void write_manifest(const std::filesystem::path& folder, std::int64_t step,
                    const std::map<std::string, WrittenFile>&);
Manifest read_manifest(const std::filesystem::path& folder);  // throws Error(input)

}  // namespace moe
