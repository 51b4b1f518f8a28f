// The split patterns of published tokenizers, followed by hand: five to twenty times as fast as an
// engine. Each function says what alternative of the expression it is; tests hold every scanner to
// the engine.
#include <string_view>

#include "lib/tokenizer/scanner.h"
#include "lib/tokenizer/unicode.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

using namespace char_class;

// A text with the classes of its characters.
struct Scan {
  const char* text;
  std::size_t size;
  const CharTable& table;

  struct Char {
    char32_t code;
    std::size_t next;
    Bits is;
  };
  Char at(std::size_t i) const {
    const Utf8Char c = utf8_at(text + i);
    return {c.code, i + std::size_t(c.bytes), table(c.code)};
  }
  unsigned char byte(std::size_t i) const {
    return i < size ? static_cast<unsigned char>(text[i]) : 0;
  }
  // the end of the run of characters with one of these classes
  std::size_t run(std::size_t i, Bits bits) const {
    while (i < size) {
      const Char c = at(i);
      if (!(c.is & bits))
        break;
      i = c.next;
    }
    return i;
  }
  std::size_t run_without(std::size_t i, Bits bits) const {
    while (i < size) {
      const Char c = at(i);
      if (c.is & bits)
        break;
      i = c.next;
    }
    return i;
  }
  std::size_t run_of_most(std::size_t i, Bits bits, int most) const {
    for (; most > 0 && i < size; --most) {
      const Char c = at(i);
      if (!(c.is & bits))
        break;
      i = c.next;
    }
    return i;
  }
  bool is_line_end(std::size_t i) const {
    return byte(i) == '\n' || byte(i) == '\r';
  }
  std::size_t line_ends(std::size_t i) const {
    while (is_line_end(i) && i < size)
      ++i;
    return i;
  }
};

// 's|'t|'re|'ve|'m|'ll|'d at an apostrophe: where it ends, or `i`.
std::size_t contraction(const Scan& s, std::size_t i, bool any_case) {
  const auto letter = [&](std::size_t at) {
    const unsigned char c = s.byte(at);
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<unsigned char>(c + 32) : c;
  };
  const unsigned char first = letter(i + 1);
  const unsigned char second = letter(i + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd')
    return i + 2;
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
      (first == 'l' && second == 'l'))
    return i + 3;
  // U+017F is an s where case does not count
  return any_case && first == 0xC5 && second == 0xBF ? i + 3 : i;
}

// \s+(?!\S)|\s+ , after \s*[\r\n]+ where `lines`.
std::size_t blanks(const Scan& s, std::size_t i, bool lines) {
  std::size_t last = i;      // where the last blank starts
  std::size_t line_end = i;  // behind the last line end
  std::size_t at = i;
  while (at < s.size) {
    const Scan::Char c = s.at(at);
    if (!(c.is & space))
      break;
    last = at;
    at = c.next;
    if (c.code == '\n' || c.code == '\r')
      line_end = at;
  }
  if (lines && line_end > i)
    return line_end;
  return at == s.size || last == i ? at : last;
}

struct Gpt2 {
  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  static std::size_t match(const Scan& s, std::size_t i) {
    if (s.text[i] == '\'') {
      if (const std::size_t end = contraction(s, i, false); end > i)
        return end;
    }
    const bool blank = s.text[i] == ' ' && i + 1 < s.size;
    const Scan::Char c = s.at(blank ? i + 1 : i);
    if (c.is & letter)
      return s.run(c.next, letter);
    if (c.is & number)
      return s.run(c.next, number);
    if (!(c.is & space))
      return s.run_without(c.next, space | letter | number);
    return blanks(s, i, false);
  }
};

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?L+|\p{N}{1,digits}| ?[^\s L \p{N}]+[\r\n]*|
// \s*[\r\n]+|\s+(?!\S)|\s+ where L is \p{L}, or [\p{L}\p{M}]
template <int digits, Bits letters>
struct Cl100k {
  static std::size_t match(const Scan& s, std::size_t i) {
    if (s.text[i] == '\'') {
      if (const std::size_t end = contraction(s, i, true); end > i)
        return end;
    }
    const Scan::Char c = s.at(i);
    if (c.is & letters)
      return s.run(c.next, letters);
    if (c.is & number)
      return s.run_of_most(c.next, number, digits - 1);
    const bool line_end = c.code == '\n' || c.code == '\r';
    if (!line_end && c.next < s.size) {
      const Scan::Char next = s.at(c.next);
      if (next.is & letters)
        return s.run(next.next, letters);
      if (c.code == ' ' && !(next.is & (space | number)))
        return signs(s, next.next);
    }
    return c.is & space ? blanks(s, i, true) : signs(s, c.next);
  }

