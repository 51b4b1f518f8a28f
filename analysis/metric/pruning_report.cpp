// What pruning.h counts, as tables and findings.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/metric/pruning.h"
#include "lib/core/text.h"

namespace moe {
void PruningMetric::report(Report& r) const {
  std::int64_t any = 0;
  std::int64_t strange = 0;
  for (const State& s : layer_) {
    any += std::accumulate(s.count.begin(), s.count.end(), std::int64_t{0});
    strange += s.strange;
  }
  if (strange) {
    r.warnings.push_back(
        concat(strange,
               " choices have a combine weight or an output norm that is not a finite "
               "number: what each expert adds is counted without them"));
  }
  if (!has_norm_ || any == 0)
    return;
  least(r);
  scores_table(r);
  more(r);
}

void PruningMetric::least(Report& r) const {
  std::vector<std::int64_t> expert;
  Values values;
  for (const State& s : layer_) {
    const auto all = scores(s);
    const auto low = std::min_element(all.begin(), all.end());
    expert.push_back(low - all.begin());
    values[score_id()].add(*low, least_by_lot(s));
    const double lot = s.ranks.rows() ? 1.0 / double(s.ranks.rows()) : no_value;
    values["norm_rank_contingency"].add(
        s.whole ? double(s.ranks(0, 0)) / double(s.whole) : no_value,
        {lot, std::sqrt(lot * (1 - lot) / double(s.whole))});
  }
  TableBuilder t("pruning", "Which expert adds least", section::redundancy);
  t.reading(concat(
      "The expert with the smallest mean size of what it adds (",
      has_weight_ ? "weight times output norm, REAP" : "output norm",
      "), beside what the least of as many experts "
      "would add if the choices had fallen on them at random. Last column: how often the first "
      "choice is also the one with the largest output; 1/K by chance."));
  t.layers(shape_.number).key("expert", "the one that adds least", expert);
  t.column("adds").meaning("its score").of(score_id(), values);
  t.column("first is largest")
      .unit("share")
      .meaning("tokens whose first choice has the largest output norm")
      .of("norm_rank_contingency", values);
  t.into(r);
}

void PruningMetric::add_rows(Values::Rows& rows, const std::vector<double>& of_experts) {
  const double mean =
      std::accumulate(of_experts.begin(), of_experts.end(), 0.0) / double(of_experts.size());
  for (const double v : of_experts)
    rows.add(v, mean);
}

void PruningMetric::more(Report& r) const {
  std::vector<std::int64_t> layer, expert;
  Values values;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const State& s = layer_[l];
    for (std::size_t e = 0; e < s.count.size(); ++e) {
      layer.push_back(shape_.number[l]);
      expert.push_back(std::int64_t(e));
    }
    add_rows(values["prune_ean_mean"], over(s.norm, s.count));
    add_rows(values["prune_ean_sum"], s.norm);
    add_rows(values["prune_weighted_ean_sum"], s.weighted);
  }
  TableBuilder t("prune_more", "What every expert adds, by other definitions", section::redundancy);
  t.reading(
       "Scores by which experts are pruned, each under the id of its definition "
       "(docs/metrics.md). Beside them the mean over the experts of the layer: what an expert "
       "drawn at random would have.")
      .detail();
  t.layers(layer).key("expert", "expert id", expert);
  t.column("mean norm").meaning("mean norm of its outputs").of("prune_ean_mean", values);
  t.column("sum of norms")
      .meaning("sum of the norms of its outputs")
      .of("prune_ean_sum", values)
      .digits(1);
  if (has_weight_) {
    t.column("weighted sum")
        .meaning("sum of weight times norm")
        .of("prune_weighted_ean_sum", values)
        .digits(1);
  }
  t.into(r);
}

void PruningMetric::scores_table(Report& r) const {
  std::vector<std::int64_t> layer, expert;
  Values values;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const auto all = scores(layer_[l]);
    for (std::size_t e = 0; e < all.size(); ++e) {
      layer.push_back(shape_.number[l]);
      expert.push_back(std::int64_t(e));
    }
    add_rows(values[score_id()], all);
  }
  TableBuilder t("prune_scores", "What every expert adds", section::redundancy);
  t.reading(
       "Mean size of what an expert adds to a token that chose it; an unused expert has 0. "
       "Beside it the mean over experts of the layer: what an expert drawn at random would have.")
      .chart(Chart::heatmap)
      .detail();
  t.layers(layer).key("expert", "expert id", expert);
  t.column("adds").meaning("mean over its tokens").of(score_id(), values);
  t.into(r);
}

}  // namespace moe
