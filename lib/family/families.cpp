// The list of families, and what a router's spec says in the words that published configurations
// have for it.
#include "lib/family/families.h"

#include <algorithm>
#include <map>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/family/routing_facts.h"
#include "lib/router/router.h"

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

RoutingFacts routing_facts(const ModelConfig& c) {
  std::string defaults;
  const int k = make_router(c.moe.router, c.moe.experts, defaults)->choices();
  Spec spec(defaults);
  RoutingFacts f;
  f.kind = spec.name();
  f.k = k;
  f.scale = spec.get("scale", 1.0);
  const Cooling cooling = read_cooling(spec);
  f.temperature = cooling.moves() ? 0 : cooling.to;
  f.bias_on_logits = spec.get("bias_on", "score") == "logit";
  // without draws: the two best of a softmax; a softmax over all
  if (f.kind == "gshard" || f.kind == "dense") {
    f.kind = "softmax";
    return f;
  }
  f.norm = spec.get("norm", true);
  f.bias = spec.get("bias", false);
  f.groups = spec.get("groups", 1);
  f.topk_groups = spec.get("topk_groups", 1);
  f.top2_sum = spec.get("group_score", "max") == "top2_sum";
  f.one_per_group = spec.get("group_mode", "limited") == "one";
  return f;
}

}  // namespace moe