 private:
  static std::size_t signs(const Scan& s, std::size_t i) {
    return s.line_ends(s.run_without(i, space | letters | number));
  }
};

// Words by case: [^\r\n\p{L}\p{N}]?U*V+C?|[^\r\n\p{L}\p{N}]?U+V*C?|\p{N}{1,digits}|
// ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+ where U = Lu Lt Lm Lo M, V = Ll Lm Lo M;
// with `han`, [\p{Han}]+ first and U and V without it.
template <int digits, bool contractions, bool slash, bool han_first>
struct O200k {
  static std::size_t match(const Scan& s, std::size_t i) {
    const Scan::Char c = s.at(i);
    if (han_first && (c.is & han))
      return s.run(c.next, han);
    if (const std::size_t end = word_end(s, i, c); end > i)
      return with_contraction(s, end);
    if (c.is & number)
      return s.run_of_most(c.next, number, digits - 1);
    if (c.code == ' ' && c.next < s.size) {
      const Scan::Char next = s.at(c.next);
      if (!(next.is & (space | letter | number)))
        return signs(s, next.next);
    }
    return c.is & space ? blanks(s, i, true) : signs(s, c.next);
  }

 private:
  static bool is(const Scan::Char& c, Bits bits) {
    return (c.is & bits) && !(han_first && (c.is & han));
  }
  // The two alternatives of words, each with the character in front and then without.
  static std::size_t word_end(const Scan& s, std::size_t i, const Scan::Char& c) {
    const bool may_lead = !(c.is & (letter | number)) && c.code != '\n' && c.code != '\r';
    const bool in_word = is(c, upper | lower);
    if (may_lead && c.next < s.size) {
      if (const std::size_t end = ends_low(s, c.next); end > c.next)
        return end;
    }
    if (in_word) {
      if (const std::size_t end = ends_low(s, i); end > i)
        return end;
    }
    if (may_lead && c.next < s.size) {
      if (const std::size_t end = all_upper(s, c.next); end > c.next)
        return end;
    }
    return in_word ? all_upper(s, i) : i;
  }
  // U*V+: as far as U goes, and back to where a V can follow.
  static std::size_t ends_low(const Scan& s, std::size_t i) {
    std::size_t at = i;
    std::size_t low_end = i;  // behind the last character of the run that is a V too
    while (at < s.size) {
      const Scan::Char c = s.at(at);
      if (!is(c, upper)) {
        if (!is(c, lower))
          break;
        return low_run(s, c.next);
      }
      at = c.next;
      if (is(c, lower))
        low_end = at;
    }
    return low_end;
  }
  static std::size_t low_run(const Scan& s, std::size_t i) {
    while (i < s.size) {
      const Scan::Char c = s.at(i);
      if (!is(c, lower))
        break;
      i = c.next;
    }
    return i;
  }
  // U+V* where no V follows or stands in the run
  static std::size_t all_upper(const Scan& s, std::size_t i) {
    while (i < s.size) {
      const Scan::Char c = s.at(i);
      if (!is(c, upper))
        break;
      i = c.next;
    }
    return i;
  }
  static std::size_t with_contraction(const Scan& s, std::size_t i) {
    return contractions && s.byte(i) == '\'' ? contraction(s, i, true) : i;
  }
  static std::size_t signs(const Scan& s, std::size_t i) {
    i = s.run_without(i, space | letter | number);
    while (s.is_line_end(i) || (slash && s.byte(i) == '/')) {
      if (i >= s.size)
        break;
      ++i;
    }
    return i;
  }
};

// [ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|
// \s*[\r\n]+|\s+(?!\S)|\s+ : what none of them takes stays as a gap.
struct DeepSeek {
  static std::size_t match(const Scan& s, std::size_t i) {
    const Scan::Char c = s.at(i);
    constexpr Bits signs = punctuation | symbol;
    if (c.code < 0x80 && (c.is & signs) && is_ascii_letter(s.byte(i + 1))) {
      std::size_t end = i + 2;
      while (is_ascii_letter(s.byte(end)))
        ++end;
      return end;
    }
    if (c.is & (letter | mark))
      return s.run(c.next, letter | mark);
    const bool line_end = c.code == '\n' || c.code == '\r';
    if (!line_end && c.next < s.size) {
      const Scan::Char next = s.at(c.next);
      if (!(c.is & signs) && (next.is & (letter | mark)))
        return s.run(next.next, letter | mark);
      if (c.code == ' ' && (next.is & signs))
        return s.line_ends(s.run(next.next, signs));
    }
    if (c.is & signs)
      return s.line_ends(s.run(c.next, signs));
    return c.is & space ? blanks(s, i, true) : i;
  }

