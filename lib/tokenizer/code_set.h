// Sets of code points, and the classes of regular expressions that denote them, read as Oniguruma
// reads them: \p{..}, [a-z], [^..], [a&&[^b]], [[:alpha:]].
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "lib/tokenizer/unicode.h"

namespace moe {

class CodeSet {
 public:
  CodeSet() = default;
  explicit CodeSet(std::vector<CodeRange> ranges);
  const std::vector<CodeRange>& ranges() const {  // in order, apart
    return ranges_;
  }
  bool contains(char32_t) const;
  CodeSet operator|(const CodeSet&) const;
  CodeSet operator&(const CodeSet&) const;
  CodeSet operator~() const;

 private:
  std::vector<CodeRange> ranges_;
};

// A position in a pattern. What cannot be read is thrown as Error(input) by `refuse`.
struct PatternCursor {
  std::string_view pattern, source;
  std::size_t at = 0;

  bool done() const {
    return at >= pattern.size();
  }
  bool starts(std::string_view text) const {
    return pattern.substr(at).starts_with(text);
  }
  bool take(std::string_view text) {
    if (!starts(text))
      return false;
    at += text.size();
    return true;
  }
  char32_t next_char();
  [[noreturn]] void refuse(std::string_view why) const;
};

// At '[': the whole class.
CodeSet read_class(PatternCursor&);
// Behind a '\': the set of \p{..} \s \d \w \h and their opposites; false, and nothing is read,
// where another escape stands there.
bool read_class_escape(PatternCursor&, CodeSet& out);
// Behind a '\': the one character that it stands for (\n \t \x41 \x{1F600} \u0041 \- ...).
char32_t read_char_escape(PatternCursor&);

}  // namespace moe
