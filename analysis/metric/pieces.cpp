// As they are (" the"), one id a byte, GPT-2's printable alphabet for bytes ("Ġthe"),
// SentencePiece's ("▁the"), WordPiece's ("the", and "##ing" within a word), and with a mark behind
// words ("the</w>"). In each, bytes that are no whole characters may be written "<0xE4><0xB8>".
#include "analysis/metric/pieces.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "lib/core/text.h"

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

// "<0xE4><0xB8>" are two bytes; nothing for a piece that is not all of this kind.
std::optional<std::string> escaped_bytes(std::string_view piece) {
  constexpr std::size_t length = 6;
  if (piece.empty() || piece.size() % length != 0)
    return std::nullopt;
  std::string out;
  for (std::size_t at = 0; at < piece.size(); at += length) {
    const std::string_view one = piece.substr(at, length);
    unsigned value = 0;
    const auto [end, error] = std::from_chars(one.data() + 3, one.data() + 5, value, 16);
    if (!one.starts_with("<0x") || one[5] != '>' || error != std::errc() || end != one.data() + 5)
      return std::nullopt;
    out += char(value);
  }
  return out;
}

constexpr std::string_view bar = "\xE2\x96\x81";  // ▁
constexpr std::string_view inside = "##";
constexpr std::string_view word_end_mark = "</w>";

std::string from_sentencepiece(std::string_view piece) {
  std::string out(piece);
  for (std::size_t at; (at = out.find(bar)) != std::string::npos;)
    out.replace(at, bar.size(), " ");
  return out;
}

std::string from_word_piece(std::string_view piece) {
  return piece.starts_with(inside) && piece.size() > inside.size()
             ? std::string(piece.substr(inside.size()))
             : concat(" ", piece);
}

std::string from_word_end(std::string_view piece) {
  if (!piece.ends_with(word_end_mark))
    return std::string(piece);
  piece.remove_suffix(word_end_mark.size());
  return concat(piece, " ");
}

}  // namespace

Pieces::Style Pieces::style_of(const TraceHeader& header) {
  if (header.tokenizer_id == "bytes" || header.tokenizer_id.starts_with("bytes:"))
    return Style::bytes;
  // Any vocabulary may hold the marks of others as plain letters: what most pieces have counts.
  std::pair<std::size_t, Style> votes[] = {{0, Style::raw},
                                           {0, Style::byte_level},
                                           {0, Style::sentencepiece},
                                           {0, Style::word_piece},
                                           {0, Style::word_end}};
  for (const std::string& p : header.pieces) {
    votes[0].first += p.starts_with(' ') && p.size() > 1;
    votes[1].first += p.starts_with("\xC4\xA0") || p == "\xC4\x8A";  // Ġ, Ċ
    votes[2].first += p.starts_with(bar);
    votes[3].first += p.starts_with(inside) && p.size() > inside.size() && p[inside.size()] != '#';
    votes[4].first += p.ends_with(word_end_mark);
  }
  return std::ranges::max_element(votes, {}, &std::pair<std::size_t, Style>::first)->second;
}

Pieces::Pieces(const TraceHeader& header) : header_(header), style_(style_of(header)) {}

std::string Pieces::bytes(std::uint32_t id) const {
  if (style_ == Style::bytes && id < 256)
    return std::string(1, char(id));
  if (id >= header_.pieces.size())
    return id == withheld_token ? "\xEF\xBF\xBD" : fmt::format("<{}>", id);
  const std::string& p = header_.pieces[id];
  if (auto plain = escaped_bytes(p))
    return *plain;
  switch (style_) {
    case Style::byte_level:
      return from_byte_level(p);
    case Style::sentencepiece:
      return from_sentencepiece(p);
    case Style::word_piece:
      return from_word_piece(p);
    case Style::word_end:
      return from_word_end(p);
    case Style::raw:
    case Style::bytes:
      break;
  }
  return p;
}

std::string Pieces::readable(std::uint32_t id) const {
  const std::string raw = bytes(id);
  std::string out;
  for (std::size_t i = 0; i < raw.size();) {
    const Char c = next_char(std::string_view(raw).substr(i));
    if (c.length == 0)
      out += fmt::format("<0x{:02X}>", static_cast<unsigned char>(raw[i]));
    else if (c.code == ' ')
      out += "\xE2\x90\xA3";
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
