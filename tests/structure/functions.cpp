// Which braces are the body of a function.
#include <algorithm>
#include <set>

#include "tests/structure/brackets.h"
#include "tests/structure/source.h"

namespace structure {
namespace {

using Tokens = std::vector<Token>;

// What stands before an opening brace, from the end of the declaration before it, without what is
// in brackets: `MOE_SIMD void add ( ) const` of "MOE_SIMD void add(View<T> to) const {".
struct Head {
  std::vector<std::string> words;
  bool has(const std::string& word) const {
    return std::ranges::count(words, word) > 0;
  }
  std::size_t last(const std::string& word) const {
    const auto found = std::find(words.rbegin(), words.rend(), word);
    return found == words.rend() ? 0 : std::size_t(words.rend() - found);
  }
};

class Finder {
 public:
  explicit Finder(const Tokens& tokens) : t_(tokens), close_(closing_brackets(tokens)) {}

  std::vector<Function> all() {
    while (at_ < t_.size())
      step();
    return std::move(out_);
  }

 private:
  void step() {
    const Token& t = t_[at_];
    if (t.text == "operator" && t.kind == Kind::word) {
      name_of_operator();
    } else if (t.text == "(" || t.text == "[") {
      head_.words.push_back(t.text);
      head_.words.emplace_back(t.text == "(" ? ")" : "]");
      at_ = close_[at_] + 1;
    } else if (t.text == "<" && skip_template_arguments(t_, at_) > at_) {
      at_ = skip_template_arguments(t_, at_);
    } else if (t.text == "{") {
      brace();
    } else {
      if (t.text == ";" || t.text == "}" || label())
        head_.words.clear();
      else
        head_.words.push_back(t.text);
      ++at_;
    }
  }

  // "operator()", "operator[]", "operator<", "operator==": part of a name, not brackets
  void name_of_operator() {
    head_.words.emplace_back("operator");
    const bool pair = at_ + 2 < t_.size() && (t_[at_ + 1].text == "(" || t_[at_ + 1].text == "[");
    at_ += pair ? 3 : 2;
  }

  bool label() const {
    static const std::set<std::string> access = {"public", "protected", "private"};
    return t_[at_].text == ":" && head_.words.size() == 1 && access.count(head_.words[0]) > 0;
  }

  void brace() {
    if (head_.has("namespace") || (head_.has("extern") && !head_.has("("))) {
      enter();
    } else if (head_.has("=")) {
      values();
    } else if (const std::size_t key = type_keyword(); key > 0) {
      if (head_.has("enum"))
        leave_out();
      enter();
    } else if (!head_.has("(") && !head_.has("operator")) {
      values();
    } else if (member_value()) {
      at_ = close_[at_] + 1;
      head_.words.emplace_back("}");
    } else {
      function();
    }
  }

  // Position behind the last keyword that opens a type, where no parameters follow it.
  std::size_t type_keyword() const {
    std::size_t key = 0;
    for (const char* word : {"class", "struct", "union", "enum"})
      key = std::max(key, head_.last(word));
    const bool aligned = head_.has("alignas");
    return key > 0 && (aligned || head_.last("(") < key) ? key : 0;
  }

  // "b_{2}" of "X(int a) : a_(a), b_{2} {"
  bool member_value() const {
    if (head_.last(":") <= head_.last("operator") || head_.last(":") == 0)
      return false;
    const Token& before = t_[at_ - 1];
    return before.text == ">" || (before.kind == Kind::word && before.text != "try");
  }

  void enter() {
    head_.words.clear();
    ++at_;
  }
  void leave_out() {
    at_ = close_[at_] - 1;
  }

  // A list of values, where lambdas may hide.
  void values() {
    const std::size_t end = close_[at_];
    if (opens_lambda_body(t_, at_)) {
      function();
      return;
    }
    for (++at_; at_ < end;) {
      if (t_[at_].text == "{" && opens_lambda_body(t_, at_))
        function();
      else
        ++at_;
    }
    at_ = end + 1;
    head_.words.emplace_back("}");
  }

  void function() {
    const std::size_t end = close_[at_];
    int count = 0;
    for (std::size_t i = at_; i <= end && i < t_.size(); ++i)
      count += t_[i].kind == Kind::text ? 3 : 1;
    out_.push_back({t_[at_].line, count, head_.has("TEST_CASE"), at_, end});
    head_.words.clear();
    at_ = end + 1;
  }

  const Tokens& t_;
  std::vector<std::size_t> close_;
  std::size_t at_ = 0;
  Head head_;
  std::vector<Function> out_;
};

}  // namespace

std::vector<Function> functions_of(const Tokens& tokens) {
  return Finder(tokens).all();
}

}  // namespace structure
