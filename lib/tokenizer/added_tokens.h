// Tokens that are cut out of a text before anything else happens to it (`added_tokens` of a
// tokenizer.json), by the rules of the library `tokenizers`.
#pragma once
#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "lib/tokenizer/normalizer.h"
#include "lib/tokenizer/trie.h"

namespace moe {

struct AddedToken {
  std::string content;
  int id = 0;
  // whole words only; take the blanks to the left, to the right; look for it in normalized text
  bool single_word = false, left = false, right = false, normalized = false;
  bool special = false;  // left out by decode(.., skip_special)
};

// A stretch of text, or a token that stands there.
struct TextStretch {
  std::uint32_t begin, end;
  int id;  // -1 = text
};

// The tokens that are looked for in one form of the text.
class AddedTokenFinder {
 public:
  void add(std::string_view content, const AddedToken& token);
  bool empty() const {
    return trie_.empty();
  }
  // Leftmost, and of those that start there the longest. `special_is_text`: special tokens are not
  // looked for.
  void split(std::string_view text, bool special_is_text, std::vector<TextStretch>& out) const;

 private:
  struct Found {
    std::size_t bytes = 0;
    int token = -1;
  };
  Found longest(std::string_view text) const;

  Trie trie_;
  std::vector<AddedToken> tokens_;
  std::array<bool, 256> first_{};
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // `normalizer` may be nothing
  AddedTokens(std::vector<AddedToken>, const Normalizer* normalizer);
  const AddedTokenFinder& plain() const {
    return plain_;
  }
  const AddedTokenFinder& normalized() const {
    return normalized_;
  }
  const AddedToken* find(int id) const;
  const AddedToken* find(std::string_view content) const;
  bool is_special(std::string_view text) const {
    return special_.count(std::string(text)) > 0;
  }
  int size() const;  // highest id + 1
  const std::vector<AddedToken>& all() const {
    return tokens_;
  }

 private:
  std::vector<AddedToken> tokens_;
  std::unordered_map<int, std::size_t> place_;
  std::unordered_set<std::string> special_;
  AddedTokenFinder plain_, normalized_;
};

}  // namespace moe
