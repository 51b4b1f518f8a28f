// The policies of place_policies.def: how copies are made, and where they go.
#include <algorithm>
#include <numeric>

#include "analysis/metric/place_plan.h"
#include "lib/serving/eplb.h"

namespace moe {

#define PLACE_POLICY(id, about, together) MakePlacePlan place_by_##id;
#include "analysis/metric/place_policies.def"
#undef PLACE_POLICY

namespace {

constexpr double slack = 0.05;  // of a node's load above the mean, for local

PlacePlan as_plan(std::vector<int> expert, std::vector<int> copies, int gpus) {
  PlacePlan out;
  const std::size_t each = expert.size() / std::size_t(gpus);
  for (std::size_t i = 0; i < expert.size(); ++i)
    out.gpu.push_back(int(i / each));
  out.expert = std::move(expert);
  out.copies = std::move(copies);
  return out;
}

}  // namespace

PlacePlan place_by_eplb(const PlaceLoads& loads, const PlaceShape& s) {
  EplbPlan plan = eplb_plan(loads.load, {.replicas = s.slots(int(loads.load.size())),
                                         .groups = s.groups,
                                         .nodes = s.nodes,
                                         .gpus = s.gpus});
  return as_plan(std::move(plan.expert), std::move(plan.copies), s.gpus);
}

namespace {

// Copies of every expert: one, and each further one to the expert with most load a copy that is not
// on every GPU yet (tie: lower index).
std::vector<int> copies_of(const std::vector<double>& load, int slots, int gpus) {
  std::vector<int> copies(load.size(), 1);
  for (int i = int(load.size()); i < slots; ++i) {
    std::size_t best = load.size();
    for (std::size_t e = 0; e < load.size(); ++e) {
      if (copies[e] < gpus &&
          (best == load.size() || load[e] / copies[e] > load[best] / copies[best]))
        best = e;
    }
    ++copies[best];
  }
  return copies;
}

// GPUs that are being filled, as many slots on each.
class Gpus {
 public:
  Gpus(int gpus, std::size_t room)
      : held_(std::size_t(gpus)), load_(held_.size(), 0), room_(room) {}

  // Onto the lightest with room that does not hold it; else onto the lightest with room.
  void put(int expert, double load) {
    std::size_t best = held_.size();
    for (const bool alone : {true, false}) {
      if (best == held_.size())
        best = lightest(expert, alone);
    }
    held_[best].push_back(expert);
    load_[best] += load;
  }
  // Takes a second copy of an expert to a GPU that has none, against one of the experts there.
  void part_twins() {
    for (std::size_t g = 0; g < held_.size(); ++g) {
      for (std::size_t i = 0; i < held_[g].size(); ++i) {
        if (std::count(held_[g].begin(), held_[g].end(), held_[g][i]) > 1)
          swap_away(g, i);
      }
    }
  }
  std::vector<int> slots() const {
    std::vector<int> out;
    for (const auto& held : held_)
      out.insert(out.end(), held.begin(), held.end());
    return out;
  }

 private:
  bool holds(std::size_t g, int expert) const {
    return std::find(held_[g].begin(), held_[g].end(), expert) != held_[g].end();
  }
  bool fits(std::size_t g, int expert, bool alone) const {
    return held_[g].size() < room_ && !(alone && holds(g, expert));
  }
  std::size_t lightest(int expert, bool alone) const {
    std::size_t best = held_.size();
    for (std::size_t g = 0; g < held_.size(); ++g) {
      if (fits(g, expert, alone) && (best == held_.size() || load_[g] < load_[best]))
        best = g;
    }
    return best;
  }
  void swap_away(std::size_t g, std::size_t i) {
    for (std::size_t h = 0; h < held_.size(); ++h) {
      if (holds(h, held_[g][i]))
        continue;
      for (int& other : held_[h]) {
        if (!holds(g, other)) {
          std::swap(other, held_[g][i]);
          return;
        }
      }
    }
  }

  std::vector<std::vector<int>> held_;
  std::vector<double> load_;
  std::size_t room_;
};

}  // namespace

PlacePlan place_by_greedy(const PlaceLoads& loads, const PlaceShape& s) {
  const std::vector<double>& load = loads.load;
  const int slots = s.slots(int(load.size()));
  std::vector<int> copies = copies_of(load, slots, s.gpus);
  std::vector<int> copy;
  for (std::size_t e = 0; e < load.size(); ++e)
    copy.insert(copy.end(), std::size_t(copies[e]), int(e));
  const auto share = [&](int e) {
    return load[e] / copies[e];
  };
  std::stable_sort(copy.begin(), copy.end(), [&](int a, int b) { return share(a) > share(b); });
  Gpus gpus(s.gpus, std::size_t(slots / s.gpus));
  for (const int e : copy)
    gpus.put(e, share(e));
  gpus.part_twins();
  return as_plan(gpus.slots(), std::move(copies), s.gpus);
}

namespace {

// Copies of experts on nodes, so that tokens find several of theirs on one: each copy, the heaviest
// first, joins the node whose experts its own is most often chosen with, of those that have a slot
// and load to spare and no copy of it; then pairs are exchanged while that brings more together.
class Nodes {
 public:
  Nodes(const PlaceLoads& loads, const std::vector<int>& copies, int nodes, int room)
      : loads_(loads),
        copies_(copies),
        load_(std::size_t(nodes), 0),
        members_(std::size_t(nodes), 0),
        room_(room),
        affinity_(Index(loads.load.size()), nodes),
        held_(Index(loads.load.size()), nodes) {
    const double all = std::accumulate(loads.load.begin(), loads.load.end(), 0.0);
    bound_ = (1 + slack) * all / nodes;
    for (std::size_t e = 0; e < copies.size(); ++e)
      expert_.insert(expert_.end(), std::size_t(copies[e]), int(e));
    std::stable_sort(expert_.begin(), expert_.end(),
                     [&](int a, int b) { return share(a) > share(b); });
    node_.assign(expert_.size(), -1);
    for (std::size_t i = 0; i < expert_.size(); ++i)
      join(i, node_for(expert_[i]));
    for (int sweep = 0; sweep < most_sweeps && exchange(); ++sweep) {
    }
  }
  // The experts of a node, the heaviest copy first.
  std::vector<int> of(int node) const {
    std::vector<int> out;
    for (std::size_t i = 0; i < expert_.size(); ++i) {
      if (node_[i] == node)
        out.push_back(expert_[i]);
    }
    return out;
  }
  double share(int e) const {
    return loads_.load[e] / copies_[e];
  }

