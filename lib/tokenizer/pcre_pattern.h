// Regular expressions in Oniguruma's dialect, said again in PCRE2's: every class becomes ranges of
// our own tables, since the library's are older than those that models were trained with.
#pragma once
#include <string>
#include <string_view>

namespace moe {

// Throws Error(input), naming `source`, for what is not read (calls, conditions, \G, \K, \X ...).
std::string pcre_expression(std::string_view onig, std::string_view source);

}  // namespace moe
