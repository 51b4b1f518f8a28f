// What experts are worth, read from a result of moe eval --without-expert each.
#pragma once
#include <string>

#include "analysis/compare/worth.h"

namespace moe {

// Columns of its table, without which a ranking is read without its sureness.
inline constexpr const char* first_half_column = "one half";
inline constexpr const char* second_half_column = "the other half";

// A JSON report of it. Throws Error(input) where the file is something else, or of other weights
// than `weights_xxh3` (empty = not known).
MeasuredWorth read_worth(const std::string& path, const std::string& weights_xxh3);

}  // namespace moe
