// Text as it arrives (raw bytes of tokens, names from files) made safe to print: whole characters,
// no control codes, and how many terminal columns they take.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace moe::drawing {

// Length in bytes of the well-formed UTF-8 character at `at`; 0 when the bytes there are none
// (overlong, cut, surrogate).
std::size_t character(std::string_view text, std::size_t at);
// Bytes that the first byte of a character promises: 1..4; 1 for a byte that starts none.
std::size_t promised(unsigned char first);

// Valid UTF-8 without control codes: a broken byte becomes U+FFFD, a control code its picture
// (U+2400...). With `lines`, line feeds and tabs stay.
std::string clean(std::string_view text, bool lines = false);

// terminal columns; East Asian wide characters take two
int columns(std::string_view text);
// cut to width, "…" at the end when something was cut
std::string clip(std::string_view text, int width, bool ascii);
std::string padded(std::string_view text, int width, bool right);  // filled with blanks to width
// broken at blanks, and inside words that are longer
std::vector<std::string> wrap(std::string_view text, int width);
// clean, with & < > " ' as entities
std::string html(std::string_view text);

// Tokens grouped so that each group is whole characters: (first token, count, text).
struct Piece {
  std::size_t first, count;
  std::string text;  // raw bytes of the group
};
std::vector<Piece> whole_characters(const std::vector<std::string>& tokens);

}  // namespace moe::drawing
