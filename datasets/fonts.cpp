#include "datasets/fonts.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/lines.h"
#include "lib/files/unpacked.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t most_bytes = std::size_t(1) << 26;
constexpr std::uint32_t most_glyphs = 1 << 16, most_side = 64;
constexpr std::string_view psf1 = "\x36\x04", psf2 = "\x72\xb5\x4a\x86";

std::string unpacked(const fs::path& path) {
  UnpackedFile file(path);
  std::string out;
  std::vector<char> piece(1 << 16);
  while (const std::size_t n = file.read(piece)) {
    out.append(piece.data(), n);
    if (out.size() > most_bytes) {
      throw Error(Exit::input, concat(in_quotes(path), " holds more than ", most_bytes,
                                      " bytes, and fonts of bits are smaller"))
          .hint("a .hex or .psf font");
    }
  }
  return out;
}

[[noreturn]] void refuse(const fs::path& path, const std::string& why) {
  throw Error(Exit::input, concat(in_quotes(path), " is no font that can be read: ", why))
      .hint(
          "/usr/share/unifont/unifont.hex (package unifont), or the files of "
          "/usr/share/consolefonts (package console-setup-linux)");
}

template <class N>
std::optional<N> hexadecimal(std::string_view text) {
  N out = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), out, 16);
  if (text.empty() || code != std::errc{} || end != text.data() + text.size())
    return std::nullopt;
  return out;
}

bool has_ink(const Glyph& g) {
  return std::ranges::find(g.bit, 1) != g.bit.end();
}

// Rows of whole bytes, the highest bit on the left.
Glyph glyph_of(std::string_view bytes, int height, int width) {
  Glyph out{.code = 0, .height = height, .width = width, .bit = {}};
  const int across = (width + 7) / 8;
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const auto byte = static_cast<unsigned char>(bytes[std::size_t(y * across + x / 8)]);
      out.bit.push_back(byte >> (7 - x % 8) & 1);
    }
  }
  return out;
}

Glyph hex_glyph(std::string_view digits, const fs::path& path, std::size_t number) {
  constexpr int height = 16;
  std::string bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) {
    const auto byte = hexadecimal<unsigned>(digits.substr(i, 2));
    if (!byte)
      refuse(path, concat("line ", number, " has a letter that is no hexadecimal digit"));
    bytes += char(*byte);
  }
  if (digits.size() != 32 && digits.size() != 64)
    refuse(path, concat("line ", number, " has ", digits.size(), " digits in place of 32 or 64"));
  return glyph_of(bytes, height, int(digits.size()) / 4);
}

std::vector<Glyph> read_hex(std::string_view text, const fs::path& path) {
  std::vector<Glyph> out;
  std::size_t number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    while (line.ends_with('\r') || line.ends_with(' '))
      line.remove_suffix(1);
    if (line.empty() || line[0] == '#')
      continue;
    const std::size_t colon = std::min(line.find(':'), line.size());
    const auto code = hexadecimal<std::uint32_t>(line.substr(0, colon));
    if (!code || colon == line.size() || *code > 0x10FFFF)
      refuse(path, concat("line ", number, " is not CODE:DIGITS"));
    Glyph g = hex_glyph(line.substr(colon + 1), path, number);
    g.code = *code;
    if (has_ink(g))
      out.push_back(std::move(g));
  }
  return out;
}

// A .psf file while it is read.
class Psf {
 public:
  Psf(std::string_view bytes, const fs::path& path) : bytes_(bytes), path_(path) {}

  std::vector<Glyph> read() {
    if (bytes_.starts_with(psf2))
      read_head_2();
    else
      read_head_1();
    const std::size_t end = head_ + std::size_t(count_) * each_;
    if (count_ < 1 || count_ > most_glyphs || height_ < 1 || height_ > most_side || width_ < 1 ||
        width_ > most_side || each_ != height_ * ((width_ + 7) / 8)) {
      refuse(path_, concat("its header says ", count_, " characters of ", width_, " x ", height_,
                           " in ", each_, " bytes"));
    }
    if (end > bytes_.size())
      refuse(path_, concat("it ends at byte ", bytes_.size(), " of ", end));
    if (!table_)
      refuse(path_, "it does not say which characters it has");
    at_ = end;
    for (std::uint32_t n = 0; n < count_; ++n)
      add(glyph_of(bytes_.substr(head_ + n * each_, each_), int(height_), int(width_)));
    return std::move(out_);
  }

