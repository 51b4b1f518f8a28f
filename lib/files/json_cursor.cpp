// JSON in one pass: see json_cursor.h.
#include "lib/files/json_cursor.h"

#include <charconv>
#include <cmath>
#include <cstring>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

void append_utf8(std::string& out, std::uint32_t code) {
  if (code < 0x80) {
    out += char(code);
  } else if (code < 0x800) {
    out += char(0xc0 | code >> 6);
    out += char(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    out += char(0xe0 | code >> 12);
    out += char(0x80 | (code >> 6 & 0x3f));
    out += char(0x80 | (code & 0x3f));
  } else {
    out += char(0xf0 | code >> 18);
    out += char(0x80 | (code >> 12 & 0x3f));
    out += char(0x80 | (code >> 6 & 0x3f));
    out += char(0x80 | (code & 0x3f));
  }
}

}  // namespace

void JsonCursor::refuse(const std::string& why, const std::string& hint) const {
  Error e(Exit::input, concat(where_, " ", why));
  throw e.hint(hint.empty() ? "the file as its engine wrote it" : hint);
}

void JsonCursor::no_json(const char* wanted) const {
  if (at_ >= end_)
    refuse(concat("is not JSON: it ends where ", wanted, " should stand"));
  refuse(concat("is not JSON: byte ", at_ - first_ + 1, " should be ", wanted));
}

char JsonCursor::next() {
  while (at_ < end_ && is_blank(*at_))
    ++at_;
  return at_ < end_ ? *at_ : char(0);
}

void JsonCursor::expect(char c) {
  if (next() != c) {
    const char wanted[] = {c, 0};
    no_json(wanted);
  }
  ++at_;
}

bool JsonCursor::enter(char open, char close) {
  if (next() != open)
    no_json(open == '{' ? "an object" : "a list");
  if (++depth_ > deepest)
    refuse(concat("is nested more than ", deepest, " deep"));
  ++at_;
  if (next() != close)
    return true;
  ++at_;
  return false;
}

bool JsonCursor::another(char close) {
  const char c = next();
  if (c != ',' && c != close)
    no_json(close == '}' ? "',' or '}'" : "',' or ']'");
  ++at_;
  return c == ',';
}

// Behind the opening quote: to behind the closing one.
void JsonCursor::skip_text() {
  for (;;) {
    const char* quote = static_cast<const char*>(std::memchr(at_, '"', std::size_t(end_ - at_)));
    if (!quote) {
      at_ = end_;
      no_json("a closing quote");
    }
    const char* back = quote;
    while (back > at_ && back[-1] == '\\')
      --back;
    at_ = quote + 1;
    if ((quote - back) % 2 == 0)
      return;
  }
}

std::string JsonCursor::text() {
  if (next() != '"')
    no_json("a text");
  const char* first = ++at_;
  skip_text();
  const char* last = at_ - 1;
  if (!std::memchr(first, '\\', std::size_t(last - first)))
    return {first, last};
  std::string out;
  const auto hex = [&](const char* p) -> std::uint32_t {
    std::uint32_t v = 0;
    const auto [stop, error] = std::from_chars(p, std::min(p + 4, last), v, 16);
    if (error != std::errc() || stop != p + 4)
      refuse("is not JSON: a text has a wrong \\u escape");
    return v;
  };
  for (const char* p = first; p < last; ++p) {
    if (*p != '\\') {
      out += *p;
      continue;
    }
    static constexpr std::string_view names = "\"\\/bfnrt", values = "\"\\/\b\f\n\r\t";
    const char c = *++p;
    if (const auto i = names.find(c); i != names.npos) {
      out += values[i];
    } else if (c == 'u') {
      std::uint32_t code = hex(p + 1);
      p += 4;
      if (code >= 0xd800 && code < 0xdc00 && last - p > 6 && p[1] == '\\' && p[2] == 'u') {
        code = 0x10000 + ((code - 0xd800) << 10) + (hex(p + 3) - 0xdc00);
        p += 6;
      }
      append_utf8(out, code);
    } else {
      refuse("is not JSON: a text has a wrong escape");
    }
  }
  return out;
}

std::string_view JsonCursor::text(std::string& scratch) {
  if (next() == '"') {
    const char* quote =
        static_cast<const char*>(std::memchr(at_ + 1, '"', std::size_t(end_ - at_ - 1)));
    if (quote && !std::memchr(at_ + 1, '\\', std::size_t(quote - at_ - 1))) {
      const std::string_view out(at_ + 1, std::size_t(quote - at_ - 1));
      at_ = quote + 1;
      return out;
    }
  }
  scratch = text();
  return scratch;
}

std::int64_t JsonCursor::whole() {
  next();
  std::int64_t v = 0;
  const auto [stop, error] = std::from_chars(at_, end_, v);
  if (error == std::errc::invalid_argument)
    no_json("a whole number");
  if (error != std::errc())
    refuse("has a number that does not fit 63 bits");
  if (stop < end_ && (*stop == '.' || *stop == 'e' || *stop == 'E')) {
    at_ = stop;
    no_json("the end of a whole number");
  }
  at_ = stop;
  return v;
}

double JsonCursor::real() {
  const char c = next();
  if (c == 'N' || c == 'I' || (c == '-' && at_ + 1 < end_ && at_[1] == 'I'))
    refuse("has NaN or Infinity where a number should stand");
  if (c != '-' && !is_digit(c))
    no_json("a number");
  double v = 0;
  const auto [stop, error] = std::from_chars(at_, end_, v);
  if (error == std::errc::invalid_argument)
    no_json("a number");
  at_ = stop;
  return v;
}