 private:
  static bool is_ascii_letter(unsigned char c) {
    return (c | 32) >= 'a' && (c | 32) <= 'z';
  }
};

template <class Rules>
class Scanner final : public SplitPattern {
 public:
  void find(std::string_view text, Matches& out) const override {
    const Scan s{text.data(), text.size(), char_table()};
    std::size_t gap = 0;
    std::size_t at = 0;
    while (at < s.size) {
      const std::size_t end = Rules::match(s, at);
      if (end == at) {
        at = s.at(at).next;
        continue;
      }
      if (gap < at)
        out.push_back({std::uint32_t(gap), std::uint32_t(at), false});
      out.push_back({std::uint32_t(at), std::uint32_t(end), true});
      at = gap = end;
    }
    if (gap < at || text.empty())
      out.push_back({std::uint32_t(gap), std::uint32_t(at), false});
  }
};

template <class Rules>
std::unique_ptr<SplitPattern> scanner() {
  return std::make_unique<Scanner<Rules>>();
}

// clang-format off
#define MOE_BLANKS R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define MOE_CONTRACTIONS R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"
#define MOE_UPPER R"(\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M})"
#define MOE_LOWER R"(\p{Ll}\p{Lm}\p{Lo}\p{M})"
#define MOE_LEAD R"([^\r\n\p{L}\p{N}]?)"
#define MOE_WORDS(u, v, c) MOE_LEAD "[" u "]*[" v "]+" c "|" MOE_LEAD "[" u "]+[" v "]*" c
#define MOE_SIGNS R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)"
#define MOE_SLASHES R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*)"
#define MOE_NO_HAN R"(&&[^\p{Han}])"
#define MOE_OTHER_CONTRACTIONS R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+)"
#define MOE_POSSESSIVE R"(| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"
#define MOE_GPT2 R"(| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"

constexpr KnownPattern kKnown[] = {
    {"gpt2", "'s|'t|'re|'ve|'m|'ll|'d" MOE_GPT2, scanner<Gpt2>},
    {"gpt2", "'(?:[sdmt]|ll|ve|re)" MOE_GPT2, scanner<Gpt2>},
    {"llama3",
     MOE_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})" MOE_SIGNS MOE_BLANKS,
     scanner<Cl100k<3, letter>>},
    {"llama3", MOE_OTHER_CONTRACTIONS R"(|\p{N}{1,3})" MOE_POSSESSIVE, scanner<Cl100k<3, letter>>},
    {"qwen2",
     MOE_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})" MOE_SIGNS MOE_BLANKS,
     scanner<Cl100k<1, letter>>},
    {"bailing", MOE_OTHER_CONTRACTIONS R"(|\p{N})" MOE_POSSESSIVE, scanner<Cl100k<1, letter>>},
    {"qwen35",
     MOE_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N})"
                      R"(| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" MOE_BLANKS,
     scanner<Cl100k<1, letter | mark>>},
    {"o200k",
     MOE_WORDS(MOE_UPPER, MOE_LOWER, MOE_CONTRACTIONS "?") R"(|\p{N}{1,3})" MOE_SLASHES MOE_BLANKS,
     scanner<O200k<3, true, true, false>>},
    {"tekken", MOE_WORDS(MOE_UPPER, MOE_LOWER, "") R"(|\p{N})" MOE_SLASHES MOE_BLANKS,
     scanner<O200k<1, false, true, false>>},
    {"kimi",
     R"([\p{Han}]+|)" MOE_WORDS(MOE_UPPER MOE_NO_HAN, MOE_LOWER MOE_NO_HAN, MOE_CONTRACTIONS "?")
     R"(|\p{N}{1,3})" MOE_SIGNS MOE_BLANKS,
     scanner<O200k<3, true, false, true>>},
    {"deepseek-v3",
     "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
     "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
     "\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
     scanner<DeepSeek>}};
// clang-format on

}  // namespace

std::span<const KnownPattern> known_patterns() {
  return kKnown;
}

}  // namespace moe
