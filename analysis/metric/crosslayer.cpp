// How far the expert of one layer tells that of the next: transitions, information, and the best
// guess.
#include <algorithm>
#include <numeric>
#include <tuple>

#include "analysis/metric/chance.h"
#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/pair_counts.h"

namespace moe {
namespace {

class CrossLayer final : public Metric {
 public:
  CrossLayer(Spec& spec, const TraceSource& trace, bool matrices, std::int64_t memory)
      : shape_(trace), memory_(memory), top_(spec.get("top", 5, 1)) {
    for (std::size_t l = 0; l + 1 < shape_.experts.size(); ++l) {
      const Counts zeros(shape_.experts[l], shape_.experts[l + 1]);
      const Counts none;
      state_.push_back({zeros, matrices ? zeros : none, matrices ? zeros : none});
    }
  }

  TraceFields needs() const override {
    return no_fields;
  }

  void observe_layer(const Window& w, Index l) override {
    if (l + 1 >= shape_.layers())
      return;
    State& s = state_[std::size_t(l)];
    const LayerChoices& a = w.layer[std::size_t(l)];
    const LayerChoices& b = w.layer[std::size_t(l + 1)];
    in_small_cells(s.first, w.valid.size(), [&](auto* cells) {
      for (const Index t : w.valid) {
        if (const int from = a.first(t), to = b.first(t); from >= 0 && to >= 0)
          ++cells[from * s.first.cols() + to];
      }
    });
    if (s.all.empty())
      return;
    count_pairs(a, b, w.valid, s.all);
    // behind the first
    in_small_cells(s.zip, w.valid.size() * std::size_t(std::min(a.width, b.width)),
                   [&](auto* cells) {
                     for (const Index t : w.valid) {
                       const auto from = a.of(t);
                       const auto to = b.of(t);
                       for (std::size_t r = 1; r < std::min(from.size(), to.size()); ++r)
                         ++cells[from[r] * s.zip.cols() + to[r]];
                     }
                   });
  }

  void finish() override {
    for (State& s : state_) {
      for (Index c = 0; c < s.zip.size(); ++c)
        s.zip.data()[c] += s.first.data()[c];
    }
  }

  std::vector<MetricValue> values() const override {
    if (state_.empty())
      return {};
    std::vector<Matrix<double>> all, zip;
    std::vector<double> mi, guess, base;
    for (const State& s : state_) {
      all.push_back(as_double(s.all));
      zip.push_back(as_double(s.zip));
      mi.push_back(mutual_information_bits(s.first));
      guess.push_back(best_guess_share(s.first));
      base.push_back(base_share(s));
    }
    return {per_layer("crosslayer_transition", all), per_layer("crosslayer_rank_zip", zip),
            per_layer("crosslayer_mi_bits", mi), per_layer("crosslayer_predictability", guess),
            per_layer("crosslayer_base", base)};
  }

  void report(Report&) const override;

 private:
  struct State {
    Counts first;  // (E,E') of first choices
    // all pairs of choices; rank with same rank, the first from finish() on; empty where nobody
    // asks
    Counts all, zip;
  };
  static std::int64_t tokens(const State& s) {
    const auto rows = row_sums(s.first);
    return std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
  }
  static double base_share(const State& s) {
    const auto cols = column_sums(s.first);
    return tokens(s) ? double(*std::max_element(cols.begin(), cols.end())) / double(tokens(s))
                     : no_value;
  }
  std::string step(std::size_t l) const {
    return std::to_string(shape_.number[l]) + "→" + std::to_string(shape_.number[l + 1]);
  }
  // then, of the first, second, .. of the most travelled steps: tokens, share, lift
  enum Lot { lot_guess, lot_base, lot_mi, lot_first };
  const std::vector<chance::Value>& by_lot(Memo&, std::size_t l) const;
  void transitions(Report&, Memo&) const;
  void map(Report&, std::size_t l) const;

  Shape shape_;
  std::int64_t memory_;
  int top_;
  std::vector<State> state_;
};

namespace {
struct Step {
  Index from, to;
  std::int64_t tokens;
  double share, lift;
};

std::vector<Step> most_travelled(const Counts& j, std::size_t top) {
  const auto rows = row_sums(j);
  const auto cols = column_sums(j);
  const double n = double(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}));
  std::vector<Step> all;
  for (Index a = 0; a < j.rows(); ++a) {
    for (Index b = 0; b < j.cols(); ++b) {
      if (j(a, b)) {
        all.push_back(
            {a, b, j(a, b), double(j(a, b)) / double(rows[std::size_t(a)]),
             double(j(a, b)) * n / (double(rows[std::size_t(a)]) * double(cols[std::size_t(b)]))});
      }
    }
  }
  top = std::min(all.size(), top);
  std::partial_sort(all.begin(), all.begin() + std::ptrdiff_t(top), all.end(),
                    [](const Step& x, const Step& y) {
                      return std::tie(y.tokens, x.from, x.to) < std::tie(x.tokens, y.from, y.to);
                    });
  all.resize(top);
  return all;
}
}  // namespace

const std::vector<chance::Value>& CrossLayer::by_lot(Memo& memo, std::size_t l) const {
  const int a = shape_.experts[l];
  const int b = shape_.experts[l + 1];
  const std::int64_t n = tokens(state_[l]);
  return memo.get({double(a), double(b), double(n)}, [&] {
    return chance::simulate_steps(a, b, n, lot_first + 3 * std::size_t(top_), [&](const Counts& j) {
      const auto cols = column_sums(j);
      std::vector<double> out{best_guess_share(j),
                              double(*std::max_element(cols.begin(), cols.end())) / double(n),
                              mutual_information_bits(j)};
      for (const Step& s : most_travelled(j, std::size_t(top_))) {
        out.push_back(double(s.tokens));
        out.push_back(s.share);
        out.push_back(s.lift);
      }
      out.resize(lot_first + 3 * std::size_t(top_), no_value);
      return out;
    });
  });
}

