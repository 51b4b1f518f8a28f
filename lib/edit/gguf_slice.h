// Experts taken out of a GGUF file as they stand in it: the bytes of those that stay are copied,
// nothing is decoded or quantised again.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "lib/edit/edit.h"

namespace moe {

// Writes `to` (one file, also where `from` was split) without the experts named, as many in every
// MoE layer; returns what was done, a sentence each. Throws Error(usage) where the rest would not
// be a model: other numbers in other layers, fewer experts than are chosen, groups of experts.
std::vector<std::string> slice_gguf(const std::filesystem::path& from,
                                    const std::filesystem::path& to,
                                    const std::vector<ExpertName>& removed);

}  // namespace moe
