// Lists with an entry for each layer of a model: entries separated by ";" and repeated by "*", the
// number of repetitions behind an entry's options: "moe*2;dense" (for shells "+" and "x"). The
// pattern is repeated over the layers and its last repetition cut.
#pragma once
#include <string>
#include <vector>

namespace moe {

// An entry of such a list for a layer that has nothing there.
inline constexpr std::string_view no_part = "none";

// The entries of the pattern as they stand. Throws Error(usage) where the list does not parse or is
// longer than the model; `field` is what the list is called.
std::vector<std::string> layer_pattern(const std::string& list, int layers, const char* field);
// The entry of each layer.
std::vector<std::string> layer_entries(const std::string& list, int layers, const char* field);
// The list that says a pattern, one entry where all are alike.
std::string layer_list(std::vector<std::string> pattern);

}  // namespace moe
