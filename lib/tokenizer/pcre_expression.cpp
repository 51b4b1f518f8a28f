// The translation. It walks the pattern once; what means the same in both dialects is copied.
#include "lib/core/text.h"
#include "lib/tokenizer/code_set.h"
#include "lib/tokenizer/pcre_pattern.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

std::string code_text(char32_t c) {
  static constexpr char hex[] = "0123456789abcdef";
  std::string digits;
  do {
    digits.insert(digits.begin(), hex[c & 15]);
    c >>= 4;
  } while (c > 0);
  return concat("\\x{", digits, "}");
}

// PCRE2 refuses surrogates, which no valid text holds.
std::string class_text(const CodeSet& set) {
  const CodeSet valid = set & ~CodeSet({{0xD800, 0xDFFF}});
  if (valid.ranges().empty())
    return "(?!)";
  std::string out = "[";
  for (const CodeRange& r : valid.ranges())
    out +=
        r.first == r.last ? code_text(r.first) : concat(code_text(r.first), "-", code_text(r.last));
  return out + "]";
}

class Translator {
 public:
  Translator(std::string_view onig, std::string_view source) : in_{onig, source} {}

  std::string run() {
    while (!in_.done())
      step();
    return std::move(out_);
  }

 private:
  void step() {
    const char c = in_.pattern[in_.at];
    if (c == '{' || c == '*' || c == '+' || c == '?')
      return quantifier(c);
    if (c == '(')
      return open_group();
    if (c == ')')
      return close_group();
    atom_ = out_.size();
    if (c == '[') {
      out_ += class_text(read_class(in_));
    } else if (c == '\\') {
      ++in_.at;
      escape();
    } else {
      plain(c);
    }
  }

  void plain(char c) {
    ++in_.at;
    if (c == '.')
      out_ += dot_all_ ? "(?s:.)" : "[^\\n]";
    else if (c == '^' || c == '$')
      out_ += concat("(?m:", c, ")");  // Ruby's: at every line
    else if (static_cast<unsigned char>(c) >= 0x80)
      whole_char();
    else
      out_ += c;
  }
  void whole_char() {
    --in_.at;
    append_utf8(out_, in_.next_char());
  }

  void escape() {
    CodeSet set;
    if (read_class_escape(in_, set)) {
      out_ += class_text(set);
      return;
    }
    const char c = in_.pattern[in_.at];
    static constexpr std::string_view same = "AZz";
    if (same.find(c) != same.npos) {
      out_ += {'\\', c};
      ++in_.at;
    } else if (c == 'b' || c == 'B') {
      border(c == 'b');
    } else if (c >= '1' && c <= '9') {
      out_ += {'\\', c};
      ++in_.at;
    } else if (c == 'R') {
      out_ += "(?>\\r\\n|[\\n-\\r\\x{85}\\x{2028}\\x{2029}])";
      ++in_.at;
    } else {
      out_ += code_text(read_char_escape(in_));
    }
  }

  // \b and \B by our own \w
  void border(bool at_border) {
    ++in_.at;
    const std::string word = class_text(CodeSet(*property_ranges("word")));
    const std::string same = concat("(?<=", word, ")(?=", word, ")|(?<!", word, ")(?!", word, ")");
    const std::string other = concat("(?<=", word, ")(?!", word, ")|(?<!", word, ")(?=", word, ")");
    out_ += concat("(?:", at_border ? other : same, ")");
  }

  // The quantifiers that the dialects read differently: {,n} counts from 0, and {n,m}+ repeats.
  void quantifier(char c) {
    if (c != '{') {
      out_ += c;
      ++in_.at;
      return;
    }
    const std::size_t end = in_.pattern.find('}', in_.at);
    const std::string_view inside =
        end == in_.pattern.npos ? "" : in_.pattern.substr(in_.at + 1, end - in_.at - 1);
    const bool count = !inside.empty() && inside != "," && inside[0] != '-' &&
                       inside.find_first_not_of("0123456789,") == inside.npos;
    if (!count) {  // a brace like any other character
      atom_ = out_.size();
      out_ += "\\{";
      ++in_.at;
      return;
    }
    in_.at = end + 1;
    out_ += inside[0] == ',' ? concat("{0", inside, "}") : concat("{", inside, "}");
    if (in_.starts("+")) {
      out_.insert(atom_, "(?:");
      out_ += ")";
    }
  }

  void open_group() {
    if (groups_.size() >= 200)
      in_.refuse("has groups nested more than 200 deep");
    ++in_.at;
    groups_.push_back({out_.size(), dot_all_});
    out_ += '(';
    if (!in_.take("?"))
      return;
    if (in_.take("#"))
      return comment();
    out_ += '?';
    static constexpr std::string_view kinds[] = {":", "=", "!", "<=", "<!", ">"};
    for (const std::string_view kind : kinds) {
      if (in_.take(kind)) {
        out_ += kind;
        return;
      }
    }
    if (in_.starts("<"))
      return group_name();
    flags();
  }

  void comment() {
    const std::size_t end = in_.pattern.find(')', in_.at);
    if (end == in_.pattern.npos)
      in_.refuse("has a comment without ')'");
    in_.at = end + 1;
    out_.resize(groups_.back().begin);
    groups_.pop_back();
  }

  void group_name() {
    const std::size_t end = in_.pattern.find('>', in_.at);
    if (end == in_.pattern.npos)
      in_.refuse("has a group name without '>'");
    out_ += in_.pattern.substr(in_.at, end + 1 - in_.at);
    in_.at = end + 1;
  }

  // (?i) (?i: (?m-i: ... where Ruby's m is that a dot matches line ends too
  void flags() {
    bool on = true;
    for (; !in_.done() && in_.pattern[in_.at] != ':' && in_.pattern[in_.at] != ')'; ++in_.at) {
      const char c = in_.pattern[in_.at];
      if (c == 'm')
        dot_all_ = on;
      else if (c == '-')
        on = false;
      else if (c != 'i')
        in_.refuse(concat("has the group '(?", c, "', which is not read"));
      if (c != 'm')
        out_ += c;
    }
    if (in_.take(":")) {
      out_ += ':';
      return;
    }
    if (!in_.take(")"))
      in_.refuse("has a group without ')'");
    out_ += ')';
    groups_.pop_back();  // the flags hold to the end of the group around them
  }

  void close_group() {
    if (groups_.empty())
      in_.refuse("has a ')' without '('");
    ++in_.at;
    out_ += ')';
    atom_ = groups_.back().begin;
    dot_all_ = groups_.back().dot_all;
    groups_.pop_back();
  }

  struct Group {
    std::size_t begin;  // in the new expression
    bool dot_all;       // outside of it
  };

  PatternCursor in_;
  std::string out_;
  std::size_t atom_ = 0;  // where the thing that a quantifier repeats begins
  std::vector<Group> groups_;
  bool dot_all_ = false;
};

}  // namespace

std::string pcre_expression(std::string_view onig, std::string_view source) {
  return Translator(onig, source).run();
}

}  // namespace moe
