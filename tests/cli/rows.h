// Two traces row by row, and the steps of a metrics.jsonl.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace moe::cli {

// Every row of `part` is the row of `whole` at its place: ids, places, experts, weights. `all`: and
// there are as many.
bool same_rows(const std::filesystem::path& part, const std::filesystem::path& whole, bool all);
// "3", "4", "4 valid", ...
std::vector<std::string> steps_of(const std::filesystem::path& metrics);

}  // namespace moe::cli
