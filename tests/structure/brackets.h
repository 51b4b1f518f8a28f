// Brackets of a list of tokens: which closes which, where template arguments end, and which braces
// are bodies of lambdas.
#pragma once
#include "tests/structure/source.h"

namespace structure {

// For each opening bracket ( [ { the index of the one that closes it, or the last index; 0 for all
// other tokens.
std::vector<std::size_t> closing_brackets(const std::vector<Token>&);

// At the `<` of "vector<int>": the index behind its `>`; `at` where this is a comparison.
std::size_t skip_template_arguments(const std::vector<Token>&, std::size_t at);

// Whether the brace at `at` follows "[...]", "[...](...)" or "[...](...) mutable -> T".
bool opens_lambda_body(const std::vector<Token>&, std::size_t at);

}  // namespace structure
