#include "analysis/report/png.h"

#include <zlib.h>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe::drawing {
namespace {

std::string big_endian(std::uint32_t v) {
  return {char(v >> 24), char(v >> 16), char(v >> 8), char(v)};
}

std::string chunk(std::string_view kind, std::string_view body) {
  const std::string named = std::string(kind) + std::string(body);
  const auto crc = crc32(0, reinterpret_cast<const Bytef*>(named.data()), uInt(named.size()));
  return big_endian(std::uint32_t(body.size())) + named + big_endian(std::uint32_t(crc));
}

}  // namespace

std::string png(std::span<const std::uint8_t> cells, std::size_t rows, std::size_t cols,
                const std::vector<Rgb>& palette) {
  std::string raw;  // each line behind its filter type, 0 = none
  for (std::size_t r = 0; r < rows; ++r) {
    raw += '\0';
    for (const std::uint8_t c : cells.subspan(r * cols, cols))
      raw += char(c);
  }
  uLongf size = compressBound(uLong(raw.size()));
  std::string packed(size, '\0');
  const int code = compress2(reinterpret_cast<Bytef*>(packed.data()), &size,
                             reinterpret_cast<const Bytef*>(raw.data()), uLong(raw.size()), 9);
  if (code != Z_OK) {
    throw Error(Exit::memory, concat("zlib could not pack a picture of ", rows, " x ", cols,
                                     " cells (code ", code, ")"));
  }
  packed.resize(size);
  std::string colours;
  for (const Rgb& c : palette) {
    for (const std::uint8_t v : c)
      colours += char(v);
  }
  const std::string header = big_endian(std::uint32_t(cols)) + big_endian(std::uint32_t(rows)) +
                             std::string("\x08\x03\x00\x00\x00", 5);
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", header) + chunk("PLTE", colours) +
         chunk("IDAT", packed) + chunk("IEND", "");
}

std::string data_uri(std::string_view bytes) {
  static constexpr std::string_view letters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out = "data:image/png;base64,";
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t v = 0;
    for (std::size_t j = 0; j < 3; ++j)
      v = v << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    for (std::size_t j = 0; j < 4; ++j)
      out += i + j > bytes.size() ? '=' : letters[v >> (18 - 6 * j) & 63];
  }
  return out;
}

}  // namespace moe::drawing
