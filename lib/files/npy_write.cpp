// Magic, version, length of the dictionary, the dictionary padded with blanks: see npy_write.h.
#include "lib/files/npy_write.h"

#include "lib/core/text.h"

namespace moe {

std::string npy_head(std::string_view type, const std::vector<Index>& shape) {
  constexpr std::size_t aligned = 64;
  constexpr std::size_t before = 10;  // magic, version, length
  std::string dims;
  for (const Index n : shape)
    dims += concat(dims.empty() ? "" : " ", n, ",");
  if (shape.size() > 1)
    dims.pop_back();
  std::string text =
      concat("{'descr': '", type, "', 'fortran_order': False, 'shape': (", dims, "), }");
  const std::size_t used = (before + text.size() + 1) % aligned;
  text.append(used == 0 ? 0 : aligned - used, ' ');
  text += '\n';
  std::string out("\x93NUMPY\x01\x00", 8);
  out += char(text.size() & 255);
  out += char(text.size() >> 8 & 255);
  return out + text;
}

namespace {

// Bytes of the character that begins with `lead`; 0 = it begins none.
std::size_t length_of(unsigned char lead) {
  if (lead < 0x80)
    return 1;
  if (lead >= 0xC2 && lead < 0xE0)
    return 2;
  if (lead >= 0xE0 && lead < 0xF0)
    return 3;
  return lead >= 0xF0 && lead < 0xF5 ? 4 : 0;
}

}  // namespace

std::u32string npy_characters(std::string_view utf8) {
  std::u32string out;
  for (std::size_t at = 0; at < utf8.size();) {
    const auto lead = static_cast<unsigned char>(utf8[at]);
    const std::size_t length = length_of(lead);
    char32_t code = length < 2 ? lead : lead & (0x7F >> length);
    bool sound = length > 0 && at + length <= utf8.size();
    for (std::size_t i = 1; sound && i < length; ++i) {
      const auto next = static_cast<unsigned char>(utf8[at + i]);
      sound = (next & 0xC0) == 0x80;
      code = code << 6 | (next & 0x3F);
    }
    out += sound ? code : char32_t(0xFFFD);
    at += sound ? length : 1;
  }
  return out;
}

}  // namespace moe
