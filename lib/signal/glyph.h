// Characters as ink on paper.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lib/signal/patches.h"

namespace moe {

struct Glyph {
  char32_t code = 0;
  int height = 0, width = 0;
  std::vector<std::uint8_t> bit;  // (height,width), 1 = ink

  bool at(int y, int x) const {
    return bit[std::size_t(y * width + x)] != 0;
  }
};

// The characters of a font of outlines (TrueType, OpenType, Type 1) whose em is `pixels` high, the
// pixels that are more than half covered being ink; those without ink are left out. Throws
// Error(input) that names the file where FreeType reads none, and Error(environment) where this
// program was built without FreeType.
std::vector<Glyph> read_outlines(std::span<const char> bytes, int pixels,
                                 const std::filesystem::path& name);

// Writes a line of text into the upper left corner of a picture of three channels, black in a
// border of white, as Pillow 13's ImageDraw.text does where it has Raqm: the ascender at the upper
// edge, hinted glyphs, the pen moved by widths without hints and rounded to whole pixels; pairs of
// letters are not moved closer. pixels: height of the em; border: its width, 0 = none. Throws as
// read_outlines.
void write_text(Picture&, const std::string& text, std::span<const char> font, int pixels,
                int border, const std::filesystem::path& name);

}  // namespace moe
