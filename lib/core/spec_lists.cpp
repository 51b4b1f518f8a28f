#include "lib/core/spec_lists.h"

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// Whether the + at `at` is that of an exponent: a digit, e, +, a digit.
bool is_exponent_sign(std::string_view text, std::size_t at) {
  const auto digit = [&](std::size_t i) {
    return i < text.size() && text[i] >= '0' && text[i] <= '9';
  };
  return text[at] == '+' && at >= 2 && (text[at - 1] == 'e' || text[at - 1] == 'E') &&
         digit(at - 2) && digit(at + 1);
}

}  // namespace

std::vector<std::string> split_list(std::string_view text, std::string_view separators) {
  if (text.empty())
    return {};
  std::vector<std::string> out(1);
  int depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    depth += (text[i] == '{') - (text[i] == '}');
    if (depth == 0 && separators.find(text[i]) != separators.npos && !is_exponent_sign(text, i))
      out.emplace_back();
    else
      out.back() += text[i];
  }
  return out;
}

std::pair<std::string, std::string> repeated_entry(const std::string& entry) {
  const std::size_t star = entry.rfind('*');
  if (star != entry.npos)
    return {entry.substr(0, star), entry.substr(star + 1)};
  const std::size_t last = entry.find_last_not_of("0123456789");
  if (last == entry.npos || last == 0 || last + 1 == entry.size() || entry[last] != 'x')
    return {entry, "1"};
  return {entry.substr(0, last), entry.substr(last + 1)};
}

std::string shell_quoted(const std::string& word) {
  if (!word.empty() && word.find_first_of(" \t\n'\"\\$&|;<>()*?[]{}~#!`") == word.npos)
    return word;
  std::string out = "'";
  for (const char c : word)
    out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::vector<std::string> shell_words(std::string_view line) {
  std::vector<std::string> out;
  bool within = false;  // a word, which may still be empty
  char quote = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    const bool blank = c == ' ' || c == '\t' || c == '\n';
    if (quote == 0 && blank) {
      within = false;
      continue;
    }
    if (!within)
      out.emplace_back();
    within = true;
    const bool keeps = c == '\\' && quote != '\'' && i + 1 < line.size();
    if (keeps)
      out.back() += line[++i];
    else if (quote == 0 && (c == '\'' || c == '"'))
      quote = c;
    else if (c == quote)
      quote = 0;
    else
      out.back() += c;
  }
  if (quote != 0) {
    throw Error(Exit::usage, concat("the quote ", quote, " is not closed in: ", line))
        .hint("a second one");
  }
  return out;
}

}  // namespace moe
