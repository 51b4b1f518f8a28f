// Every kind of thing that can be chosen, straight from the registries.
#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace moe {

struct Kind {
  std::string_view name, title;                  // "routers", "Routers (--router)"
  std::vector<std::array<std::string, 3>> rows;  // name, about, and what `third` says
  std::string_view third = "examples";           // as a shell is given them; or "source"
};

std::vector<Kind> kinds();

}  // namespace moe
