#include "lib/serving/eplb.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

struct Place {
  int pack, position;
};

// n items onto m packs of n/m: the heaviest first, each onto the lightest pack with room.
std::vector<Place> pack(const std::vector<double>& w, int packs) {
  const int n = int(w.size());
  const int room = n / packs;
  std::vector<Place> out(w.size());
  if (room == 1) {
    for (int i = 0; i < n; ++i)
      out[i] = {i, 0};
    return out;
  }
  std::vector<int> by(w.size());
  std::vector<int> held(std::size_t(packs), 0);
  std::vector<double> load(std::size_t(packs), 0);
  std::iota(by.begin(), by.end(), 0);
  std::stable_sort(by.begin(), by.end(), [&](int a, int b) { return w[a] > w[b]; });
  for (const int i : by) {
    int best = -1;
    for (int p = 0; p < packs; ++p) {
      if (held[p] < room && (best < 0 || load[p] < load[best])) {
        best = p;
      }
    }
    out[i] = {best, held[best]++};
    load[best] += w[i];
  }
  return out;
}

// Which of the items stands in each of `slots` slots: one copy each, every further one to the item
// with most load a copy.
std::vector<int> replicate(const std::vector<double>& w, int slots) {
  std::vector<int> out(w.size());
  std::vector<int> count(w.size(), 1);
  std::iota(out.begin(), out.end(), 0);
  while (int(out.size()) < slots) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < w.size(); ++i) {
      if (w[i] / count[i] > w[best] / count[best])
        best = i;
    }
    ++count[best];
    out.push_back(int(best));
  }
  return out;
}

void check(int experts, const EplbShape& s) {
  const auto wrong = [](auto... a) {
    throw Error(Exit::usage, concat(a...))
        .hint("slots divide among the GPUs, GPUs among the nodes, experts among the groups");
  };
  if (s.gpus < 1 || s.nodes < 1 || s.groups < 1 || experts < 1) {
    wrong("a placement needs GPUs, nodes, groups and experts: ", s.gpus, ", ", s.nodes, ", ",
          s.groups, " and ", experts, " were given");
  }
  if (s.replicas < experts)
    wrong(s.replicas, " slots are fewer than the ", experts, " experts");
  if (s.replicas % s.gpus)
    wrong(s.replicas, " slots do not divide among ", s.gpus, " GPUs");
  if (s.gpus % s.nodes)
    wrong(s.gpus, " GPUs do not divide among ", s.nodes, " nodes");
  if (experts % s.groups)
    wrong(experts, " experts do not divide among ", s.groups, " groups");
}

// Experts in the order of the nodes that hold them: (node, position of the group, member).
std::vector<int> by_node(std::span<const double> w, int groups, int nodes) {
  const std::size_t members = w.size() / std::size_t(groups);
  std::vector<double> sum;
  for (std::size_t g = 0; g < std::size_t(groups); ++g) {
    sum.push_back(std::accumulate(w.begin() + std::ptrdiff_t(g * members),
                                  w.begin() + std::ptrdiff_t((g + 1) * members), 0.0));
  }
  const auto placed = pack(sum, nodes);
  std::vector<int> out(w.size());
  for (std::size_t g = 0; g < placed.size(); ++g) {
    for (std::size_t m = 0; m < members; ++m) {
      out[std::size_t(placed[g].pack * (groups / nodes) + placed[g].position) * members + m] =
          int(g * members + m);
    }
  }
  return out;
}

// One node's slots: its experts, the busy ones several times, packed on its GPUs.
void place(std::span<const double> weight, std::span<const int> local, int gpus,
           std::span<int> slots, std::vector<int>& copies) {
  std::vector<double> w;
  for (const int e : local)
    w.push_back(weight[e]);
  const std::vector<int> copy = replicate(w, int(slots.size()));
  for (const int e : copy)
    ++copies[local[e]];
  std::vector<double> load;
  for (const int e : copy)
    load.push_back(w[e] / copies[local[e]]);
  const auto placed = pack(load, gpus);
  const int each = int(slots.size()) / gpus;
  for (std::size_t i = 0; i < copy.size(); ++i) {
    slots[placed[i].pack * each + placed[i].position] = local[copy[i]];
  }
}

}  // namespace

EplbPlan eplb_plan(std::span<const double> weight, const EplbShape& shape) {
  check(int(weight.size()), shape);
  const bool flat = shape.groups % shape.nodes != 0;
  const int groups = flat ? 1 : shape.groups;
  const int nodes = flat ? 1 : shape.nodes;
  const int gpus = shape.gpus / nodes;
  const int slots = shape.replicas / nodes;
  const int each = slots / gpus;  // of a GPU
  const std::size_t experts = weight.size() / std::size_t(nodes);
  const std::vector<int> order = by_node(weight, groups, nodes);
  EplbPlan plan{
      std::vector<int>(std::size_t(shape.replicas)), std::vector<int>(weight.size(), 0), {}, 0};
  for (int node = 0; node < nodes; ++node) {
    const std::span<const int> local{order.data() + std::size_t(node) * experts, experts};
    place(weight, local, gpus, {plan.expert.data() + std::size_t(node * slots), std::size_t(slots)},
          plan.copies);
  }
  plan.gpu_load.assign(std::size_t(shape.gpus), 0);
  for (std::size_t i = 0; i < plan.expert.size(); ++i) {
    plan.gpu_load[i / std::size_t(each)] += weight[plan.expert[i]] / plan.copies[plan.expert[i]];
  }
  plan.balancedness = eplb_balancedness(plan, weight, shape.gpus);
  return plan;
}

double eplb_balancedness(const EplbPlan& plan, std::span<const double> weight, int gpus) {
  std::vector<double> load(std::size_t(gpus), 0);
  const std::size_t each = plan.expert.size() / load.size();
  for (std::size_t i = 0; i < plan.expert.size(); ++i) {
    load[i / each] += weight[plan.expert[i]] / plan.copies[plan.expert[i]];
  }
  const double most = *std::max_element(load.begin(), load.end());
  return most > 0 ? std::accumulate(load.begin(), load.end(), 0.0) / double(gpus) / most
                  : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace moe
