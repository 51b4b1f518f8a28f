// The clusters that a dataset planted, for moe report --truth.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace moe {

// The planted cluster of every token id below `vocabulary`, -1 where an id has none. Throws
// Error(usage) for data without planted truth.
std::vector<int> planted_truth(const std::string& data_spec, std::uint32_t vocabulary);

}  // namespace moe
