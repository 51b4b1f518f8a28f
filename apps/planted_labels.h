// The labels that a dataset planted in its tokens, for moe report --planted-labels.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace moe {

// The planted label (`clusters`: the cluster) of every token id below `vocabulary`, -1 where an id
// has none. Throws Error(usage) for data in which nothing is planted.
std::vector<int> planted_labels(const std::string& data_spec, std::uint32_t vocabulary);

}  // namespace moe
