#include <ft2build.h>

#include <algorithm>
#include <memory>

#include FT_FREETYPE_H
#include FT_GLYPH_H
#include FT_STROKER_H

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

// A font in memory whose em is so many pixels high. Throws Error(input) that names the file.
class Face {
 public:
  Face(std::span<const char> bytes, int pixels, const std::filesystem::path& name) : name_(name) {
    if (FT_New_Memory_Face(library_.handle, reinterpret_cast<const FT_Byte*>(bytes.data()),
                           FT_Long(bytes.size()), 0, &face_) != 0)
      refuse(name, "FreeType does not know it, or it is damaged");
    owned_.reset(face_);
    if (FT_Select_Charmap(face_, FT_ENCODING_UNICODE) != 0)
      refuse(name, "it does not say which characters it has");
    if (FT_Set_Pixel_Sizes(face_, 0, FT_UInt(pixels)) != 0)
      refuse(name, "it has no outlines");
  }
  FT_Face get() const {
    return face_;
  }
  FT_Library library() const {
    return library_.handle;
  }
  const std::filesystem::path& name() const {
    return name_;
  }

 private:
  Library library_;
  FT_Face face_ = nullptr;
  std::unique_ptr<FT_FaceRec_, decltype(&FT_Done_Face)> owned_{nullptr, &FT_Done_Face};
  const std::filesystem::path& name_;
};

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
  const Face of(bytes, pixels, name);
  const FT_Face face = of.get();
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

namespace {

constexpr int fixed = 64;  // steps of a pixel in FreeType's positions

int whole_pixels(FT_Pos position) {
  return int((position + fixed / 2) >> 6);
}

// How much of each pixel of a picture is covered, 0 to 255.
class Cover {
 public:
  Cover(int height, int width)
      : height_(height), width_(width), level_(std::size_t(height) * std::size_t(width)) {}
  // What two layers cover together: none of it where both leave the pixel free.
  void add(const FT_Bitmap& bitmap, int top, int left) {
    for (int y = 0; y < int(bitmap.rows); ++y) {
      for (int x = 0; x < int(bitmap.width); ++x) {
        const int at_y = top + y;
        const int at_x = left + x;
        if (at_y < 0 || at_x < 0 || at_y >= height_ || at_x >= width_)
          continue;
        const int more = bitmap.buffer[y * bitmap.pitch + x];
        std::uint8_t& level = level_[std::size_t(at_y) * std::size_t(width_) + std::size_t(at_x)];
        level = std::uint8_t(std::min(255, more + over_255(level * (255 - more))));
      }
    }
  }
  void paint(Picture& p, int ink) const {
    for (std::size_t i = 0; i < p.pixel.size(); ++i) {
      const int level = level_[i / 3];
      p.pixel[i] = std::uint8_t(over_255(p.pixel[i] * (255 - level) + ink * level));
    }
  }

 private:
  // v / 255 to the nearest whole number.
  static int over_255(int v) {
    return ((v + 128) + ((v + 128) >> 8)) >> 8;
  }

  int height_, width_;
  std::vector<std::uint8_t> level_;
};

struct GlyphOwner {
  FT_Glyph glyph = nullptr;
  ~GlyphOwner() {
    FT_Done_Glyph(glyph);
  }
};

// The glyph that was loaded, with a border around it, as levels of grey.
void add_glyph(const Face& of, FT_Stroker border, int pen, int base, Cover& cover) {
  GlyphOwner own;
  bool good = FT_Get_Glyph(of.get()->glyph, &own.glyph) == 0;
  good = good && (!border || FT_Glyph_StrokeBorder(&own.glyph, border, 0, 1) == 0);
  FT_Vector origin{0, 0};
  good = good && FT_Glyph_To_Bitmap(&own.glyph, FT_RENDER_MODE_NORMAL, &origin, 1) == 0;
  if (!good)
    refuse(of.name(), "a character of it cannot be drawn");
  const auto* drawn = reinterpret_cast<FT_BitmapGlyph>(own.glyph);
  if (drawn->bitmap.pixel_mode == FT_PIXEL_MODE_GRAY)
    cover.add(drawn->bitmap, base - drawn->top, pen + drawn->left);
}

void add_text(const Face& of, FT_Stroker border, const std::string& text, Cover& cover) {
  const FT_Face face = of.get();
  const int base = whole_pixels(face->size->metrics.ascender);
  FT_Pos pen = 0;
  for (const char c : text) {
    const FT_UInt glyph = FT_Get_Char_Index(face, static_cast<unsigned char>(c));
    if (FT_Load_Glyph(face, glyph, FT_LOAD_NO_BITMAP) != 0)
      refuse(of.name(), "a character of it cannot be drawn");
    const FT_Fixed advance = face->glyph->linearHoriAdvance;  // in 1/65536 of a pixel
    add_glyph(of, border, whole_pixels(pen), base, cover);
    pen += (advance + 512) >> 10;
  }
}

}  // namespace

void write_text(Picture& p, const std::string& text, std::span<const char> font, int pixels,
                int border, const std::filesystem::path& name) {
  const Face of(font, pixels, name);
  if (border > 0) {
    FT_Stroker stroker = nullptr;
    if (FT_Stroker_New(of.library(), &stroker) != 0)
      throw Error(Exit::environment, "FreeType draws no borders");
    const std::unique_ptr<FT_StrokerRec_, decltype(&FT_Stroker_Done)> owned(stroker,
                                                                            &FT_Stroker_Done);
    FT_Stroker_Set(stroker, border * fixed, FT_STROKER_LINECAP_ROUND, FT_STROKER_LINEJOIN_ROUND, 0);
    Cover around(p.height, p.width);
    add_text(of, stroker, text, around);
    around.paint(p, 255);
  }
  Cover ink(p.height, p.width);
  add_text(of, nullptr, text, ink);
  ink.paint(p, 0);
}

}  // namespace moe
