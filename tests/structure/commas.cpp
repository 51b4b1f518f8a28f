// Commas that join expressions.
#include <algorithm>
#include <set>

#include "tests/structure/brackets.h"
#include "tests/structure/source.h"

namespace structure {
namespace {

using Tokens = std::vector<Token>;

// Words that start a declaration, or a statement that cannot hold a joining comma.
const std::set<std::string>& declaring() {
  static const std::set<std::string> words = {
      "auto",      "const",         "constexpr", "static", "thread_local", "unsigned", "signed",
      "int",       "long",          "short",     "char",   "bool",         "float",    "double",
      "using",     "typedef",       "class",     "struct", "union",        "enum",     "template",
      "friend",    "void",          "typename",  "extern", "mutable",      "inline",   "volatile",
      "namespace", "static_assert", "asm"};
  return words;
}

// Whether the statement at `at` declares: "std::vector<int>& a = ..." or "int a, b".
bool declares(const Tokens& t, std::size_t at) {
  if (t[at].kind == Kind::mark && t[at].text == "[")
    return true;  // an attribute
  if (t[at].kind != Kind::word)
    return false;
  if (declaring().count(t[at].text))
    return true;
  std::size_t i = at;
  while (i + 1 < t.size() && t[i].kind == Kind::word) {
    ++i;
    if (t[i].text == "<")
      i = std::max(i, skip_template_arguments(t, i));
    if (t[i].text != "::")
      break;
    ++i;
  }
  static const std::set<std::string> between = {"*", "&", "&&", "const"};
  while (i < t.size() && between.count(t[i].text))
    ++i;
  static const std::set<std::string> after = {"=", ",", ";", "{", "(", "[", ":", ")"};
  return i > at && i + 1 < t.size() && t[i].kind == Kind::word && after.count(t[i + 1].text) > 0;
}

enum class Inside { block, header, group, list };  // group: (a, b) that is a value

class Scanner {
 public:
  explicit Scanner(const Tokens& tokens) : t_(tokens), close_(closing_brackets(tokens)) {}

  std::vector<int> scan(const Function& f) {
    stack_ = {{Inside::block, f.first + 1}};
    for (std::size_t i = f.first + 1; i < f.last; ++i)
      i = step(i);
    return std::move(out_);
  }

 private:
  struct Place {
    Inside inside;
    std::size_t start;  // of the statement that is read
  };

  // The last token that was looked at.
  std::size_t step(std::size_t i) {
    const Token& t = t_[i];
    if (t.kind != Kind::mark) {
      after_word(i);
      return i;
    }
    if (t.text == "<<<")
      return past_launch(i);
    if (t.text == "<")
      return std::max(i, skip_template_arguments(t_, i) - 1);
    if (t.text == "{" || t.text == "(" || t.text == "[")
      open(i);
    else if (t.text == "}" || t.text == ")" || t.text == "]")
      close(i);
    else if (t.text == "," && joins(i))
      out_.push_back(t.line);
    else if (t.text == ";" || (t.text == ":" && at_label(i)))
      stack_.back().start = i + 1;
    return i;
  }

  // The sizes of a kernel launch, <<<blocks, threads>>>, are no statement.
  std::size_t past_launch(std::size_t i) const {
    int closing = 0;
    while (closing < 3 && i + 1 < t_.size())
      closing = t_[++i].text == ">" ? closing + 1 : 0;
    return i;
  }

  void after_word(std::size_t i) {
    static const std::set<std::string> words = {"else", "do", "return", "throw", "co_return"};
    if (stack_.back().inside == Inside::block && words.count(t_[i].text))
      stack_.back().start = i + 1;
  }

  bool at_label(std::size_t i) const {
    const std::string& first = t_[stack_.back().start].text;
    return first == "case" || first == "default" || stack_.back().start + 1 == i;
  }

  void open(std::size_t i) {
    const std::string& text = t_[i].text;
    Inside inside = Inside::list;
    if (text == "{" && opens_block(i))
      inside = Inside::block;
    else if (text == "(")
      inside = of_round(i);
    stack_.push_back({inside, i + 1});
  }

  bool opens_block(std::size_t i) const {
    static const std::set<std::string> values = {"return", "throw", "co_return"};
    const Place& p = stack_.back();
    const bool at_start =
        p.inside == Inside::block && p.start == i && !values.count(t_[i - 1].text);
    if (at_start || opens_lambda_body(t_, i))
      return true;
    const std::string& first = t_[std::min(p.start, i)].text;
    return p.inside == Inside::block && (first == "try" || first == "struct" || first == "class");
  }

  Inside of_round(std::size_t i) const {
    const Token& before = t_[i - 1];
    if (before.kind == Kind::word) {
      static const std::set<std::string> headers = {"if", "while", "switch"};
      if (headers.count(before.text) || (before.text == "constexpr" && t_[i - 2].text == "if"))
        return Inside::header;
      return before.text == "return" ? Inside::group : Inside::list;
    }
    static const std::set<std::string> operators = {"=", "(", ",",  "?", ":", "&&", "||", "+", "-",
                                                    "*", "/", "==", "<", "!", "+=", "-=", "{"};
    const bool starts = stack_.back().inside == Inside::block && stack_.back().start == i;
    return starts || operators.count(before.text) ? Inside::group : Inside::list;
  }

  void close(std::size_t i) {
    if (stack_.size() < 2)
      return;
    const Inside closed = stack_.back().inside;
    stack_.pop_back();
    const bool block = stack_.back().inside == Inside::block;
    if (t_[i].text == "}" && closed == Inside::block && block && !in_expression(i))
      stack_.back().start = i + 1;
    // the statement behind "if (...)" or "for (...)"
    if (t_[i].text == ")" && block && is_control(stack_.back().start))
      stack_.back().start = i + 1;
  }

  // A lambda's end: the statement goes on.
  bool in_expression(std::size_t i) const {
    static const std::set<std::string> after = {";", ",", ")", "(", ".", "]"};
    return i + 1 < t_.size() && after.count(t_[i + 1].text) && t_[i + 1].text != "(" &&
           t_[i + 1].kind == Kind::mark;
  }
  bool is_control(std::size_t start) const {
    static const std::set<std::string> words = {"if", "for", "while", "switch", "catch"};
    return words.count(t_[start].text) > 0;
  }

  bool joins(std::size_t i) const {
    const Place& p = stack_.back();
    if (p.inside == Inside::list || t_[i + 1].text == "...")
      return false;
    return !declares(t_, p.start);
  }

  const Tokens& t_;
  std::vector<std::size_t> close_;
  std::vector<Place> stack_;
  std::vector<int> out_;
};

}  // namespace

std::vector<int> comma_statements(const Tokens& tokens) {
  std::vector<int> out;
  for (const Function& f : functions_of(tokens)) {
    const std::vector<int> found = Scanner(tokens).scan(f);
    out.insert(out.end(), found.begin(), found.end());
  }
  return out;
}

}  // namespace structure
