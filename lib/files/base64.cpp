// Four characters are three bytes: see base64.h.
#include "lib/files/base64.h"

#include <array>

namespace moe {
namespace {

constexpr std::array<std::uint8_t, 256> make_values() {
  std::array<std::uint8_t, 256> out{};
  for (auto& v : out)
    v = 0xFF;
  constexpr std::string_view alphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (std::size_t i = 0; i < alphabet.size(); ++i)
    out[static_cast<unsigned char>(alphabet[i])] = std::uint8_t(i);
  return out;
}
constexpr auto values = make_values();

}  // namespace

bool read_base64(std::string_view text, Bytes& out) {
  if (text.size() % 4 != 0)
    return false;
  std::size_t padding = 0;
  while (padding < 2 && text.ends_with('=')) {
    text.remove_suffix(1);
    ++padding;
  }
  const std::size_t bytes = text.size() * 3 / 4;
  auto buffer = std::make_shared<std::vector<std::byte>>(bytes + 3);
  std::byte* to = buffer->data();
  std::uint32_t wrong = 0;
  const auto value = [&](std::size_t i) {
    const std::uint32_t v = values[static_cast<unsigned char>(text[i])];
    wrong |= v;
    return v;
  };
  std::size_t i = 0;
  for (; i + 4 <= text.size(); i += 4) {
    const std::uint32_t v = value(i) << 18 | value(i + 1) << 12 | value(i + 2) << 6 | value(i + 3);
    *to++ = std::byte(v >> 16);
    *to++ = std::byte(v >> 8);
    *to++ = std::byte(v);
  }
  std::uint32_t last = 0;
  for (std::size_t k = 0; k < 4; ++k)
    last = last << 6 | (i + k < text.size() ? value(i + k) : 0);
  *to++ = std::byte(last >> 16);
  *to++ = std::byte(last >> 8);
  if (wrong & 0xC0)
    return false;
  const std::span<const std::byte> span(buffer->data(), bytes);
  out = {{buffer, buffer->data()}, span};
  return true;
}

}  // namespace moe