 private:
  void read_head_1() {
    const auto mode = number(2, 1);
    head_ = 4;
    count_ = mode & 1 ? 512 : 256;
    each_ = number(3, 1);
    height_ = each_;
    width_ = 8;
    table_ = (mode & 6) != 0;
  }
  void read_head_2() {
    head_ = number(8, 4);
    table_ = (number(12, 4) & 1) != 0;
    count_ = number(16, 4);
    each_ = number(20, 4);
    height_ = number(24, 4);
    width_ = number(28, 4);
    wide_ = true;
  }
  std::uint32_t number(std::size_t at, std::size_t size) const {
    if (at + size > bytes_.size())
      refuse(path_, concat("it ends at byte ", bytes_.size(), " inside its header"));
    std::uint32_t out = 0;
    for (std::size_t i = size; i-- > 0;)
      out = out << 8 | static_cast<unsigned char>(bytes_[at + i]);
    return out;
  }
  // A glyph for each of the characters that the table gives it; sequences of several are left out.
  void add(const Glyph& g) {
    bool sequence = false;
    while (const auto code = next()) {
      sequence |= *code == sequences;
      if (sequence || !has_ink(g))
        continue;
      out_.push_back(g);
      out_.back().code = *code;
    }
  }
  static constexpr char32_t sequences = 0xFFFFFFFE;
  // The next character of the table, `sequences`, or nothing at the end of a glyph's entry.
  std::optional<char32_t> next() {
    return wide_ ? next_utf8() : next_16();
  }
  std::optional<char32_t> next_16() {
    const auto unit = char32_t(number(at_, 2));
    at_ += 2;
    if (unit == 0xFFFF)
      return std::nullopt;
    return unit == 0xFFFE ? sequences : unit;
  }
  std::optional<char32_t> next_utf8() {
    const auto first = number(at_++, 1);
    if (first == 0xFF)
      return std::nullopt;
    if (first == 0xFE)
      return sequences;
    const std::string_view rest = bytes_.substr(--at_);
    const int length = utf8_valid_length(rest);
    if (length < 1)
      refuse(path_, concat("its table of characters is broken at byte ", at_));
    at_ += std::size_t(length);
    return utf8_at(rest.data()).code;
  }

  std::string_view bytes_;
  const fs::path& path_;
  std::size_t head_ = 0, at_ = 0;
  std::uint32_t count_ = 0, each_ = 0, height_ = 0, width_ = 0;
  bool table_ = false, wide_ = false;
  std::vector<Glyph> out_;
};

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  return out;
}

}  // namespace

bool is_outline_name(const fs::path& path) {
  const fs::path ending = path.extension();
  return ending == ".ttf" || ending == ".otf";
}

bool is_font_name(const fs::path& path) {
  const fs::path ending = without_packing(path).extension();
  return ending == ".hex" || ending == ".psf" || ending == ".psfu" || is_outline_name(path);
}

std::vector<Glyph> read_font(const fs::path& path, int pixels) {
  const std::string bytes = unpacked(path);
  const bool psf = bytes.starts_with(psf1) || bytes.starts_with(psf2);
  const bool outlines = !psf && is_outline_name(path);
  if (!psf && !outlines && without_packing(path).extension() != ".hex")
    refuse(path, "it begins not as a .psf file, and is named neither .hex nor .ttf nor .otf");
  std::vector<Glyph> out = psf        ? Psf(bytes, path).read()
                           : outlines ? read_outlines(bytes, pixels, path)
                                      : read_hex(bytes, path);
  if (out.empty())
    refuse(path, "it has no character with any ink");
  return out;
}

Glyph trimmed(const Glyph& g) {
  int top = g.height;
  int bottom = -1;
  int left = g.width;
  int right = -1;
  for (int y = 0; y < g.height; ++y) {
    for (int x = 0; x < g.width; ++x) {
      if (!g.at(y, x))
        continue;
      top = std::min(top, y);
      bottom = std::max(bottom, y);
      left = std::min(left, x);
      right = std::max(right, x);
    }
  }
  Glyph out{.code = g.code,
            .height = std::max(0, bottom - top + 1),
            .width = std::max(0, right - left + 1),
            .bit = {}};
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x)
      out.bit.push_back(g.at(top + y, left + x));
  }
  return out;
}

std::map<char32_t, std::string> read_character_names(const fs::path& path) {
  std::map<char32_t, std::string> out;
  LineReader lines(path);
  for (std::string line; lines.next(line);) {
    const std::size_t end = std::min(line.find(';'), line.size());
    const auto code = hexadecimal<std::uint32_t>(std::string_view(line).substr(0, end));
    if (!code || end < 4)
      continue;
    // CODE;NAME;..., or CODE and the name in the line behind it
    std::string name;
    if (end < line.size())
      name = line.substr(end + 1, line.find(';', end + 1) - end - 1);
    else
      lines.next(name);
    if (!name.empty() && name[0] != '<')
      out.emplace(*code, lower(name));
  }
  if (out.empty()) {
    throw Error(Exit::input, concat(in_quotes(path), " holds no names of characters"))
        .hint("UnicodeData.txt (package unicode-data), or /usr/share/perl/5.36/unicore/Name.pl");
  }
  return out;
}

}  // namespace moe
