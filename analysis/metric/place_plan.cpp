// Plans and what they do: see place_plan.h.
#include "analysis/metric/place_plan.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/serving/eplb.h"

namespace moe {

#define PLACE_POLICY(id, about, together) MakePlacePlan place_by_##id;
#include "analysis/metric/place_policies.def"
#undef PLACE_POLICY

const Registry<MakePlacePlan>& place_policies() {
  static const Registry<MakePlacePlan> all("policy of placement", {
#define PLACE_POLICY(id, about, together) {#id, about, "", place_by_##id},
#include "analysis/metric/place_policies.def"
#undef PLACE_POLICY
                                                                  });
  return all;
}

bool wants_together(std::string_view policy) {
#define PLACE_POLICY(id, about, together) \
  if (policy == #id)                      \
    return together;
#include "analysis/metric/place_policies.def"
#undef PLACE_POLICY
  return false;
}

void check_place(int experts, const PlaceShape& s) {
  const auto wrong = [](const std::string& sentence, const std::string& hint) {
    throw Error(Exit::usage, sentence).hint(hint);
  };
  if (s.gpus < 1 || s.nodes < 1 || s.extra < 0 || s.groups < 1)
    wrong("a placement needs GPUs, nodes and groups from 1 on, and extra slots from 0 on", "");
  const int slots = s.slots(experts);
  if (slots % s.gpus) {
    const int below = slots / s.gpus * s.gpus - experts;
    const int above = below + s.gpus;
    wrong(concat(experts, " experts and ", s.extra, " extra slots make ", slots,
                 ", which do not divide among ", s.gpus, " GPUs"),
          concat("extra slots: ", below >= 0 ? concat(below, " or ") : "", above));
  }
  if (s.gpus % s.nodes)
    wrong(concat(s.gpus, " GPUs do not divide among ", s.nodes, " nodes"),
          "as many GPUs on each node");
  if (experts % s.groups)
    wrong(concat(experts, " experts do not divide among ", s.groups, " groups"),
          "the groups of the model's router (n_group)");
  if (s.nodes > 64)
    wrong(concat(s.nodes, " nodes are more than the 64 that traffic is counted for"),
          "fewer nodes, or domains of fast links as nodes");
  if (std::int64_t{slots} > std::int64_t{experts} * s.gpus) {
    wrong(concat(s.extra, " extra slots are more than ", s.gpus, " GPUs can use, with each of ",
                 experts, " experts on each of them"),
          concat("at most ", std::int64_t{experts} * (s.gpus - 1)));
  }
}

PlacePlan place_in_order(int experts, int gpus) {
  PlacePlan plan;
  for (int e = 0; e < experts; ++e) {
    plan.expert.push_back(e);
    plan.gpu.push_back(int(std::int64_t{e} * gpus / experts));
  }
  plan.copies.assign(std::size_t(experts), 1);
  return plan;
}

double place_balancedness(const PlacePlan& plan, std::span<const double> load, int gpus) {
  std::vector<double> of(std::size_t(gpus), 0);
  for (std::size_t i = 0; i < plan.expert.size(); ++i) {
    const std::size_t e(plan.expert[i]);
    of[plan.gpu[i]] += load[e] / plan.copies[e];
  }
  const double most = *std::max_element(of.begin(), of.end());
  return most > 0 ? std::accumulate(of.begin(), of.end(), 0.0) / double(gpus) / most
                  : std::numeric_limits<double>::quiet_NaN();
}

Matrix<int> place_targets(const PlacePlan& plan, const PlaceShape& shape) {
  const auto experts = Index(plan.copies.size());
  std::vector<std::vector<int>> nodes(plan.copies.size());  // of the copies, in order of slots
  for (std::size_t i = 0; i < plan.expert.size(); ++i)
    nodes[plan.expert[i]].push_back(shape.node_of(plan.gpu[i]));
  Matrix<int> out(shape.nodes, experts);
  for (int s = 0; s < shape.nodes; ++s) {
    for (Index e = 0; e < experts; ++e) {
      const std::vector<int>& at = nodes[e];
      const bool here = std::find(at.begin(), at.end(), s) != at.end();
      out(s, e) = here ? s : at[std::size_t(s) % at.size()];
    }
  }
  return out;
}

}  // namespace moe
