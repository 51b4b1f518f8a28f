// Checks and repairs of UTF-8, by table 3-7 of the Unicode standard.
#include "lib/tokenizer/utf8.h"

#include <cstring>

namespace moe {
namespace {

struct SecondByte {
  unsigned char low, high;
};

// What the second byte may be, which is narrower after four of the first bytes.
SecondByte second_byte(unsigned char first) {
  switch (first) {
    case 0xE0:
      return {0xA0, 0xBF};
    case 0xED:
      return {0x80, 0x9F};
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};
    default:
      return {0x80, 0xBF};
  }
}

int announced(unsigned char first) {
  if (first < 0x80)
    return 1;
  if (first < 0xC2 || first > 0xF4)
    return 0;
  return utf8_length(first);
}

// Leading bytes of `text` that may begin its first character.
int good_bytes(std::string_view text, int length) {
  const auto byte = [&](int i) {
    return static_cast<unsigned char>(text[std::size_t(i)]);
  };
  const SecondByte second = second_byte(byte(0));
  int good = 1;
  while (good < length && good < int(text.size())) {
    const unsigned char low = good == 1 ? second.low : 0x80;
    const unsigned char high = good == 1 ? second.high : 0xBF;
    if (byte(good) < low || byte(good) > high)
      break;
    ++good;
  }
  return good;
}

std::size_t ascii_run(std::string_view text) {
  std::size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    std::uint64_t word;
    std::memcpy(&word, text.data() + at, 8);
    if (word & 0x8080808080808080u)
      break;
  }
  while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80)
    ++at;
  return at;
}

}  // namespace

int utf8_valid_length(std::string_view text) {
  if (text.empty())
    return 0;
  const int length = announced(static_cast<unsigned char>(text[0]));
  return length > 0 && good_bytes(text, length) == length ? length : 0;
}

int utf8_broken_length(std::string_view text) {
  const int length = announced(static_cast<unsigned char>(text[0]));
  return length == 0 ? 1 : good_bytes(text, length);
}

bool is_valid_utf8(std::string_view text) {
  while (true) {
    text.remove_prefix(ascii_run(text));
    if (text.empty())
      return true;
    const int length = utf8_valid_length(text);
    if (length == 0)
      return false;
    text.remove_prefix(std::size_t(length));
  }
}

void append_utf8(std::string& out, char32_t code) {
  const auto tail = [&](int shift) {
    out += char(0x80 | (code >> shift & 0x3F));
  };
  if (code < 0x80) {
    out += char(code);
  } else if (code < 0x800) {
    out += char(0xC0 | code >> 6);
    tail(0);
  } else if (code < 0x10000) {
    out += char(0xE0 | code >> 12);
    tail(6);
    tail(0);
  } else {
    out += char(0xF0 | code >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

std::u32string code_points(std::string_view valid) {
  std::u32string out;
  out.reserve(valid.size());
  for (std::size_t at = 0; at < valid.size();) {
    const Utf8Char c = utf8_at(valid.data() + at);
    out += c.code;
    at += std::size_t(c.bytes);
  }
  return out;
}

std::string utf8_of(std::u32string_view codes) {
  std::string out;
  for (const char32_t c : codes)
    append_utf8(out, c);
  return out;
}

WholeText whole_text(std::string_view text) {
  WholeText out;
  out.text.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view rest = text.substr(at);
    std::size_t length = ascii_run(rest);
    if (length == 0)
      length = std::size_t(utf8_valid_length(rest));
    if (length > 0) {
      out.text += rest.substr(0, length);
    } else {
      out.text += "\xEF\xBF\xBD";
      length = std::size_t(utf8_broken_length(rest));
      if (out.broken++ == 0)
        out.first = std::int64_t(at);
    }
    at += length;
  }
  return out;
}

}  // namespace moe
