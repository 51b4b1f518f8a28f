// What an option's value may be, checked before CLI11 converts it, so that the sentence is ours:
// "'1e3' is not a whole number", no octal from a leading zero, no NaN through a range.
#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace moe {

CLI::Validator whole(std::int64_t least,
                     std::int64_t most = std::numeric_limits<std::int64_t>::max());
CLI::Validator real(double least, double most);  // finite
CLI::Validator one_of(std::vector<std::string>);

}  // namespace moe
