// Opens a tokenizer by what is in a file or folder: tokenizer.json, a sentencepiece model, a file
// of ranks, tekken.json, a GGUF model; of a folder the file that says most.
#pragma once
#include <filesystem>
#include <memory>

#include "lib/tokenizer/tokenizer.h"

namespace moe {

// Throws Error(input) with one sentence where nothing is found, the file is broken, or a stage is
// asked for that we do not have.
std::shared_ptr<const Tokenizer> open_tokenizer(const std::filesystem::path&);
// The file that would be opened: of a folder the one it holds, else the path itself. Empty: the
// folder has none, or the GGUF model describes none.
std::filesystem::path tokenizer_file(const std::filesystem::path&);
// The ids that config.json and generation_config.json of a folder name, where both name one that of
// the latter; `ends` are all ids of eos_token_id in both, each one id or a list.
SpecialIds special_ids(const std::filesystem::path& folder);

}  // namespace moe
