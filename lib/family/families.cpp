// The list of families.
#include "lib/family/families.h"

#include <algorithm>
#include <map>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/router/router.h"

namespace moe {

const std::vector<Family>& families() {
  static const std::vector<Family> all{
#define FAMILY_AS(id, name, architecture, verified, about) \
  {name, architecture, about, Verified::verified},
#include "lib/family/families.def"
#undef FAMILY_AS
  };
  return all;
}

bool is_family(const std::string& model_type) {
  return std::ranges::any_of(families(), [&](const Family& f) { return f.name == model_type; });
}

std::string verification(const std::string& family) {
  const auto found = std::ranges::find(families(), family, &Family::name);
  if (found == families().end())
    return "none";
  switch (found->verified) {
    case Verified::not_yet:
      return "none";
    case Verified::remade:
      return "logits of a decoder written from the description of the family";
    case Verified::by_class:
      return concat("logits of ", found->architecture, " in transformers");
    case Verified::own:
      return "this program's own form";
  }
  return "none";
}

const FamilyRules& rules_of(const std::string& name) {
  static const std::map<std::string, FamilyRules, std::less<>> all{
#define FAMILY_AS(id, name, architecture, verified, about) {name, id##_family()},
#include "lib/family/families.def"
#undef FAMILY_AS
  };
  return all.at(name);
}

}  // namespace moe
