#include "lib/router/former_names.h"

#include "lib/core/spec.h"

namespace moe {
namespace {

struct Renamed {
  const char *former, *now;
};
constexpr Renamed routers_renamed[] = {{"forced", "synthetic_load"}};
constexpr Renamed options_renamed[] = {{"cooling", "temperature_schedule"},
                                       {"cooling_until", "temperature_until"}};

}  // namespace

std::vector<FormerName> use_current_names(Spec& spec) {
  std::vector<FormerName> found;
  for (const Renamed& router : routers_renamed) {
    if (spec.name() != router.former)
      continue;
    spec.rename(router.now);
    found.push_back({router.former, router.now});
  }
  for (const Renamed& option : options_renamed) {
    if (spec.rename_option(option.former, option.now))
      found.push_back({option.former, option.now});
  }
  return found;
}

}  // namespace moe
