#include "lib/study/grid.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"

namespace moe {
namespace {

bool is_named(const std::string& factor, const std::vector<std::string>& commands) {
  const std::string place = concat("{", factor, "}");
  return std::ranges::any_of(commands,
                             [&](const std::string& c) { return c.find(place) != c.npos; });
}

void add_level(Arm& arm, const Factor& f, const std::string& level, bool alone, bool named) {
  const std::string name = alone ? level : concat(f.name, "=", level);
  arm.name += concat(arm.name.empty() ? "" : ", ", name);
  if (named)
    arm.set.set(f.name, level);
  else
    arm.options += concat(arm.options.empty() ? "" : " ", "--", f.name, " ", shell_quoted(level));
}

}  // namespace

std::vector<Arm> grid_of(const std::vector<Factor>& factors,
                         const std::vector<std::string>& commands) {
  std::vector<Arm> arms(1);
  for (const Factor& f : factors) {
    if (f.levels.empty())
      throw Error(Exit::usage, concat("the factor '", f.name, "' has no levels"))
          .hint("a list: router = [\"softmax\", \"sigmoid\"]");
    const bool named = is_named(f.name, commands);
    std::vector<Arm> next;
    for (const Arm& arm : arms) {
      for (const std::string& level : f.levels) {
        next.push_back(arm);
        add_level(next.back(), f, level, factors.size() == 1, named);
      }
    }
    arms = std::move(next);
  }
  if (factors.empty())
    arms.clear();
  return arms;
}

}  // namespace moe
