#include "apps/brace_lists.h"

#include <algorithm>

#include "lib/core/spec_lists.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr const char* advice = "put the spec in single quotes, or write its list as 1+3";

// "--data=text:path=a" -> {"--data", "text:path=a"}, "text:path=a" -> {"", "text:path=a"}; without
// spec where the word is none.
std::pair<std::string, std::string> option_and_spec(const std::string& word) {
  if (word.find(':') == word.npos || word.find('=') == word.npos)
    return {};
  if (!word.starts_with("-"))
    return {"", word};
  const std::size_t equals = word.find('=');
  return {word.substr(0, equals), word.substr(equals + 1)};
}

// The option of a spec whose value alone differs between the two; "" where none or more do.
std::string differing_option(const std::string& a, const std::string& b) {
  const std::size_t colon = a.find(':');
  if (a == b || a.substr(0, colon + 1) != b.substr(0, colon + 1))
    return "";
  const std::vector<std::string> left = split_list(a.substr(colon + 1), ",");
  const std::vector<std::string> right = split_list(b.substr(colon + 1), ",");
  if (left.size() != right.size())
    return "";
  std::string out;
  for (std::size_t i = 0; i < left.size(); ++i) {
    if (left[i] == right[i])
      continue;
    const std::string key = left[i].substr(0, left[i].find('='));
    if (!out.empty() || key != right[i].substr(0, right[i].find('=')))
      return "";
    out = key;
  }
  return out;
}

}  // namespace

std::vector<std::string> brace_list_notes(const std::vector<std::string>& words) {
  std::vector<std::string> out;
  for (std::size_t i = 1; i < words.size(); ++i) {
    const auto [option, spec] = option_and_spec(words[i - 1]);
    const auto [next_option, next_spec] = option_and_spec(words[i]);
    if (spec.empty() || next_spec.empty() || option != next_option)
      continue;
    const std::string key = differing_option(spec, next_spec);
    if (!key.empty() && key != "path") {
      out.push_back(
          concat("'", spec, "' and '", next_spec, "' differ in ", key,
                 " alone; if that was one list in braces, the shell took it apart: ", advice));
    }
  }
  return out;
}

std::string brace_list_hint(const std::string& word) {
  return word.find(':') == word.npos || word.find('=') == word.npos
             ? ""
             : concat("if this is part of a list in braces, the shell took it apart: ", advice);
}

}  // namespace moe