void CrossLayer::transitions(Report& r, Memo& memo) const {
  std::vector<std::string> layers;
  std::vector<std::int64_t> from, to, count;
  std::vector<double> null_count, share, lift;
  Nulls null_share, null_lift;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const auto all = most_travelled(state_[l].first, std::size_t(top_));
    const auto& lot = by_lot(memo, l);
    for (std::size_t i = 0; i < all.size(); ++i) {
      layers.push_back(step(l));
      from.push_back(all[i].from);
      to.push_back(all[i].to);
      count.push_back(all[i].tokens);
      null_count.push_back(lot[lot_first + 3 * i].mean);
      share.push_back(all[i].share);
      null_share.add(lot[lot_first + 3 * i + 1]);
      lift.push_back(all[i].lift);
      null_lift.add(lot[lot_first + 3 * i + 2]);
    }
  }
  r.tables.push_back(
      {"transitions",
       "Most travelled steps from layer to layer",
       "First choice to first choice. Random routing sends about 1/E' of every expert's tokens to "
       "each expert of the next layer, but the most travelled of many steps lie above that: the "
       "chance values are those of "
       "the first, second, ... most travelled step.",
       Chart::none,
       {column({"layers", "", "from and to, absolute numbers", ""}, layers),
        column({"from", "", "expert", ""}, from),
        column({"to", "", "expert of the next layer", ""}, to),
        column({"tokens", "tokens", "how many took this step", ""}, count, null_count),
        column({"share", "share", "of the first expert's tokens", ""}, share, null_share),
        column({"lift", "x", "times as often as if the layers were independent", "", 2}, lift,
               null_lift)},
       section::paths,
       true,
       {}});
}

void CrossLayer::map(Report& r, std::size_t l) const {
  const Counts& j = state_[l].first;
  if (maps_within(memory_, int(j.rows()), int(j.cols())) < 1) {
    return r.warnings.push_back(
        "the map of steps from layer to layer is left out: a row for each pair of experts would "
        "take more than --memory allows");
  }
  const auto rows = row_sums(j);
  std::vector<std::int64_t> row, col;
  std::vector<double> cell, null;
  for (Index a = 0; a < j.rows(); ++a) {
    const double n = double(rows[std::size_t(a)]);
    for (Index b = 0; b < j.cols(); ++b) {
      row.push_back(a);
      col.push_back(b);
      cell.push_back(n > 0 ? double(j(a, b)) / n : no_value);
      null.push_back(1.0 / double(j.cols()));
    }
  }
  r.tables.push_back({"transition_map",
                      "Where the tokens of an expert go next, layers " + step(l),
                      "The step with the most information. Row: first choice before; column: first "
                      "choice after; share of the row. Random routing: 1/E' everywhere.",
                      Chart::heatmap,
                      {column({"from", "", "expert", ""}, row),
                       column({"to", "", "expert of the next layer", ""}, col),
                       column({"share", "share", "of the row's tokens", ""}, cell, null)},
                      section::paths,
                      true,
                      {}});
}

void CrossLayer::report(Report& r) const {
  if (state_.empty() || tokens(state_[0]) == 0)
    return;
  const auto all = values();
  std::vector<std::string> layers;
  Nulls null_mi, null_guess, null_base;
  Memo memo;
  std::size_t best = 0;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const auto& lot = by_lot(memo, l);
    layers.push_back(step(l));
    null_guess.add(lot[lot_guess]);
    null_base.add(lot[lot_base]);
    null_mi.add(lot[lot_mi]);
    if (all[2].values[l] - null_mi.value[l] > all[2].values[best] - null_mi.value[best])
      best = l;
  }
  r.tables.push_back(
      {"crosslayer",
       "How far one layer tells the next",
       "Best guess: how often the most frequent follower of a token's expert is right, on the same "
       "trace; base: how often always guessing the busiest expert is. What counts is the distance "
       "of the two. "
       "Random routing gives both a little more than 1/E.",
       Chart::lines,
       {column({"layers", "", "from and to, absolute numbers", ""}, layers),
        column({"best guess", "share", "right guesses of the next first choice from this one",
                "crosslayer_predictability"},
               all[3].values, null_guess),
        column({"base", "share", "right guesses without looking", "crosslayer_base"}, all[4].values,
               null_base),
        column({"information", "bits", "mutual information of the two first choices",
                "crosslayer_mi_bits"},
               all[2].values, null_mi)},
       section::paths,
       false,
       {}});
  transitions(r, memo);
  map(r, best);
  r.findings.push_back("A token's expert tells most about the next layer's between layers " +
                       step(best) + ": the best guess is right in " + percent(all[3].values[best]) +
                       " of cases, always guessing the busiest in " + percent(all[4].values[best]) +
                       " (random routing: " + percent(null_guess.value[best]) + " and " +
                       percent(null_base.value[best]) + ").");
}

}  // namespace

std::unique_ptr<Metric> make_crosslayer_metric(Spec& spec, const TraceSource& trace,
                                               const AnalyzeOptions& o) {
  const std::int64_t bytes = (o.values ? 3 : 1) * pair_bytes(trace);
  if (bytes <= o.memory)
    return std::make_unique<CrossLayer>(spec, trace, o.values != nullptr, o.memory);
  spec.get("top", 5, 1);  // known, as where it is measured
  return left_out("how far one layer tells the next", bytes, o.memory);
}

}  // namespace moe
