// sentencepiece's normalizer: rewritten characters, then blanks.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/tokenizer/charsmap.h"
#include "lib/tokenizer/trie.h"

namespace moe {

struct BlankRules {
  bool dummy_prefix, remove_extra, escape, behind;
};

struct NormalizedText {
  std::string text;
  std::vector<std::uint32_t> from;  // of each byte and of the end: the byte of the original
};

// `user_defined`: pieces that pass as they are.
NormalizedText normalize_for_sentencepiece(std::string_view text, const Charsmap& rules,
                                           const Trie& user_defined, const BlankRules& blanks);

// bytes of the longest piece that the text starts with; 0 = none
std::size_t longest_prefix(const Trie& pieces, std::string_view text);

}  // namespace moe
