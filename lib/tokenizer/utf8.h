// UTF-8 as the tokenizers walk it: one character at a time, and broken text made whole first, so
// that everything behind may take its input for valid.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace moe {

struct Utf8Char {
  char32_t code;
  int bytes;
};

// The character at `at` of valid UTF-8.
inline Utf8Char utf8_at(const char* at) {
  const auto byte = [&](int i) {
    return char32_t(static_cast<unsigned char>(at[i]));
  };
  const char32_t first = byte(0);
  if (first < 0x80)
    return {first, 1};
  if (first < 0xE0)
    return {(first & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (first < 0xF0)
    return {(first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}

// Bytes of the character that a first byte announces, 1 for what cannot start one.
inline int utf8_length(unsigned char first) {
  return first < 0xC0 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

// Bytes of the first character of `text` if it is well-formed, else 0; at the end 0.
int utf8_valid_length(std::string_view text);
// Bytes of the broken part that `text` starts with: the longest beginning of a character, at least
// 1 (WHATWG "maximal subpart").
int utf8_broken_length(std::string_view text);
bool is_valid_utf8(std::string_view text);
void append_utf8(std::string& out, char32_t code);
std::u32string code_points(std::string_view valid);
std::string utf8_of(std::u32string_view codes);

// Each maximal broken part becomes U+FFFD, as decoders of web pages and Python's errors="replace"
// do; `broken` counts them and `first` is the byte at which the first one stood.
struct WholeText {
  std::string text;
  std::int64_t broken = 0, first = -1;
};
WholeText whole_text(std::string_view text);

}  // namespace moe
