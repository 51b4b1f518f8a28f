// The readers of tokenizer files. Each takes the bytes of a file and its name for errors, and
// throws Error(input) with one sentence for what is broken or not read.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "lib/tokenizer/tokenizer.h"

namespace moe {

// What the files beside a tokenizer say (tokenizer_config.json, config.json,
// generation_config.json); everything may be missing.
struct TokenizerConfig {
  std::string bos, eos, pad, unknown;  // texts of tokens
  SpecialIds ids;                      // where only ids are given
  std::optional<bool> add_bos, add_eos;
  std::string tokenizer_class, model_type;
  std::string json;  // tokenizer_config.json as it was read
};

struct TokenizerFile {
  std::string_view bytes;
  std::string name;  // for errors
  std::string id;    // for traces: its file name and hash
  TokenizerConfig config;
};

std::unique_ptr<Tokenizer> read_tokenizer_json(const TokenizerFile&);
std::unique_ptr<Tokenizer> read_sentencepiece(const TokenizerFile&);
std::unique_ptr<Tokenizer> read_tekken(const TokenizerFile&);

// A pattern and special tokens, which a file of ranks does not hold.
struct RankRules {
  std::string pattern;
  std::vector<std::pair<std::string, int>> special;
  bool guard = false;  // Kimi's: long texts and runs are cut first
};
std::unique_ptr<Tokenizer> read_ranks(const TokenizerFile&, const RankRules&);

// Of a GGUF file, or the first of a split one: whether it says how text is written in ids, and the
// tokenizer it describes.
bool gguf_has_tokenizer(const std::filesystem::path&);
std::unique_ptr<Tokenizer> read_gguf_tokenizer(const std::filesystem::path&);

}  // namespace moe
