// Opens a tokenizer by what is in a file or folder: tokenizer.json, a sentencepiece model, a file
// of ranks, tekken.json; of a folder the file that says most.
#pragma once
#include <filesystem>
#include <memory>

#include "lib/tokenizer/tokenizer.h"

namespace moe {

// Throws Error(input) with one sentence where nothing is found, the file is broken, or a stage is
// asked for that we do not have.
std::shared_ptr<const Tokenizer> open_tokenizer(const std::filesystem::path&);
// The file of a folder that would be opened; empty = none.
std::filesystem::path tokenizer_file(const std::filesystem::path& folder);

}  // namespace moe
