// Vocabularies spell their pieces in four ways: as they are, one id a byte, GPT-2's printable
// alphabet for bytes ("Ġthe"), and SentencePiece's ("▁the", "<0x0A>").
#include "analysis/metric/pieces.h"

#include <fmt/format.h>

#include <array>

namespace moe {
namespace {

struct Char {
  char32_t code;
  std::size_t length;  // 0: not valid UTF-8 here
};

Char next_char(std::string_view s) {
  const auto byte = [&](std::size_t i) {
    return static_cast<unsigned char>(s[i]);
  };
  const unsigned char b = byte(0);
  if (b < 0x80)
    return {b, 1};
  const std::size_t n = b >= 0xF0 ? 4 : b >= 0xE0 ? 3 : 2;
  if (b < 0xC2 || b > 0xF4 || s.size() < n)
    return {0, 0};
  char32_t code = b & (0xFFu >> (n + 1));
  for (std::size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xC0) != 0x80)
      return {0, 0};
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  return {code, n};
}

// GPT-2's alphabet: bytes that print stand for themselves, the others are U+0100, U+0101, ... in
// order.
int byte_of(char32_t code) {
  const auto prints = [](int b) {
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  };
  if (code < 256)
    return prints(int(code)) ? int(code) : -1;
  int at = 256;
  for (int b = 0; b < 256; ++b) {
    if (!prints(b) && at++ == int(code))
      return b;
  }
  return -1;
}

std::string from_byte_level(std::string_view piece) {
  std::string out;
  for (std::size_t i = 0; i < piece.size();) {
    const Char c = next_char(piece.substr(i));
    const int byte = c.length ? byte_of(c.code) : -1;
    // a special token such as <|end|> with letters of its own
    if (byte < 0)
      return std::string(piece);
    out += char(byte);
    i += c.length;
  }
  return out;
}

// "<0x0A>" is one byte; -1 for everything else.
int escaped_byte(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>')
    return -1;
  int value = 0;
  for (const char c : piece.substr(3, 2)) {
    if (!std::isxdigit(static_cast<unsigned char>(c)))
      return -1;
    value =
        value * 16 + (std::isdigit(static_cast<unsigned char>(c)) ? c - '0' : (c | 32) - 'a' + 10);
  }
  return value;
}

std::string from_sentencepiece(std::string_view piece) {
  std::string out(piece);
  const std::string_view bar = "\xE2\x96\x81";
  for (std::size_t at; (at = out.find(bar)) != std::string::npos;)
    out.replace(at, bar.size(), " ");
  return out;
}

}  // namespace

Pieces::Pieces(const TraceHeader& header) : header_(header) {
  std::size_t level = 0;
  std::size_t sentence = 0;
  for (const std::string& p : header.pieces) {
    level += p.starts_with("\xC4\xA0") || p == "\xC4\x8A";  // Ġ, Ċ
    sentence += p.starts_with("\xE2\x96\x81");
  }
  if (header.tokenizer_id == "bytes" || header.tokenizer_id.starts_with("bytes:"))
    style_ = Style::bytes;
  else if (level > 0)
    style_ = Style::byte_level;
  else if (sentence > 0)
    style_ = Style::sentencepiece;
}

std::string Pieces::bytes(std::uint32_t id) const {
  if (style_ == Style::bytes && id < 256)
    return std::string(1, char(id));
  if (id >= header_.pieces.size())
    return id == withheld_token ? "\xEF\xBF\xBD" : fmt::format("<{}>", id);
  const std::string& p = header_.pieces[id];
  if (const int b = escaped_byte(p); b >= 0)
    return std::string(1, char(b));
  return style_ == Style::byte_level      ? from_byte_level(p)
         : style_ == Style::sentencepiece ? from_sentencepiece(p)
                                          : p;
}

std::string Pieces::readable(std::uint32_t id) const {
  const std::string raw = bytes(id);
  if (raw == " ")
    return "\xE2\x90\xA3";
  std::string out;
  for (std::size_t i = 0; i < raw.size();) {
    const Char c = next_char(std::string_view(raw).substr(i));
    if (c.length == 0)
      out += fmt::format("<0x{:02X}>", static_cast<unsigned char>(raw[i]));
    else if (c.code == '\n')
      out += "\xE2\x8F\x8E";
    else if (c.code < 32 || c.code == 127)
      out += fmt::format("<0x{:02X}>", unsigned(c.code));
    else
      out += raw.substr(i, c.length);
    i += std::max<std::size_t>(1, c.length);
  }
  return out;
}

}  // namespace moe
