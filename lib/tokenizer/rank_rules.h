// The pattern and the special tokens of a file of ranks, which the file does not hold.
#pragma once
#include <filesystem>
#include <string_view>

#include "lib/tokenizer/read.h"

namespace moe {

// From special.json beside the file, else from a table by the tokenizer_class and model_type of the
// folder. `tokens`: lines of the file, where special ids may begin. Throws Error(input) where
// neither knows them.
RankRules rank_rules(const std::filesystem::path& file, const TokenizerConfig&, int tokens);

}  // namespace moe
