#include "lib/tokenizer/byte_letters.h"

#include "lib/tokenizer/utf8.h"

namespace moe {

const std::array<char32_t, 256>& byte_letters() {
  static const std::array<char32_t, 256> letters = [] {
    std::array<char32_t, 256> out{};
    char32_t next = 0x100;
    for (char32_t b = 0; b < 256; ++b) {
      const bool prints = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      out[b] = prints ? b : next++;
    }
    return out;
  }();
  return letters;
}

int byte_of_letter(char32_t letter) {
  static const std::array<int, 0x144> bytes = [] {
    std::array<int, 0x144> out{};
    out.fill(-1);
    for (int b = 0; b < 256; ++b)
      out[byte_letters()[std::size_t(b)]] = b;
    return out;
  }();
  return letter < bytes.size() ? bytes[letter] : -1;
}

std::string letters_of_bytes(std::string_view bytes) {
  std::string out;
  for (const char c : bytes)
    append_utf8(out, byte_letters()[static_cast<unsigned char>(c)]);
  return out;
}

std::optional<std::string> bytes_of_letters(std::string_view letters) {
  std::string out;
  for (std::size_t at = 0; at < letters.size();) {
    const Utf8Char c = utf8_at(letters.data() + at);
    const int byte = byte_of_letter(c.code);
    if (byte < 0)
      return std::nullopt;
    out += char(byte);
    at += std::size_t(c.bytes);
  }
  return out;
}

void to_byte_letters(Aligned& text) {
  Aligned out(text.tracked());
  for (std::size_t at = 0; at < text.text().size(); ++at) {
    const auto byte = static_cast<unsigned char>(text.text()[at]);
    out.append(byte_letters()[byte], text.tracked() ? text.byte_origin(at) : ByteRange{});
  }
  text = std::move(out);
}

}  // namespace moe
