// The ids that end a text, as a Hugging Face folder says them: eos_token_id of config.json and of
// generation_config.json, each one id or a list.
#pragma once
#include <filesystem>
#include <vector>

namespace moe {

// Ascending, each once; empty where neither file names one. Throws Error(input) for ids that are
// not whole numbers from 0 on.
std::vector<int> end_ids(const std::filesystem::path& folder);

}  // namespace moe
