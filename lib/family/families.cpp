// The list of families.
#include "lib/family/families.h"

#include <algorithm>
#include <map>

#include "lib/core/error.h"
#include "lib/family/family.h"

namespace moe {

const std::vector<Family>& families() {
  static const std::vector<Family> all{
#define FAMILY(name, architecture, about) {#name, architecture, about},
#include "lib/family/families.def"
#undef FAMILY
  };
  return all;
}

bool is_family(const std::string& model_type) {
  return std::ranges::any_of(families(), [&](const Family& f) { return f.name == model_type; });
}

const FamilyRules& rules_of(const std::string& name) {
  static const std::map<std::string, FamilyRules, std::less<>> all{
#define FAMILY(family, architecture, about) {#family, family##_family()},
#include "lib/family/families.def"
#undef FAMILY
  };
  return all.at(name);
}

}  // namespace moe
