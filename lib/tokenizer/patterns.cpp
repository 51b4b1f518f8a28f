// Patterns that need no engine, and the choice between all of them.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/tokenizer/code_set.h"
#include "lib/tokenizer/fields.h"
#include "lib/tokenizer/pattern.h"
#include "lib/tokenizer/pcre_pattern.h"
#include "lib/tokenizer/scanner.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

using Json = nlohmann::json;

// Collects matches and the gaps between them.
class Cuts {
 public:
  Cuts(std::string_view text, Matches& out) : size_(text.size()), out_(out) {}
  void match(std::size_t begin, std::size_t end) {
    if (done_ < begin)
      out_.push_back({std::uint32_t(done_), std::uint32_t(begin), false});
    out_.push_back({std::uint32_t(begin), std::uint32_t(end), true});
    done_ = end;
  }
  void finish() {
    if (done_ < size_ || size_ == 0)
      out_.push_back({std::uint32_t(done_), std::uint32_t(size_), false});
  }

 private:
  std::size_t size_, done_ = 0;
  Matches& out_;
};

class Literal final : public SplitPattern {
 public:
  explicit Literal(std::string text) : text_(std::move(text)) {}
  void find(std::string_view text, Matches& out) const override {
    Cuts cuts(text, out);
    for (std::size_t at = 0; (at = text.find(text_, at)) != text.npos; at += text_.size())
      cuts.match(at, at + text_.size());
    cuts.finish();
  }

 private:
  std::string text_;
};

class CharPattern final : public SplitPattern {
 public:
  explicit CharPattern(char_class::Bits bits) : bits_(bits) {}
  void find(std::string_view text, Matches& out) const override {
    Cuts cuts(text, out);
    for (std::size_t at = 0; at < text.size();) {
      const Utf8Char c = utf8_at(text.data() + at);
      const std::size_t next = at + std::size_t(c.bytes);
      if (classes_of(c.code) & bits_)
        cuts.match(at, next);
      at = next;
    }
    cuts.finish();
  }

 private:
  char_class::Bits bits_;
};

struct Count {
  std::size_t least, most;
};

// One class, repeated as often as it goes: \p{N}{1,3}, [a-z]+.
class ClassRun final : public SplitPattern {
 public:
  ClassRun(const CodeSet& set, Count count) : set_(set), count_(count) {
    for (char32_t c = 0; c < 0x80; ++c)
      ascii_[c] = set.contains(c);
  }
  void find(std::string_view text, Matches& out) const override {
    Cuts cuts(text, out);
    for (std::size_t at = 0; at < text.size();) {
      std::size_t end = at;
      std::size_t n = 0;
      for (; end < text.size() && n < count_.most; ++n) {
        const Utf8Char c = utf8_at(text.data() + end);
        if (c.code < 0x80 ? !ascii_[c.code] : !set_.contains(c.code))
          break;
        end += std::size_t(c.bytes);
      }
      if (n >= count_.least)
        cuts.match(at, end);
      at = n > 0 ? end : at + std::size_t(utf8_length(static_cast<unsigned char>(text[at])));
    }
    cuts.finish();
  }

 private:
  CodeSet set_;
  Count count_;
  bool ascii_[0x80];
};

std::optional<std::size_t> small_number(PatternCursor& in) {
  std::size_t value = 0;
  const std::size_t first = in.at;
  while (!in.done() && in.pattern[in.at] >= '0' && in.pattern[in.at] <= '9' && in.at < first + 5)
    value = value * 10 + std::size_t(in.pattern[in.at++] - '0');
  return in.at > first ? std::optional(value) : std::nullopt;
}

// The quantifier at the end of the pattern; nothing where something else stands there.
std::optional<Count> read_count(PatternCursor& in) {
  constexpr std::size_t endless = ~std::size_t(0);
  if (in.done())
    return Count{1, 1};
  if (in.take("+"))
    return in.done() ? std::optional(Count{1, endless}) : std::nullopt;
  if (!in.take("{"))
    return std::nullopt;
  const auto least = small_number(in);
  auto most = least;
  if (in.take(",")) {
    most = small_number(in);
    most = most ? most : endless;
  }
  if (!least || !in.take("}") || !in.done() || *least == 0 || *most < *least)
    return std::nullopt;
  return Count{*least, *most};
}

std::unique_ptr<SplitPattern> class_run(std::string_view expression, std::string_view source) {
  PatternCursor in{expression, source};
  CodeSet set;
  if (in.starts("[")) {
    set = read_class(in);
  } else if (in.take("\\")) {
    if (!read_class_escape(in, set))
      return nullptr;
  } else {
    static constexpr std::string_view special = "^$.|?*+()[]{}";
    if (in.done() || special.find(in.pattern[0]) != special.npos)
      return nullptr;
    const char32_t c = in.next_char();
    set = CodeSet({{c, c}});
  }
  const auto count = read_count(in);
  // a run that is too short is passed over whole, which is right where it cannot be cut again
  const bool plain = count && (count->most == ~std::size_t(0) || count->least == 1);
  return plain ? std::make_unique<ClassRun>(set, *count) : nullptr;
}

}  // namespace

std::unique_ptr<SplitPattern> make_pattern(std::string_view expression, std::string_view source) {
  for (const KnownPattern& known : known_patterns()) {
    if (known.expression == expression)
      return known.make();
  }
  if (auto run = class_run(expression, source))
    return run;
  return make_general_pattern(expression, source);
}

std::unique_ptr<SplitPattern> make_literal(std::string text) {
  return std::make_unique<Literal>(std::move(text));
}

std::unique_ptr<SplitPattern> make_char_pattern(std::uint16_t bits) {
  return std::make_unique<CharPattern>(bits);
}

std::unique_ptr<SplitPattern> read_pattern(const Json& value, std::string_view source) {
  if (value.is_string())
    return make_pattern(value.get_ref<const std::string&>(), source);
  const Fields f(value, source, "the pattern");
  if (f.has("Regex"))
    return make_pattern(f.text("Regex"), source);
  const std::string text = f.text("String");
  if (text.empty())
    throw f.error("is an empty text, which would match everywhere");
  return make_literal(text);
}

std::string_view known_pattern(std::string_view name) {
  const auto all = known_patterns();
  const auto found = std::ranges::find(all, name, &KnownPattern::name);
  return found == all.end() ? "" : found->expression;
}

std::vector<std::string> known_pattern_names() {
  std::vector<std::string> out;
  for (const KnownPattern& known : known_patterns()) {
    if (std::ranges::find(out, known.name) == out.end())
      out.emplace_back(known.name);
  }
  return out;
}

}  // namespace moe
