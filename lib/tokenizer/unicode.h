// What the tokenizers ask of Unicode, from generated tables (unicode_tables.py): classes of
// characters as the reference libraries match them (Unicode 16.0), which no library of Debian 12
// has. Normal forms are in normal_forms.h.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moe {

// Classes that patterns and pre-tokenizers name, as bits of one word for each code point.
namespace char_class {
using Bits = std::uint16_t;
constexpr Bits letter = 1;                // \p{L}
constexpr Bits number = 2;                // \p{N}
constexpr Bits space = 4;                 // \s: White_Space
constexpr Bits mark = 8;                  // \p{M}
constexpr Bits punctuation = 16;          // \p{P}
constexpr Bits symbol = 32;               // \p{S}
constexpr Bits upper = 64;                // \p{Lu} \p{Lt} \p{Lm} \p{Lo} \p{M}
constexpr Bits lower = 128;               // \p{Ll} \p{Lm} \p{Lo} \p{M}
constexpr Bits han = 256;                 // \p{Han}
constexpr Bits word = 512;                // \w: Alphabetic, M, Nd, Pc, Join_Control
constexpr Bits numeric = 1024;            // char::is_numeric of Rust: Nd, Nl, No
constexpr Bits bert_removed = 2048;       // BertNormalizer's clean_text drops it
constexpr Bits split_punctuation = 4096;  // Punctuation and BertPreTokenizer cut it out
constexpr Bits accent = 8192;             // StripAccents drops it
constexpr Bits bert_accent = 16384;       // BertNormalizer's strip_accents drops it
}  // namespace char_class

struct CharTable {
  std::vector<std::uint16_t> block;  // of each 256 code points: where they start in `bits`
  std::vector<char_class::Bits> bits;
  char_class::Bits operator()(char32_t c) const {
    return c < 0x110000 ? bits[std::size_t(block[c >> 8]) << 8 | (c & 0xFF)] : 0;
  }
};
const CharTable& char_table();
inline char_class::Bits classes_of(char32_t c) {
  static const CharTable& table = char_table();
  return table(c);
}

struct CodeRange {
  char32_t first, last;
  bool operator==(const CodeRange&) const = default;
};

// The ranges of a property by its name in a pattern (\p{Lu}, \p{Han}, \p{Alpha}; case, spaces,
// hyphens and underscores do not count); nothing for a name that is none.
const std::vector<CodeRange>* property_ranges(std::string_view name);

// The script of a character as UnicodeScripts counts them: kana is Han, a blank is of any script.
constexpr int kAnyScript = 0;
int split_script(char32_t);

// Lowercase of one character, as many as three characters (char::to_lowercase of Rust).
std::u32string lowercase_of(char32_t);

// How characters join to what a reader takes for one (Unicode Standard Annex 29). Returns the end
// of the cluster that starts at `at`.
std::size_t grapheme_end(std::string_view text, std::size_t at);

}  // namespace moe
