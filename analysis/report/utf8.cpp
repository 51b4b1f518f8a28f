#include "analysis/report/utf8.h"

#include <array>

namespace moe::drawing {
namespace {

char32_t decode(std::string_view s) {  // one well-formed character
  const auto b = [&](std::size_t i) {
    return static_cast<unsigned char>(s[i]);
  };
  switch (s.size()) {
    case 1:
      return b(0);
    case 2:
      return (b(0) & 0x1Fu) << 6 | (b(1) & 0x3Fu);
    case 3:
      return (b(0) & 0x0Fu) << 12 | (b(1) & 0x3Fu) << 6 | (b(2) & 0x3Fu);
    default:
      return (b(0) & 0x07u) << 18 | (b(1) & 0x3Fu) << 12 | (b(2) & 0x3Fu) << 6 | (b(3) & 0x3Fu);
  }
}

std::string encode3(unsigned c) {  // U+0800..U+FFFF
  return {char(0xE0 | c >> 12), char(0x80 | (c >> 6 & 0x3F)), char(0x80 | (c & 0x3F))};
}

struct Span {
  char32_t first, last;
};
constexpr std::array<Span, 13> wide_spans{{{0x1100, 0x115F},
                                           {0x2E80, 0x303E},
                                           {0x3041, 0x33FF},
                                           {0x3400, 0x4DBF},
                                           {0x4E00, 0x9FFF},
                                           {0xA000, 0xA4CF},
                                           {0xAC00, 0xD7A3},
                                           {0xF900, 0xFAFF},
                                           {0xFE30, 0xFE6F},
                                           {0xFF00, 0xFF60},
                                           {0xFFE0, 0xFFE6},
                                           {0x1F300, 0x1F9FF},
                                           {0x20000, 0x3FFFD}}};
constexpr std::array<Span, 5> narrow_marks{
    {{0x0300, 0x036F}, {0x200B, 0x200F}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}}};

int columns_of(char32_t c) {
  for (const Span s : narrow_marks) {
    if (c >= s.first && c <= s.last)
      return 0;
  }
  for (const Span s : wide_spans) {
    if (c >= s.first && c <= s.last)
      return 2;
  }
  return 1;
}

// Bytes of `text` that fit into `width` columns, at least one character.
std::size_t fitting(std::string_view text, int width) {
  std::size_t at = 0;
  int used = 0;
  while (at < text.size()) {
    const std::size_t n = std::max<std::size_t>(1, character(text, at));
    used += columns(text.substr(at, n));
    if (used > width && at)
      break;
    at += n;
  }
  return at;
}

}  // namespace

std::size_t promised(unsigned char first) {
  return first >= 0xF0 && first < 0xF5   ? 4
         : first >= 0xE0 && first < 0xF0 ? 3
         : first >= 0xC2 && first < 0xE0 ? 2
                                         : 1;
}

std::size_t character(std::string_view text, std::size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  const std::size_t n = promised(first);
  if (n == 1)
    return first < 0x80 ? 1 : 0;
  if (at + n > text.size())
    return 0;
  for (std::size_t i = 1; i < n; ++i) {
    if ((static_cast<unsigned char>(text[at + i]) & 0xC0) != 0x80)
      return 0;
  }
  const char32_t c = decode(text.substr(at, n));
  const bool bad = (n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10FFFF)) ||
                   (c >= 0xD800 && c <= 0xDFFF);
  return bad ? 0 : n;
}

std::string clean(std::string_view text, bool lines) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t n = character(text, at);
    if (n == 0) {
      out += "\xEF\xBF\xBD";
      ++at;
      continue;
    }
    const std::string_view one = text.substr(at, n);
    const char32_t c = decode(one);
    if (lines && (c == '\n' || c == '\t')) {
      out += one;
    } else if (c < 0x20) {
      out += encode3(0x2400 + unsigned(c));
    } else if (c == 0x7F) {
      out += encode3(0x2421);
    } else if ((c >= 0x80 && c < 0xA0) || (c >= 0x202A && c <= 0x202E) ||
               (c >= 0x2066 && c <= 0x2069)) {
      out += encode3(0xFFFD);
    }
    // above: C1 codes and direction overrides, which could make a terminal or a page lie
    else {
      out += one;
    }
    at += n;
  }
  return out;
}

int columns(std::string_view text) {
  int sum = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t n = character(text, at);
    sum += n ? columns_of(decode(text.substr(at, n))) : 1;
    at += n ? n : 1;
  }
  return sum;
}

std::string clip(std::string_view text, int width, bool ascii) {
  if (columns(text) <= width)
    return std::string(text);
  const std::string mark = ascii ? "~" : "…";
  if (width <= 1)
    return mark;
  std::string cut(text.substr(0, fitting(text, width - 1)));
  if (columns(cut) > width - 1)
    cut.clear();  // one wide character in one column
  return cut + mark;
}

std::string padded(std::string_view text, int width, bool right) {
  const std::string blanks(std::size_t(std::max(0, width - columns(text))), ' ');
  return right ? blanks + std::string(text) : std::string(text) + blanks;
}

std::vector<std::string> wrap(std::string_view text, int width) {
  std::vector<std::string> out;
  std::string line;
  const auto push = [&] {
    out.push_back(line);
    line.clear();
  };
  while (!text.empty()) {
    const auto blank = text.find(' ');
    std::string_view word = text.substr(0, blank);
    text = blank == text.npos ? std::string_view{} : text.substr(blank + 1);
    if (word.empty())
      continue;
    if (!line.empty() && columns(line) + 1 + columns(word) > width)
      push();
    while (columns(word) > width) {
      const std::size_t n = fitting(word, width);
      if (n == word.size())
        break;
      line = word.substr(0, n);
      push();
      word.remove_prefix(n);
    }
    line += (line.empty() ? "" : " ") + std::string(word);
  }
  if (!line.empty())
    push();
  return out;
}

std::string html(std::string_view text) {
  std::string out;
  for (const char c : clean(text, true)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::vector<Piece> whole_characters(const std::vector<std::string>& tokens) {
  const auto missing = [](std::string_view s) {  // bytes that the last, cut character still wants
    for (std::size_t back = 1; back <= 3 && back <= s.size(); ++back) {
      const auto b = static_cast<unsigned char>(s[s.size() - back]);
      if ((b & 0xC0) == 0x80)
        continue;
      return promised(b) > back ? promised(b) - back : 0;
    }
    return std::size_t{0};
  };
  std::vector<Piece> out;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const bool goes_on =
        !tokens[i].empty() && (static_cast<unsigned char>(tokens[i][0]) & 0xC0) == 0x80;
    if (goes_on && !out.empty() && missing(out.back().text) > 0) {
      out.back().text += tokens[i];
      ++out.back().count;
    } else {
      out.push_back({i, 1, tokens[i]});
    }
  }
  return out;
}

}  // namespace moe::drawing
