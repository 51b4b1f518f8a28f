#include "analysis/metric/coactivation.h"

#include "analysis/metric/pair_counts.h"

namespace moe {
CoactivationMetric::CoactivationMetric(Spec& spec, const TraceSource& trace, bool adjacent,
                                       std::int64_t memory)
    : shape_(trace), memory_(memory), top_(spec.get("top", 10, 1)) {
  for (const int e : shape_.experts)
    state_.push_back({Counts(e, e), adjacent ? Counts(e, e) : Counts(), 0, 0});
}

TraceFields CoactivationMetric::needs() const {
  return no_fields;
}

void CoactivationMetric::observe_layer(const Window& w, Index l) {
  State& s = state_[l];
  const LayerChoices& c = w.layer[l];
  count_own_pairs(c, w.valid, s.pairs);
  for (const Index t : w.valid)
    s.assignments += std::int64_t(c.of(t).size());
  s.tokens += std::int64_t(w.valid.size());
  if (s.adjacent.empty())
    return;
  in_small_cells(s.adjacent, w.valid.size() * std::size_t(c.width), [&](auto* cells) {
    for (const Index t : w.valid) {
      const auto chosen = c.of(t);
      for (std::size_t i = 1; i < chosen.size(); ++i)
        ++cells[chosen[i - 1] * s.adjacent.cols() + chosen[i]];
    }
  });
}

void CoactivationMetric::finish() {
  for (State& s : state_) {
    for (Counts* m : {&s.pairs, &s.adjacent}) {
      for (Index i = 0; i < m->rows(); ++i) {
        for (Index j = i + 1; j < m->cols(); ++j)
          (*m)(i, j) = (*m)(j, i) = (*m)(i, j) + (*m)(j, i);
      }
    }
  }
}

std::vector<MetricValue> CoactivationMetric::values() const {
  std::vector<Matrix<double>> counts, conditional, adjacent, npmi;
  std::vector<double> lift;
  for (const State& s : state_) {
    counts.push_back(as_double(s.pairs));
    conditional.push_back(coactivation_conditional(s.pairs));
    npmi.push_back(coactivation_npmi(s.pairs, s.tokens));
    lift.push_back(coactivation_max_lift(s.pairs, s.tokens));
    adjacent.emplace_back(s.pairs.rows(), s.pairs.cols());
    for (Index i = 0; i < s.pairs.rows(); ++i) {
      for (Index j = 0; j < s.pairs.cols(); ++j) {
        adjacent.back()(i, j) =
            s.pairs(i, i) ? double(s.adjacent(i, j)) / double(s.pairs(i, i)) : 0;
      }
    }
  }
  return {per_layer("coactivation_counts", counts),
          per_layer("coactivation_conditional", conditional),
          per_layer("coactivation_adjacent", adjacent), per_layer("coactivation_npmi", npmi),
          per_layer("coactivation_max_lift", lift)};
}

std::vector<CoactivationMetric::Pair> CoactivationMetric::sorted(const State& s) const {
  std::vector<Pair> out;
  for (Index i = 0; i < s.pairs.rows(); ++i) {
    for (Index j = i + 1; j < s.pairs.cols(); ++j) {
      const double expected = double(s.pairs(i, i)) * double(s.pairs(j, j)) / double(s.tokens);
      if (expected >= 5)
        out.push_back({i, j, double(s.pairs(i, j)) / expected});
    }
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Pair& a, const Pair& b) { return a.lift > b.lift; });
  return out;
}

double CoactivationMetric::choices(const State& s) {
  return double(s.assignments) / double(s.tokens);
}

// Of layers of one shape the same, drawn once.
const chance::ClosestPairs& CoactivationMetric::by_lot(std::size_t l) const {
  const int e = shape_.experts[l];
  const int k = whole_choices(choices(state_[l]), e);
  const std::int64_t tokens = state_[l].tokens;
  const auto [at, fresh] = store().pairs_of.try_emplace({e, k, tokens});
  if (fresh)
    at->second = chance::closest_pairs(e, k, tokens, std::size_t(top_), e > 64 ? 20 : 100);
  return at->second;
}

std::unique_ptr<Metric> make_coactivation_metric(Spec& spec, const TraceSource& trace,
                                                 const AnalyzeOptions& o) {
  const std::int64_t bytes = (o.values ? 2 : 1) * pair_bytes(trace);
  if (bytes <= o.memory)
    return std::make_unique<CoactivationMetric>(spec, trace, o.values != nullptr, o.memory);
  spec.get("top", 10, 1);  // known, as where it is measured
  return left_out("which experts are chosen together", bytes, o.memory);
}

}  // namespace moe
