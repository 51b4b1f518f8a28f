// How far the expert of one layer tells that of the next: transitions, information, and the best
// guess.
#include <algorithm>
#include <numeric>
#include <tuple>

#include "analysis/metric/chance.h"
#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/pair_counts.h"
#include "lib/core/text.h"

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
    return concat(shape_.number[l], "→", shape_.number[l + 1]);
  }
  // What random routing gives: the best guess, the base, the information; then, of the first,
  // second, .. of the most travelled steps, tokens, share and lift.
  struct ByLot {
    chance::Value guess, base, information;
    struct Step {
      chance::Value tokens, share, lift;
    };
    std::vector<Step> step;
  };
  ByLot by_lot(Memo&, std::size_t l) const;
  Values layer_values(Memo&) const;
  void summary(Report&, const Values&) const;
  void finding(Report&, const Values&, std::size_t layer) const;
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

CrossLayer::ByLot CrossLayer::by_lot(Memo& memo, std::size_t l) const {
  const int a = shape_.experts[l];
  const int b = shape_.experts[l + 1];
  const std::int64_t n = tokens(state_[l]);
  const std::size_t top = std::size_t(top_);
  const auto& all = memo.get({double(a), double(b), double(n)}, [&] {
    return chance::simulate_steps(a, b, n, 3 + 3 * top, [&](const Counts& j) {
      const auto cols = column_sums(j);
      std::vector<double> out{best_guess_share(j),
                              double(*std::max_element(cols.begin(), cols.end())) / double(n),
                              mutual_information_bits(j)};
      for (const Step& s : most_travelled(j, top)) {
        out.push_back(double(s.tokens));
        out.push_back(s.share);
        out.push_back(s.lift);
      }
      out.resize(3 + 3 * top, no_value);
      return out;
    });
  });
  auto next = all.begin();
  ByLot out{*next++, *next++, *next++, {}};
  for (std::size_t i = 0; i < top; ++i) {
    ByLot::Step step{*next++, *next++, *next++};
    out.step.push_back(step);
  }
  return out;
}

void CrossLayer::transitions(Report& r, Memo& memo) const {
  std::vector<std::string> layers;
  std::vector<std::int64_t> from, to, count;
  std::vector<double> chance_count;
  Values::Rows share, lift;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const auto all = most_travelled(state_[l].first, std::size_t(top_));
    const ByLot lot = by_lot(memo, l);
    for (std::size_t i = 0; i < all.size(); ++i) {
      layers.push_back(step(l));
      from.push_back(all[i].from);
      to.push_back(all[i].to);
      count.push_back(all[i].tokens);
      chance_count.push_back(lot.step[i].tokens.mean);
      share.add(all[i].share, lot.step[i].share);
      lift.add(all[i].lift, lot.step[i].lift);
    }
  }
  TableBuilder t("transitions", "Most travelled steps from layer to layer", section::paths);
  t.reading(
       "First choice to first choice. Random routing sends about 1/E' of every expert's tokens to "
       "each expert of the next layer, but the most travelled of many steps lie above that: the "
       "chance values are those of "
       "the first, second, ... most travelled step.")
      .detail();
  t.key("layers", "from and to, absolute numbers", layers);
  t.key("from", "expert", from).key("to", "expert of the next layer", to);
  t.column("tokens")
      .unit("tokens")
      .meaning("how many took this step")
      .values(count)
      .chance(chance_count);
  t.column("share").unit("share").meaning("of the first expert's tokens").rows(share);
  t.column("lift")
      .unit("x")
      .meaning("times as often as if the layers were independent")
      .digits(2)
      .rows(lift);
  t.into(r);
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
  Values::Rows share;
  for (Index a = 0; a < j.rows(); ++a) {
    const double n = double(rows[std::size_t(a)]);
    for (Index b = 0; b < j.cols(); ++b) {
      row.push_back(a);
      col.push_back(b);
      share.add(n > 0 ? double(j(a, b)) / n : no_value, 1.0 / double(j.cols()));
    }
  }
  TableBuilder t("transition_map",
                 concat("Where the tokens of an expert go next, layers ", step(l)), section::paths);
  t.reading(
       "The step with the most information. Row: first choice before; column: first "
       "choice after; share of the row. Random routing: 1/E' everywhere.")
      .chart(Chart::heatmap)
      .detail();
  t.key("from", "expert", row).key("to", "expert of the next layer", col);
  t.column("share").unit("share").meaning("of the row's tokens").rows(share);
  t.into(r);
}

Values CrossLayer::layer_values(Memo& memo) const {
  Values all(values());
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const ByLot lot = by_lot(memo, l);
    all["crosslayer_predictability"].chance.add(lot.guess);
    all["crosslayer_base"].chance.add(lot.base);
    all["crosslayer_mi_bits"].chance.add(lot.information);
  }
  return all;
}

void CrossLayer::summary(Report& r, const Values& values) const {
  std::vector<std::string> layers;
  for (std::size_t l = 0; l < state_.size(); ++l)
    layers.push_back(step(l));
  TableBuilder t("crosslayer", "How far one layer tells the next", section::paths);
  t.reading(
       "Best guess: how often the most frequent follower of a token's expert is right, on the same "
       "trace; base: how often always guessing the busiest expert is. What counts is the distance "
       "of the two. "
       "Random routing gives both a little more than 1/E.")
      .chart(Chart::lines);
  t.key("layers", "from and to, absolute numbers", layers);
  t.column("best guess")
      .unit("share")
      .meaning("right guesses of the next first choice from this one")
      .of("crosslayer_predictability", values);
  t.column("base")
      .unit("share")
      .meaning("right guesses without looking")
      .of("crosslayer_base", values);
  t.column("information")
      .unit("bits")
      .meaning("mutual information of the two first choices")
      .of("crosslayer_mi_bits", values);
  t.into(r);
}

void CrossLayer::report(Report& r) const {
  if (state_.empty() || tokens(state_[0]) == 0)
    return;
  Memo memo;
  const Values values = layer_values(memo);
  const Values::Rows& information = values.at("crosslayer_mi_bits");
  const auto above = [&](std::size_t l) {
    return information.value[l] - information.chance.value[l];
  };
  std::size_t best = 0;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    if (above(l) > above(best))
      best = l;
  }
  summary(r, values);
  transitions(r, memo);
  map(r, best);
  finding(r, values, best);
}

void CrossLayer::finding(Report& r, const Values& values, std::size_t l) const {
  const Values::Rows& guess = values.at("crosslayer_predictability");
  const Values::Rows& base = values.at("crosslayer_base");
  r.findings.push_back(concat("A token's expert tells most about the next layer's between layers ",
                              step(l), ": the best guess is right in ", percent(guess.value[l]),
                              " of cases, always guessing the busiest in ", percent(base.value[l]),
                              " (random routing: ", percent(guess.chance.value[l]), " and ",
                              percent(base.chance.value[l]), ")."));
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
