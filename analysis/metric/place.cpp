// Loads in the first pass, plans between the passes: see place.h.
#include "analysis/metric/place.h"

#include <algorithm>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/count_pass.h"
#include "analysis/metric/pass.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

int groups_of(const TraceSource& trace) {
  int groups = 0;
  for (const TraceLayer& l : trace.header().layers)
    groups = groups == 0 || l.n_group == groups ? l.n_group : 1;
  return std::max(1, groups);
}

}  // namespace

PlaceMetric::PlaceMetric(Spec& spec, const TraceSource& trace, const AnalyzeOptions& o)
    : trace_(trace),
      options_(o),
      shape_(trace),
      counted_(counts_only(trace)),
      halves_(trace),
      layer_(shape_.experts.size()) {
  place_.gpus = spec.get("gpus", usual_ranks(shape_), 1);
  place_.nodes = spec.get("nodes", 1, 1);
  place_.extra = spec.get("extra", 0, 0);
  place_.groups = spec.get("groups", groups_of(trace), 1);
  policy_ = spec.choice("policy", place_policies().names());
  together_ = wants_together(policy_);
  if (together_ && counted_) {
    throw Error(Exit::usage, concat("policy=", policy_,
                                    " looks at which experts tokens choose together, and the "
                                    "trace only counts"))
        .hint("policy=eplb or policy=greedy");
  }
  if (together_ && pair_bytes(trace) > o.memory / 2) {
    throw Error(Exit::usage, concat("policy=", policy_, " takes ", 2 * pair_bytes(trace) >> 20,
                                    " MiB for pairs of experts, more than one metric may have"))
        .hint("more of --memory, or policy=eplb");
  }
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const int experts = shape_.experts[l];
    check_place(experts, place_);
    for (PlaceLoads& half : layer_[l].half) {
      half.load.assign(std::size_t(experts), 0);
      if (together_)
        half.together = Matrix<double>(experts, experts);
    }
    layer_[l].from.assign(std::size_t(place_.nodes), 0);
  }
}

void PlaceMetric::observe_layer(const Window& w, Index l) {
  State& s = layer_[l];
  for (const Index t : w.valid) {
    const std::size_t row(t);
    const auto half = std::size_t(halves_.of(w.rows.sequence[row], w.rows.position[row]));
    PlaceLoads& to = s.half[half];
    const std::span<const int> experts = w.layer[l].of(t);
    for (const int e : experts)
      to.load[e] += 1;
    for (std::size_t i = 0; together_ && i < experts.size(); ++i) {
      for (const int other : experts)
        to.together(experts[i], other) += 1;
    }
    ++s.tokens[half];
    s.choices += std::int64_t(experts.size());
  }
}

void PlaceMetric::observe_counts(const CountWindow& w, Index l) {
  State& s = layer_[l];
  for (Index step = 0; step < w.count(); ++step) {
    const std::size_t half = (w.steps.first + std::uint64_t(step)) % 2;
    const auto counts = w.of(step, l);
    for (std::size_t e = 0; e < counts.size(); ++e) {
      s.half[half].load[e] += counts[e];
      s.choices += counts[e];
    }
    add_tokens(s.tokens[half], w.tokens(step, l));
  }
}

PlaceLoads PlaceMetric::both(const State& s) const {
  PlaceLoads out = s.half[0];
  for (std::size_t e = 0; e < out.load.size(); ++e)
    out.load[e] += s.half[1].load[e];
  for (Index i = 0; i < out.together.size(); ++i)
    out.together.data()[i] += s.half[1].together.data()[i];
  return out;
}

void PlaceMetric::finish() {
  const auto& make = place_policies().at(policy_).make;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    State& s = layer_[l];
    s.in_order = place_in_order(shape_.experts[l], place_.gpus);
    s.plan = make(both(s), place_);
    s.plan_of_half = make(s.half[0], place_);
    s.half[0].together = {};
    s.half[1].together = {};
  }
  judge();
}

void PlaceMetric::judge() {
  std::vector<PlaceJudge::Layer> plans;
  for (State& s : layer_) {
    plans.push_back({&s.plan_of_half, &s.in_order});
    if (!counted_)
      continue;
    for (auto [plan, judged] :
         {std::pair(&s.plan_of_half, &s.planned), std::pair(&s.in_order, &s.plain)})
      *judged = {{place_balancedness(*plan, s.half[1].load, place_.gpus)}, {no_value}, {no_value}};
  }
  if (counted_)
    return;
  PlaceJudge judge(trace_, place_, plans, options_);
  read_again(trace_, judge, options_);
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    layer_[l].planned = judge.planned(l);
    layer_[l].plain = judge.plain(l);
    layer_[l].from = judge.from(l);
  }
}

PlaceFigure PlaceMetric::gain(const State& s) const {
  PlaceFigure out;
  for (std::size_t r = 0; r < s.planned.balancedness.size(); ++r)
    out.push_back(s.planned.balancedness[r] / s.plain.balancedness[r]);
  return out;
}

std::vector<MetricValue> PlaceMetric::values() const {
  std::vector<double> plain, planned, gains, nodes, plain_nodes, copies, plain_copies;
  std::vector<std::vector<double>> slots;
  for (const State& s : layer_) {
    plain.push_back(s.plain.balancedness[0]);
    planned.push_back(s.planned.balancedness[0]);
    gains.push_back(gain(s)[0]);
    nodes.push_back(s.planned.nodes[0]);
    plain_nodes.push_back(s.plain.nodes[0]);
    copies.push_back(s.planned.copies[0]);
    plain_copies.push_back(s.plain.copies[0]);
    slots.emplace_back(s.plan.expert.begin(), s.plan.expert.end());
  }
  if (counted_)
    return {per_layer("place_balancedness_in_order", plain),
            per_layer("place_balancedness", planned), per_layer("place_gain", gains),
            per_layer("place_slots", slots)};
  return {per_layer("place_balancedness_in_order", plain),
          per_layer("place_balancedness", planned),
          per_layer("place_gain", gains),
          per_layer("place_remote_nodes_in_order", plain_nodes),
          per_layer("place_remote_nodes", nodes),
          per_layer("place_remote_copies_in_order", plain_copies),
          per_layer("place_remote_copies", copies),
          per_layer("place_slots", slots)};
}

std::unique_ptr<Metric> make_place_metric(Spec& spec, const TraceSource& trace,
                                          const AnalyzeOptions& o) {
  return std::make_unique<PlaceMetric>(spec, trace, o);
}

}  // namespace moe
