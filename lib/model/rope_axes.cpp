#include "lib/model/rope_axes.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/registry.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// In the order of PairRule.
const std::vector<std::string>& rule_names() {
  static const std::vector<std::string> all{"sections", "interleaved", "ernie"};
  return all;
}

int pairs_of(const std::string& word, const std::string& text) {
  const bool number =
      !word.empty() && word.size() < 7 && word.find_first_not_of("0123456789") == word.npos;
  if (!number) {
    throw Error(Exit::usage,
                concat("rope_axes=", text, " has '", word, "' where a number of pairs is expected"))
        .hint("rope_axes=interleaved:24+20+20");
  }
  return std::stoi(word);
}

}  // namespace

std::optional<RopeAxes> rope_axes(const std::string& text) {
  if (text.empty())
    return std::nullopt;
  const auto colon = text.find(':');
  const std::string name = text.substr(0, colon);
  const auto rule = std::ranges::find(rule_names(), name);
  if (rule == rule_names().end())
    no_such("rule of rope_axes", name, rule_names());
  const std::vector<std::string> words =
      split_list(colon == text.npos ? std::string() : text.substr(colon + 1));
  RopeAxes out{.rule = PairRule(rule - rule_names().begin())};
  if (words.size() != out.sections.size()) {
    throw Error(Exit::usage, concat("rope_axes=", text, " names the pairs of ", words.size(),
                                    " axes and there are three"))
        .hint("rope_axes=interleaved:24+20+20");
  }
  for (std::size_t i = 0; i < words.size(); ++i)
    out.sections[i] = pairs_of(words[i], text);
  if (out.rule == PairRule::ernie && out.sections[0] != out.sections[1]) {
    throw Error(Exit::usage, concat("rope_axes=", text,
                                    ": height and width take turns, and have other numbers of "
                                    "pairs"))
        .hint("the same number twice, then that of time: rope_axes=ernie:22+22+20");
  }
  return out;
}

std::string axes_text(const RopeAxes& axes) {
  return concat(rule_names()[std::size_t(axes.rule)], ":", axes.sections[0], ";", axes.sections[1],
                ";", axes.sections[2]);
}

std::array<Rotary, 3> by_axes(const Rotary& whole, const RopeAxes& axes) {
  const std::vector<int> axis = pair_axes(axes.rule, axes.sections, int(whole.frequency.size()));
  std::array<Rotary, 3> out{whole, whole, whole};
  for (int a = 0; a < 3; ++a) {
    Rotary& r = out[std::size_t(a)];
    r.frequency = frequencies_of(whole.frequency, axis, a);
    if (!whole.far_frequency.empty())
      r.far_frequency = frequencies_of(whole.far_frequency, axis, a);
    if (a > 0)
      r.scale = r.far_scale = 1;
  }
  return out;
}

}  // namespace moe
