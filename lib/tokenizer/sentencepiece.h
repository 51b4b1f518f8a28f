// Text to ids as the library sentencepiece does it: its own normalizer, byte pairs ordered by
// scores or Unigram in single precision, byte pieces for what is unknown, and its own way back. Two
// readers fill it in: `.model` files and GGUF metadata.
#pragma once
#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "lib/tokenizer/charsmap.h"
#include "lib/tokenizer/merges.h"
#include "lib/tokenizer/tokenizer.h"
#include "lib/tokenizer/trie.h"
#include "lib/tokenizer/work_pool.h"

namespace moe {

// As the file numbers them.
enum class PieceType {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct ScoredPiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::normal;
};

struct SentencePieceRules {
  std::string id;
  std::vector<ScoredPiece> pieces;
  bool unigram = true;  // else byte pairs
  bool byte_fallback = false;
  // of the normalizer
  Charsmap charsmap;
  bool dummy_prefix = true, remove_extra_blanks = true, escape_blanks = true;
  bool blanks_behind = false;  // treat_whitespace_as_suffix
  std::string unknown_text = " \xE2\x81\x87 ";
  SpecialIds special;
  bool add_bos = false, add_eos = false;
  std::string config_json;
};

struct TokenizerFile;
// What a `.model` says. Throws Error(input) for one that is broken.
SentencePieceRules sentencepiece_rules(const TokenizerFile&);
// Throws Error(input), naming `source`, for pieces that do not hold together.
std::unique_ptr<Tokenizer> make_sentencepiece(SentencePieceRules, std::string_view source);

}  // namespace moe
