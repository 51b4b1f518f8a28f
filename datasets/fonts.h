// Fonts of bits, GNU Unifont's .hex (a character a line) and the console's .psf, versions 1 and 2,
// compressed or not; and fonts of outlines (.ttf, .otf), where FreeType is there.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "lib/signal/glyph.h"

namespace moe {

bool is_font_name(const std::filesystem::path&);  // by its ending
bool is_outline_name(const std::filesystem::path&);
// The characters of a font that have any ink, those of outlines with an em of `pixels`. Throws
// Error(input) naming the file where it is none of these formats, damaged or cut off.
std::vector<Glyph> read_font(const std::filesystem::path&, int pixels);
// The rows and columns that have ink.
Glyph trimmed(const Glyph&);

// Names of characters in lower case: of UnicodeData.txt, or of Perl's unicore/Name.pl. Throws
// Error(input) naming a file that holds none.
std::map<char32_t, std::string> read_character_names(const std::filesystem::path&);

}  // namespace moe
