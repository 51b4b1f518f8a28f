// Lists inside specs, and specs as words for a shell.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moe {

// A list inside a spec, "1,3", "1;3" or "1+3": the last is the spelling that no shell takes apart.
// `separators` says which of them count; the + of "1e+3" belongs to its number, and what stands in
// braces to its entry. "" -> nothing.
std::vector<std::string> split_list(std::string_view text, std::string_view separators = ",;+");
// How often an entry stands: "a*3" or, for shells, "ax3" is {"a", "3"}; "a" is {"a", "1"}.
std::pair<std::string, std::string> repeated_entry(const std::string& entry);
// A word as a shell is given it: in single quotes where it has characters that shells read.
std::string shell_quoted(const std::string& word);
// The words that a shell makes of a line: blanks part them, quotes and backslashes keep; nothing is
// expanded. Throws Error(usage) for a quote that is not closed.
std::vector<std::string> shell_words(std::string_view line);

}  // namespace moe
