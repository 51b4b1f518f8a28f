// Fonts of bits: GNU Unifont's .hex (a character a line) and the console's .psf, versions 1 and 2,
// compressed or not.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace moe {

struct Glyph {
  char32_t code = 0;
  int height = 0, width = 0;
  std::vector<std::uint8_t> bit;  // (height,width), 1 = ink

  bool at(int y, int x) const {
    return bit[std::size_t(y * width + x)] != 0;
  }
};

bool is_font_name(const std::filesystem::path&);  // by its ending
// The characters of a font that have any ink. Throws Error(input) naming the file where it is none
// of these formats, damaged or cut off.
std::vector<Glyph> read_font(const std::filesystem::path&);
// The rows and columns that have ink.
Glyph trimmed(const Glyph&);

// Names of characters in lower case: of UnicodeData.txt, or of Perl's unicore/Name.pl. Throws
// Error(input) naming a file that holds none.
std::map<char32_t, std::string> read_character_names(const std::filesystem::path&);

}  // namespace moe
