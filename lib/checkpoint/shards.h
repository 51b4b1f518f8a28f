// The parts of a model that was written in several safetensors files, by their names alone.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace moe {

struct ShardFiles {
  std::vector<std::string> there, missing;  // "model-00001-of-00003.safetensors", in order
};
// Of a folder without an index; none where no file is named so.
ShardFiles shards_by_name(const std::filesystem::path& folder);

// Whether there are weights that this program can open: one file, an index, or all shards.
bool has_safetensors(const std::filesystem::path& folder);

}  // namespace moe
