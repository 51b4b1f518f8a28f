// SHA-256 (FIPS 180-4): what identifies a corpus in a trace, and a tokenizer by its file.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace moe {

class Sha256 {  // FIPS 180-4
 public:
  void update(std::span<const std::uint8_t>);
  std::string hex();  // of everything so far; the object is used up

 private:
  void block(const std::uint8_t* bytes);
  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> pending_{};
  std::uint64_t bytes_ = 0;
};
std::string sha256_hex(std::string_view bytes);  // 64 digits

}  // namespace moe
