#include "lib/files/any_bytes.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdint>

namespace moe {
namespace {

// Bytes of the character at the beginning; 0 = it is none.
std::size_t character(std::string_view s) {
  const auto at = [&](std::size_t i) {
    return i < s.size() ? std::uint32_t(static_cast<unsigned char>(s[i])) : 0u;
  };
  const std::uint32_t lead = at(0);
  const std::size_t n = lead < 0x80                   ? 1
                        : lead >= 0xC2 && lead < 0xE0 ? 2
                        : lead >= 0xE0 && lead < 0xF0 ? 3
                        : lead >= 0xF0 && lead < 0xF5 ? 4
                                                      : 0;
  std::uint32_t code = n < 2 ? lead : lead & (0x7Fu >> n);
  for (std::size_t i = 1; i < n; ++i) {
    if ((at(i) & 0xC0) != 0x80)
      return 0;
    code = code << 6 | (at(i) & 0x3F);
  }
  const bool longer = (n == 3 && code < 0x800) || (n == 4 && code < 0x10000);
  const bool none = (code >= 0xD800 && code < 0xE000) || code > 0x10FFFF;
  return longer || none ? 0 : n;
}

}  // namespace

std::string escaped(std::string_view bytes) {
  std::string out;
  while (!bytes.empty()) {
    std::size_t n = character(bytes);
    if (n == 0 || bytes.starts_with("\\x")) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(bytes[0]));
      n = 1;
    } else {
      out += bytes.substr(0, n);
    }
    bytes.remove_prefix(n);
  }
  return out;
}

std::vector<std::string> escaped_all(const std::vector<std::string>& texts) {
  std::vector<std::string> out;
  for (const std::string& t : texts)
    out.push_back(escaped(t));
  return out;
}

std::string unescaped(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    unsigned value = 0;
    const char* end = text.data() + std::min<std::size_t>(4, text.size());
    const bool is_byte = text.size() >= 4 && text.starts_with("\\x") &&
                         std::from_chars(text.data() + 2, end, value, 16).ptr == end;
    out += is_byte ? char(value) : text[0];
    text.remove_prefix(is_byte ? 4 : 1);
  }
  return out;
}

}  // namespace moe
