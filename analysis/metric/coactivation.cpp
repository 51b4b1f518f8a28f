// Which experts are chosen together, over all pairs of a token's choices (not only neighbouring
// ranks).
#include "analysis/metric/chance.h"
#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/pair_counts.h"

namespace moe {
namespace {

class Coactivation final : public Metric {
 public:
  Coactivation(Spec& spec, const TraceSource& trace, bool adjacent, std::int64_t memory)
      : shape_(trace), memory_(memory), top_(spec.get("top", 10, 1)) {
    for (const int e : shape_.experts)
      state_.push_back({Counts(e, e), adjacent ? Counts(e, e) : Counts(), 0, 0});
  }

  TraceFields needs() const override {
    return no_fields;
  }

  void observe_layer(const Window& w, Index l) override {
    State& s = state_[std::size_t(l)];
    const LayerChoices& c = w.layer[std::size_t(l)];
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

  // Until the last window both tables hold a pair once, at one of its two places: half the work.
  void finish() override {
    for (State& s : state_) {
      for (Counts* m : {&s.pairs, &s.adjacent}) {
        for (Index i = 0; i < m->rows(); ++i) {
          for (Index j = i + 1; j < m->cols(); ++j)
            (*m)(i, j) = (*m)(j, i) = (*m)(i, j) + (*m)(j, i);
        }
      }
    }
  }

  std::vector<MetricValue> values() const override {
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

  void report(Report&) const override;

 private:
  struct State {
    Counts pairs;     // (E,E)
    Counts adjacent;  // (E,E) of neighbouring ranks alone; empty where nobody asks
    std::int64_t tokens, assignments;
  };
  struct Pair {
    Index i, j;
    double lift;
  };
  // by lift, among pairs that chance would bring together at least 5 times
  std::vector<Pair> sorted(const State& s) const {
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
  void pairs(Report&) const;
  void maps(Report&) const;

  Shape shape_;
  std::int64_t memory_;
  int top_;
  std::vector<State> state_;
};

void Coactivation::pairs(Report& r) const {
  std::vector<std::int64_t> layer, one, other, together;
  std::vector<double> null_together, conditional, lift, npmi, all_lift;
  Nulls null_all, null, null_lift, null_npmi;
  Pair best{0, 0, 0};
  std::size_t where = 0;
  double best_null = no_value;
  Memo memo;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const State& s = state_[l];
    const double e = shape_.experts[l];
    const double k = double(s.assignments) / double(s.tokens);
    const int whole = whole_choices(k, shape_.experts[l]);
    const auto& lot = memo.get({e, double(whole), double(s.tokens)}, [&] {
      const chance::ClosestPairs lot_of = chance::closest_pairs(
          shape_.experts[l], whole, s.tokens, std::size_t(top_), e > 64 ? 20 : 100);
      std::vector<chance::Value> flat{lot_of.max_lift};
      for (const auto& p : lot_of.listed) {
        flat.push_back(p.lift);
        flat.push_back(p.conditional);
        flat.push_back(p.npmi);
      }
      return flat;
    });
    all_lift.push_back(coactivation_max_lift(s.pairs, s.tokens));
    null_all.add(lot[0]);
    const auto pmi = coactivation_npmi(s.pairs, s.tokens);
    const auto all = sorted(s);
    if (!all.empty() && all[0].lift > best.lift) {
      best = all[0];
      where = l;
      best_null = lot[1].mean;
    }
    for (std::size_t n = 0; n < std::min(all.size(), std::size_t(top_)); ++n) {
      const Pair& p = all[n];
      // the rarer expert first: given it, how sure is the other?
      const bool swap = s.pairs(p.i, p.i) > s.pairs(p.j, p.j);
      const Index a = swap ? p.j : p.i;
      const Index b = swap ? p.i : p.j;
      layer.push_back(shape_.number[l]);
      one.push_back(a);
      other.push_back(b);
      together.push_back(s.pairs(a, b));
      null_together.push_back(lot[3 * n + 1].mean * double(s.tokens) * k * k / (e * e));
      conditional.push_back(double(s.pairs(a, b)) / double(s.pairs(a, a)));
      lift.push_back(p.lift);
      npmi.push_back(pmi(a, b));
      null_lift.add(lot[3 * n + 1]);
      null.add(lot[3 * n + 2]);
      null_npmi.add(lot[3 * n + 3]);
    }
  }
  r.tables.push_back(
      {"coactivation",
       "Experts that are chosen together",
       "The pairs with the largest lift: how much more often a token takes both than their loads "
       "alone would give. The chance values are those of the closest, second closest, ... pair "
       "under "
       "random routing; a pair drawn blindly has a lift of E(K-1)/(K(E-1)), a little below 1. "
       "Pairs that chance would bring together less than 5 times are left out.",
       Chart::none,
       {column({"layer", "", "absolute layer number", ""}, layer),
        column({"expert", "", "the rarer of the two", ""}, one),
        column({"with", "", "the other", ""}, other),
        column({"together", "tokens", "tokens that chose both", "coactivation_counts"}, together,
               null_together),
        column({"given the first", "share",
                "share of the first expert's tokens that chose the other too",
                "coactivation_conditional"},
               conditional, null),
        column({"lift", "x", "times as often as if the two were chosen independently", "", 2}, lift,
               null_lift),
        column({"NPMI", "",
                "normalised pointwise mutual information: -1 never together, 0 independent, 1 only "
                "together",
                "coactivation_npmi"},
               npmi, null_npmi)},
       section::coactivation,
       false,
       {}});
  r.tables.push_back(
      {"coactivation_lift",
       "The largest lift of each layer",
       "Of all pairs, however rarely chance would bring them together: of few tokens that is one "
       "chance meeting. The chance value is the largest lift under random routing.",
       Chart::none,
       {column({"layer", "", "absolute layer number", ""}, shape_.number),
        column({"largest lift", "x", "of all pairs of the layer", "coactivation_max_lift", 2},
               all_lift, null_all)},
       section::coactivation,
       true,
       {}});
  if (best.lift > 0) {
    r.findings.push_back(
        "The closest pair of experts is " + std::to_string(best.i) + " and " +
        std::to_string(best.j) + " of layer " + std::to_string(shape_.number[where]) +
        ": chosen together " + figure(best.lift) +
        "x as often as their loads would give (closest pair of a layer under random routing: " +
        figure(best_null) + "x).");
  }
}

void Coactivation::maps(Report& r) const {
  const Index fit = maps_within(memory_, shape_.max_experts(), shape_.max_experts());
  if (fit < 1) {
    r.warnings.push_back(
        "the maps of experts chosen together are left out: a row for each pair of experts would "
        "take more than --memory allows");
  }
  for (const Index l : shown_layers(shape_.layers(), std::min<Index>(3, fit))) {
    const State& s = state_[std::size_t(l)];
    const Matrix<double> conditional = coactivation_conditional(s.pairs);
    const double e = shape_.experts[std::size_t(l)];
    const double k = double(s.assignments) / double(s.tokens);
    std::vector<std::int64_t> row, col;
    std::vector<double> cell, null;
    for (Index i = 0; i < conditional.rows(); ++i) {
      for (Index j = 0; j < conditional.cols(); ++j) {
        row.push_back(i);
        col.push_back(j);
        cell.push_back(i == j ? no_value : conditional(i, j));
        null.push_back((k - 1) / (e - 1));
      }
    }
    const std::string number = std::to_string(shape_.number[std::size_t(l)]);
    r.tables.push_back(
        {"coactivation_map_" + number,
         "Layer " + number + ": chosen together",
         "Row i, column j: share of expert i's tokens that chose j too; random routing: "
         "(K-1)/(E-1) everywhere. A bright column is merely a busy expert.",
         Chart::heatmap,
         {column({"expert", "", "given", ""}, row), column({"with", "", "chosen too", ""}, col),
          column({"share", "share", "P(column | row)", "coactivation_conditional"}, cell, null)},
         section::coactivation,
         true,
         {}});
  }
}

void Coactivation::report(Report& r) const {
  bool any = false;
  for (const State& s : state_)
    any |= s.assignments > s.tokens;
  if (!any)
    return;  // one expert a token: nothing is chosen together
  pairs(r);
  maps(r);
}

}  // namespace

std::unique_ptr<Metric> make_coactivation_metric(Spec& spec, const TraceSource& trace,
                                                 const AnalyzeOptions& o) {
  const std::int64_t bytes = (o.values ? 2 : 1) * pair_bytes(trace);
  if (bytes <= o.memory)
    return std::make_unique<Coactivation>(spec, trace, o.values != nullptr, o.memory);
  spec.get("top", 10, 1);  // known, as where it is measured
  return left_out("which experts are chosen together", bytes, o.memory);
}

}  // namespace moe
