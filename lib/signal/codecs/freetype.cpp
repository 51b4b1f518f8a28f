#include <ft2build.h>

#include <memory>

#include FT_FREETYPE_H

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/signal/glyph.h"

namespace moe {
namespace {

struct Library {
  FT_Library handle = nullptr;
  Library() {
    if (FT_Init_FreeType(&handle) != 0)
      throw Error(Exit::environment, "FreeType does not start");
  }
  Library(const Library&) = delete;
  ~Library() {
    FT_Done_FreeType(handle);
  }
};

[[noreturn]] void refuse(const std::filesystem::path& name, const char* why) {
  throw Error(Exit::input,
              concat(in_quotes(name), " is no font of outlines that can be read: ", why))
      .hint("a .ttf or .otf file, as those of the package fonts-dejavu-core");
}

// Rows of whole bytes, the highest bit on the left.
Glyph glyph_of(char32_t code, const FT_Bitmap& bitmap) {
  Glyph out{.code = code, .height = int(bitmap.rows), .width = int(bitmap.width), .bit = {}};
  for (int y = 0; y < out.height; ++y) {
    const unsigned char* row = bitmap.buffer + y * bitmap.pitch;
    for (int x = 0; x < out.width; ++x)
      out.bit.push_back(row[x / 8] >> (7 - x % 8) & 1);
  }
  return out;
}

}  // namespace

std::vector<Glyph> read_outlines(std::span<const char> bytes, int pixels,
                                 const std::filesystem::path& name) {
  const Library library;
  FT_Face face = nullptr;
  if (FT_New_Memory_Face(library.handle, reinterpret_cast<const FT_Byte*>(bytes.data()),
                         FT_Long(bytes.size()), 0, &face) != 0)
    refuse(name, "FreeType does not know it, or it is damaged");
  const std::unique_ptr<FT_FaceRec_, decltype(&FT_Done_Face)> owned(face, &FT_Done_Face);
  if (FT_Select_Charmap(face, FT_ENCODING_UNICODE) != 0)
    refuse(name, "it does not say which characters it has");
  if (FT_Set_Pixel_Sizes(face, 0, FT_UInt(pixels)) != 0)
    refuse(name, "it has no outlines");
  std::vector<Glyph> out;
  FT_UInt glyph = 0;
  for (FT_ULong code = FT_Get_First_Char(face, &glyph); glyph != 0;
       code = FT_Get_Next_Char(face, code, &glyph)) {
    if (FT_Load_Glyph(face, glyph, FT_LOAD_RENDER | FT_LOAD_TARGET_MONO) != 0)
      continue;  // a character whose program is broken is one that the font does not have
    const FT_Bitmap& bitmap = face->glyph->bitmap;
    if (bitmap.rows > 0 && bitmap.width > 0 && bitmap.pixel_mode == FT_PIXEL_MODE_MONO)
      out.push_back(glyph_of(char32_t(code), bitmap));
  }
  return out;
}

}  // namespace moe
