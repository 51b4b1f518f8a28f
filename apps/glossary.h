// Words that people bring along, in English and Chinese, and the commands that show them.
#pragma once
#include <span>
#include <string_view>

namespace moe {

struct Term {
  std::string_view words, chinese, meaning, command;  // words, chinese: separated by ", "
};
std::span<const Term> glossary();  // glossary.def, which docs/glossary.md is made of

}  // namespace moe
