// Characters as ink on paper.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
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

// The characters of a font of outlines (TrueType, OpenType, Type 1) whose em is `pixels` high, the
// pixels that are more than half covered being ink; those without ink are left out. Throws
// Error(input) that names the file where FreeType reads none, and Error(environment) where this
// program was built without FreeType.
std::vector<Glyph> read_outlines(std::span<const char> bytes, int pixels,
                                 const std::filesystem::path& name);

}  // namespace moe
