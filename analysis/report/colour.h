// Colours, computed in OKLCH (Ottosson 2020) where equal steps look equal: a scale whose lightness
// rises evenly with the value, one that parts at zero, hues for series, and up to 64 backgrounds
// for experts that stay apart in light and dark.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace moe::drawing {

using Rgb = std::array<std::uint8_t, 3>;

// chroma is lowered until sRGB can show it
Rgb oklch(double lightness /*0..1*/, double chroma, double hue /*degrees*/);
std::string hex(Rgb);                // "#1f77b4"
Rgb sequential(double at /*0..1*/);  // dark violet, teal, yellow
Rgb diverging(double at /*0..1*/);   // blue, near white at 0.5, red
double luminance(Rgb);               // 0..1, to choose black or white text
Rgb series(int i, bool dark);        // lines and bars; repeats after 8
int xterm(Rgb);                      // the nearest of the 256 terminal colours

constexpr int expert_colours = 64;  // experts beyond share the colour of id mod 64
struct Backgrounds {
  std::vector<Rgb> light, dark;  // (n) under dark and under light text
};
Backgrounds expert_backgrounds(int experts);

}  // namespace moe::drawing
