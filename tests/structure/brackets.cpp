#include "tests/structure/brackets.h"

#include <set>

namespace structure {
namespace {

using Tokens = std::vector<Token>;

bool opens(const std::string& text) {
  return text == "(" || text == "[" || text == "{";
}
bool closes(const std::string& text) {
  return text == ")" || text == "]" || text == "}";
}

// The bracket that the one at `at` closes; 0 where there is none.
std::size_t opening(const Tokens& t, std::size_t at) {
  int depth = 0;
  for (std::size_t i = at + 1; i-- > 0;) {
    depth += closes(t[i].text);
    depth -= opens(t[i].text);
    if (depth == 0)
      return i;
  }
  return 0;
}

// "[" that starts a lambda's captures and not an index: nothing that has a value stands before it.
bool opens_captures(const Tokens& t, std::size_t at) {
  if (at == 0)
    return true;
  const Token& before = t[at - 1];
  static const std::set<std::string> words = {"return", "co_return", "throw", "else", "case"};
  if (before.kind == Kind::word)
    return words.count(before.text) > 0;
  return before.kind == Kind::mark && before.text != ")" && before.text != "]";
}

}  // namespace

std::vector<std::size_t> closing_brackets(const Tokens& t) {
  std::vector<std::size_t> out(t.size(), 0), open;
  for (std::size_t i = 0; i < t.size(); ++i) {
    if (t[i].kind != Kind::mark)
      continue;
    if (opens(t[i].text)) {
      open.push_back(i);
      out[i] = t.size() - 1;
    } else if (closes(t[i].text) && !open.empty()) {
      out[open.back()] = i;
      open.pop_back();
    }
  }
  return out;
}

std::size_t skip_template_arguments(const Tokens& t, std::size_t at) {
  if (at == 0 || t[at - 1].kind != Kind::word)
    return at;
  static const std::set<std::string> inside = {"::", ".", ",", "*", "&", "&&", "...",
                                               "(",  ")", "[", "]", "=", "+",  "-"};
  int depth = 0;
  int round = 0;
  for (std::size_t i = at; i < t.size(); ++i) {
    const std::string& text = t[i].text;
    if (t[i].kind == Kind::mark) {
      depth += (text == "<" && round == 0) - (text == ">" && round == 0);
      round += (text == "(") - (text == ")");
      if (depth == 0 && round == 0)
        return i + 1;
      if (text != "<" && text != ">" && inside.count(text) == 0)
        return at;
      if (round < 0 || (text == "&&" && t[i - 1].text == ")"))
        return at;
    }
  }
  return at;
}

bool opens_lambda_body(const Tokens& t, std::size_t at) {
  static const std::set<std::string> between = {"::", "<", ">", "*", "&", "->", ","};
  std::size_t i = at;
  while (i > 0) {
    const Token& before = t[i - 1];
    if (before.text == "]" && before.kind == Kind::mark)
      return opens_captures(t, opening(t, i - 1));
    if (before.text == ")" && before.kind == Kind::mark) {
      const std::size_t start = opening(t, i - 1);
      if (start > 0 && t[start - 1].text == "]")
        return opens_captures(t, opening(t, start - 1));
      return false;
    }
    if (before.kind != Kind::word && (before.kind != Kind::mark || between.count(before.text) == 0))
      return false;
    --i;
  }
  return false;
}

}  // namespace structure
