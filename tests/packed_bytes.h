// Compressed files as gzip and zstd write them, for tests of what reads them.
#pragma once
#include <string>
#include <string_view>

namespace moe::test {

inline std::string bytes_of_hex(std::string_view hex) {
  std::string out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    out += char(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
  return out;
}

// "first line\nsecond line\n"
inline std::string two_lines_gz() {
  return bytes_of_hex(
      "1f8b08000000000002034bcb2c2a2e51c8c9cc4be52a4e4dcecf4b81b0012c5a455d17000000");
}
inline std::string two_lines_zst() {
  return bytes_of_hex("28b52ffd0458b900006669727374206c696e650a7365636f6e64206c696e650a1f3bb8a0");
}
// "a line of text\n", 200,000 times: 3 MB in 278 bytes
inline std::string many_lines_zst() {
  const std::string block = "440000000100fdff390002";
  std::string hex =
      "28b52ffd0468bc00007861206c696e65206f6620746578740a0100eeff92cf3a440000000100fdff924f20";
  for (int i = 0; i < 20; ++i)
    hex += block;
  return bytes_of_hex(hex + "450000000100bdc63900023232e740");
}

}  // namespace moe::test