void JsonCursor::word(const char* rest) {
  const std::size_t n = std::strlen(rest);
  if (std::size_t(end_ - at_) < n || std::memcmp(at_, rest, n) != 0)
    no_json(rest);
  at_ += n;
}

bool JsonCursor::null() {
  if (next() != 'n')
    return false;
  word("null");
  return true;
}

void JsonCursor::number() {
  at_ += *at_ == '-';
  const char* first = at_;
  while (at_ < end_ && is_digit(*at_))
    ++at_;
  if (at_ == first)
    no_json("a digit");
  while (at_ < end_ && (is_digit(*at_) || std::strchr(".eE+-", *at_)))
    ++at_;
}

void JsonCursor::skip() {
  switch (next()) {
    case '{':
      return members([&](const std::string&) { skip(); });
    case '[':
      return elements([&] { skip(); });
    case '"':
      ++at_;
      return skip_text();
    case 't':
      return word("true");
    case 'f':
      return word("false");
    case 'n':
      return word("null");
    default:
      break;
  }
  // what Python's json writes although JSON has no word for it
  if (*at_ == 'N' && at_ < end_)
    return word("NaN");
  if (at_ < end_ && *at_ == 'I')
    return word("Infinity");
  if (at_ >= end_ || (*at_ != '-' && !is_digit(*at_)))
    no_json("a value");
  number();
}

std::string_view JsonCursor::raw() {
  next();
  const char* first = at_;
  skip();
  return {first, std::size_t(at_ - first)};
}

void JsonCursor::end() {
  if (next() != 0)
    no_json("the end");
}

struct JsonCursor::Lists {
  const char* what;
  const std::vector<const char*>& axes;
  std::vector<Index> shape, index;
};

namespace {

void take(JsonCursor& c, std::int32_t& v) {
  const std::int64_t wide = c.whole();
  if (wide < INT32_MIN || wide > INT32_MAX)
    c.refuse(concat("has ", wide, ", which does not fit 32 bits"));
  v = std::int32_t(wide);
}
void take(JsonCursor& c, float& v) {
  v = float(c.real());
}

}  // namespace

// A list as Python and engines write it, numbers of up to four digits with at most one blank
// between: taken whole without a call for each. Returns how many, or -1 and takes nothing where
// anything else stands there.
Index JsonCursor::short_numbers(std::vector<std::int32_t>& out) {
  constexpr std::ptrdiff_t longest = 7;  // a blank, four digits, what follows, and one to look at
  const std::size_t had = out.size();
  if (next() != '[')
    return -1;
  const char* p = at_ + 1;
  while (end_ - p > longest) {
    p += *p == ' ';
    unsigned v = unsigned(*p) - '0';
    if (v > 9)
      break;
    // most ids have one digit or two: no branch between those
    const unsigned second = unsigned(p[1]) - '0';
    const bool two = second <= 9;
    v = two ? v * 10 + second : v;
    p += two ? 2 : 1;
    for (int more = 0; two && more < 2 && is_digit(*p); ++more)
      v = v * 10 + unsigned(*p++ - '0');
    out.push_back(std::int32_t(v));
    if (*p == ']') {
      at_ = p + 1;
      return Index(out.size() - had);
    }
    if (*p++ != ',')
      break;
  }
  out.resize(had);
  return -1;
}

void JsonCursor::check_length(Lists& l, std::size_t axis, Index n) const {
  if (l.shape[axis] < 0)
    l.shape[axis] = n;
  if (l.shape[axis] == n)
    return;
  std::string place = l.what;
  for (std::size_t a = 0; a < axis; ++a)
    place += concat("[", l.index[a], "]");
  refuse(concat("has ", n, " ", l.axes[axis], " in ", place, ", where those before have ",
                l.shape[axis]));
}

template <class Number>
void JsonCursor::list(Lists& l, std::size_t axis, std::vector<Number>& out) {
  Index n = 0;
  const bool last = axis + 1 == l.axes.size();
  if constexpr (std::same_as<Number, std::int32_t>) {
    if (last && depth_ < deepest) {
      n = short_numbers(out);
      if (n >= 0)
        return check_length(l, axis, n);
      n = 0;
    }
  }
  for (bool more = enter('[', ']'); more; more = another(']')) {
    l.index[axis] = n++;
    if (last)
      take(*this, out.emplace_back());
    else
      list(l, axis + 1, out);
  }
  leave();
  check_length(l, axis, n);
}

std::vector<Index> JsonCursor::wholes(const char* what, const std::vector<const char*>& axes,
                                      std::vector<std::int32_t>& out) {
  Lists l{what, axes, std::vector<Index>(axes.size(), -1), std::vector<Index>(axes.size())};
  list(l, 0, out);
  for (Index& n : l.shape)
    n = std::max<Index>(n, 0);
  return l.shape;
}

std::vector<Index> JsonCursor::reals(const char* what, const std::vector<const char*>& axes,
                                     std::vector<float>& out) {
  Lists l{what, axes, std::vector<Index>(axes.size(), -1), std::vector<Index>(axes.size())};
  list(l, 0, out);
  for (Index& n : l.shape)
    n = std::max<Index>(n, 0);
  return l.shape;
}

}  // namespace moe
