// What crosslayer.h counts, as tables and findings.
#include <algorithm>
#include <cmath>

#include "analysis/metric/crosslayer.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/verdict.h"
#include "lib/core/text.h"

namespace moe {
void CrossLayerMetric::transitions(Report& r, Memo& memo) const {
  std::vector<std::string> layers;
  std::vector<std::int64_t> from, to, count;
  std::vector<double> chance_count;
  Values::Rows share, lift;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const ByLot lot = by_lot(memo, l);
    const auto all = most_travelled(state_[l].first, lot.step.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto& [a, b, tokens, of_first, over_independent] = all[i];
      layers.push_back(step(l));
      from.push_back(a);
      to.push_back(b);
      count.push_back(tokens);
      chance_count.push_back(lot.step[i].tokens.mean);
      share.add(of_first, lot.step[i].share);
      lift.add(over_independent, lot.step[i].lift);
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

void CrossLayerMetric::map(Report& r, std::size_t l) const {
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
    const double n = double(rows[a]);
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

Values CrossLayerMetric::layer_values(Memo& memo) const {
  Values all(values());
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const ByLot lot = by_lot(memo, l);
    all["crosslayer_predictability"].chance.add(lot.guess);
    all["crosslayer_base"].chance.add(lot.base);
    all["crosslayer_mi_bits"].chance.add(lot.information);
  }
  return all;
}

void CrossLayerMetric::summary(Report& r, const Values& values) const {
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

void CrossLayerMetric::report(Report& r) const {
  if (state_.empty() || tokens(state_[0]) == 0)
    return;
  Memo& memo = store().memo;
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
  flow(r, values);
  transitions(r, memo);
  map(r, best);
  finding(r, best);
}

void CrossLayerMetric::finding(Report& r, std::size_t l) const {
  const QuotedTable t(r, "crosslayer");
  const Column& bits = t.column("information");
  const double seen = double(tokens(state_[l]));
  const Noise noise{.tokens = seen,
                    .figures = double(state_.size()),
                    .worth = worth_telling * std::log2(double(state_[l].first.cols())),
                    .falls = 1};
  const Standing s =
      standing(t.numbers("information")[l], {bits.chance.at(l), bits.chance_spread.at(l)}, noise);
  const Finding guesses =
      told("the best guess is right in ", t.cell("best guess", l).percent(),
           " of cases, always guessing the busiest in ", t.cell("base", l).percent(),
           " (random routing: ", t.chance("best guess", l).percent(), " and ",
           t.chance("base", l).percent(), ").");
  switch (s.shown) {
    case Shown::more:
      return tell(r, "A token's expert tells most about the next layer's between layers ",
                  t.cell("layers", l), ": ", guesses);
    case Shown::no_more:
      return tell(r, Priority::chance,
                  "A token's expert tells no more about the next layer's than under random "
                  "routing: between layers ",
                  t.cell("layers", l), " ", guesses);
    case Shown::too_few:
      return tell(r, too_few(seen, "whether one layer's expert tells the next one's", s.needed),
                  " Between layers ", t.cell("layers", l), " ", guesses);
  }
}

}  // namespace moe
