#include "lib/tokenizer/code_set.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

constexpr char32_t kLast = 0x10FFFF;
constexpr int kDeepest = 20;  // classes inside classes

CodeSet property(PatternCursor& in, std::string_view name) {
  const auto* ranges = property_ranges(name);
  if (!ranges)
    in.refuse(concat("names the property ", in_quotes(name), ", which is not known"));
  return CodeSet(*ranges);
}

// Behind \p or \P.
CodeSet braced_property(PatternCursor& in, bool negated) {
  if (!in.take("{")) {
    const std::string name(1, in.done() ? ' ' : in.pattern[in.at++]);
    return negated ? ~property(in, name) : property(in, name);
  }
  const std::size_t end = in.pattern.find('}', in.at);
  if (end == in.pattern.npos)
    in.refuse("has a property without '}'");
  std::string_view name = in.pattern.substr(in.at, end - in.at);
  in.at = end + 1;
  if (name.starts_with('^')) {
    negated = !negated;
    name.remove_prefix(1);
  }
  for (const std::string_view prefix : {"Script=", "sc=", "General_Category=", "gc="}) {
    if (name.starts_with(prefix))
      name.remove_prefix(prefix.size());
  }
  return negated ? ~property(in, name) : property(in, name);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

char32_t hex_number(PatternCursor& in, int most) {
  char32_t out = 0;
  int digits = 0;
  for (; digits < most && !in.done() && hex_digit(in.pattern[in.at]) >= 0; ++digits)
    out = out * 16 + char32_t(hex_digit(in.pattern[in.at++]));
  if (digits == 0 || out > kLast)
    in.refuse("has a code point in hexadecimal digits that is none");
  return out;
}

// Behind "[:" up to ":]".
CodeSet posix_class(PatternCursor& in) {
  const std::size_t end = in.pattern.find(":]", in.at);
  if (end == in.pattern.npos)
    in.refuse("has a class [: without :]");
  std::string_view name = in.pattern.substr(in.at, end - in.at);
  in.at = end + 2;
  const bool negated = name.starts_with('^');
  if (negated)
    name.remove_prefix(1);
  return negated ? ~property(in, name) : property(in, name);
}

class ClassReader {
 public:
  explicit ClassReader(PatternCursor& in) : in_(in) {}

  CodeSet read(int depth) {
    if (depth > kDeepest)
      in_.refuse(concat("has classes nested more than ", kDeepest, " deep"));
    in_.at += 1;
    const bool negated = in_.take("^");
    CodeSet all({{0, kLast}});
    CodeSet part;
    bool first = true;
    while (first || !in_.starts("]")) {
      if (in_.done())
        in_.refuse("has a class without ']'");
      if (in_.take("&&")) {
        all = all & part;
        part = {};
      } else {
        part = part | item(depth);
      }
      first = false;
    }
    in_.at += 1;
    all = all & part;
    return negated ? ~all : all;
  }

 private:
  CodeSet item(int depth) {
    if (in_.take("[:"))
      return posix_class(in_);
    if (in_.starts("["))
      return read(depth + 1);
    if (!in_.take("\\"))
      return range_from(in_.next_char());
    CodeSet set;
    return read_class_escape(in_, set) ? set : range_from(read_char_escape(in_));
  }

  CodeSet range_from(char32_t low) {
    const std::string_view rest = in_.pattern.substr(in_.at);
    const bool range = rest.size() > 1 && rest[0] == '-' && rest[1] != ']' && rest[1] != '[';
    if (!range)
      return CodeSet({{low, low}});
    in_.at += 1;
    const char32_t high = in_.take("\\") ? read_char_escape(in_) : in_.next_char();
    if (high < low)
      in_.refuse("has a range that runs backwards");
    return CodeSet({{low, high}});
  }

  PatternCursor& in_;
};

}  // namespace

CodeSet::CodeSet(std::vector<CodeRange> ranges) {
  std::ranges::sort(ranges, {}, &CodeRange::first);
  for (const CodeRange& r : ranges) {
    if (!ranges_.empty() && r.first <= ranges_.back().last + 1)
      ranges_.back().last = std::max(ranges_.back().last, r.last);
    else
      ranges_.push_back(r);
  }
}

bool CodeSet::contains(char32_t c) const {
  const auto after = std::ranges::upper_bound(ranges_, c, {}, &CodeRange::first);
  return after != ranges_.begin() && std::prev(after)->last >= c;
}

CodeSet CodeSet::operator|(const CodeSet& other) const {
  std::vector<CodeRange> all = ranges_;
  all.insert(all.end(), other.ranges_.begin(), other.ranges_.end());
  return CodeSet(std::move(all));
}

CodeSet CodeSet::operator~() const {
  CodeSet out;
  char32_t next = 0;
  for (const CodeRange& r : ranges_) {
    if (r.first > next)
      out.ranges_.push_back({next, r.first - 1});
    next = r.last + 1;
  }
  if (next <= kLast)
    out.ranges_.push_back({next, kLast});
  return out;
}

CodeSet CodeSet::operator&(const CodeSet& other) const {
  return ~(~*this | ~other);
}

char32_t PatternCursor::next_char() {
  if (done())
    refuse("ends too early");
  const Utf8Char c = utf8_at(pattern.data() + at);
  at += std::size_t(c.bytes);
  return c.code;
}

void PatternCursor::refuse(std::string_view why) const {
  throw Error(Exit::input,
              concat(in_quotes(source), ": the pattern ", in_quotes(pattern), " ", why))
      .hint("patterns are read as Oniguruma reads them, without calls and conditions");
}

CodeSet read_class(PatternCursor& in) {
  return ClassReader(in).read(0);
}

bool read_class_escape(PatternCursor& in, CodeSet& out) {
  if (in.done())
    in.refuse("ends behind a '\\'");
  const char c = in.pattern[in.at];
  static constexpr std::pair<char, const char*> names[] = {
      {'s', "space"}, {'d', "digit"}, {'w', "word"}, {'h', "xdigit"}};
  for (const auto& [letter, name] : names) {
    if (c != letter && c != letter - 32)
      continue;
    ++in.at;
    out = c == letter ? property(in, name) : ~property(in, name);
    return true;
  }
  if (c != 'p' && c != 'P')
    return false;
  ++in.at;
  out = braced_property(in, c == 'P');
  return true;
}

char32_t read_char_escape(PatternCursor& in) {
  static constexpr std::pair<char32_t, char32_t> controls[] = {
      {'n', '\n'}, {'r', '\r'}, {'t', '\t'}, {'f', '\f'},
      {'v', '\v'}, {'a', '\a'}, {'e', 0x1B}, {'0', 0}};
  const char32_t c = in.next_char();
  for (const auto& [letter, code] : controls) {
    if (c == letter)
      return code;
  }
  if (c == 'u')
    return hex_number(in, 4);
  if (c == 'x') {
    if (!in.take("{"))
      return hex_number(in, 2);
    const char32_t code = hex_number(in, 6);
    if (!in.take("}"))
      in.refuse("has a code point without '}'");
    return code;
  }
  const bool named = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  if (named)
    in.refuse(concat("has the escape '\\", utf8_of(std::u32string(1, c)), "', which is not read"));
  return c;
}

}  // namespace moe