 private:
  static constexpr int most_sweeps = 20;

  double together(int a, int b) const {
    return loads_.together.empty() ? 0 : loads_.together(a, b);
  }
  // With load to spare, else the lightest; without a copy of the expert, else any.
  int node_for(int e) const {
    int best = -1;
    for (const bool alone : {true, false}) {
      for (const bool bounded : {true, false})
        best = best < 0 ? nearest(e, alone, bounded) : best;
    }
    return best;
  }
  // Most often chosen with, of those with load to spare (tie: the lighter); not bounded: the
  // lightest. -1 = none has a slot.
  int nearest(int e, bool alone, bool bounded) const {
    int best = -1;
    for (int n = 0; n < int(load_.size()); ++n) {
      const double load = load_[n];
      if (members_[n] == room_ || (alone && held_(e, n) > 0) ||
          (bounded && load + share(e) > bound_))
        continue;
      const bool lighter = best < 0 || load < load_[best];
      const double more = best < 0 || !bounded ? 0 : affinity_(e, n) - affinity_(e, best);
      if (more > 0 || (more == 0 && lighter))
        best = n;
    }
    return best;
  }
  void join(std::size_t item, int n) {
    node_[item] = n;
    move(expert_[item], n, 1);
  }
  void move(int e, int n, int by) {
    load_[n] += by * share(e);
    members_[n] += by;
    held_(e, n) += by;
    for (Index other = 0; other < affinity_.rows(); ++other)
      affinity_(other, n) += by * together(int(other), e);
  }
  // What an exchange of two experts between nodes would bring together.
  double gain(int a, int p, int b, int q) const {
    return affinity_(a, q) + affinity_(b, p) - 2 * together(a, b) - affinity_(a, p) +
           together(a, a) - affinity_(b, q) + together(b, b);
  }
  bool may_exchange(int a, int p, int b, int q) const {
    if (p == q || held_(a, q) > 0 || held_(b, p) > 0)
      return false;
    const double moved = share(b) - share(a);
    const double at_p = load_[p];
    const double at_q = load_[q];
    return std::max(at_p + moved, at_q - moved) <= std::max({bound_, at_p, at_q});
  }
  // One sweep over all pairs; whether anything moved.
  bool exchange() {
    bool moved = false;
    for (std::size_t i = 0; i < expert_.size(); ++i) {
      for (std::size_t j = i + 1; j < expert_.size(); ++j) {
        const int p = node_[i];
        const int q = node_[j];
        if (!may_exchange(expert_[i], p, expert_[j], q) ||
            !(gain(expert_[i], p, expert_[j], q) > 0.5))
          continue;
        move(expert_[i], p, -1);
        move(expert_[j], q, -1);
        join(i, q);
        join(j, p);
        moved = true;
      }
    }
    return moved;
  }

  const PlaceLoads& loads_;
  const std::vector<int>& copies_;  // (E)
  std::vector<int> expert_, node_;  // (R) of each copy
  std::vector<double> load_;        // (N)
  std::vector<int> members_;        // (N)
  int room_;
  Matrix<double> affinity_;  // (E,N) tokens that chose e and an expert of the node
  Matrix<int> held_;         // (E,N) copies
  double bound_ = 0;
};

}  // namespace

PlacePlan place_by_local(const PlaceLoads& loads, const PlaceShape& s) {
  const int slots = s.slots(int(loads.load.size()));
  // one copy a node where that is enough
  const bool few = slots <= int(loads.load.size()) * s.nodes;
  std::vector<int> copies = copies_of(loads.load, slots, few ? s.nodes : s.gpus);
  const Nodes nodes(loads, copies, s.nodes, slots / s.nodes);
  std::vector<int> expert;
  for (int n = 0; n < s.nodes; ++n) {
    Gpus gpus(s.gpus / s.nodes, std::size_t(slots / s.gpus));
    for (const int e : nodes.of(n))
      gpus.put(e, nodes.share(e));
    gpus.part_twins();
    const std::vector<int> of_node = gpus.slots();
    expert.insert(expert.end(), of_node.begin(), of_node.end());
  }
  return as_plan(std::move(expert), std::move(copies), s.gpus);
}

}  // namespace moe
