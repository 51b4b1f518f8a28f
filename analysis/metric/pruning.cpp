// What each expert adds: scores that pruning goes by (REAP 2510.13999, EAN), from the norms of the
// chosen experts' outputs, and whether the router's order is the order of those norms.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "analysis/metric/layout.h"
#include "lib/core/text.h"

namespace moe {
namespace {

class Pruning final : public Metric {
 public:
  explicit Pruning(const TraceSource& trace)
      : shape_(trace),
        has_norm_(trace.fields().out_norm),
        has_weight_(trace.fields().weights),
        layer_(shape_.experts.size()) {
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      const auto n = std::size_t(shape_.experts[l]);
      layer_[l].norm.assign(n, 0);
      layer_[l].weighted.assign(n, 0);
      layer_[l].count.assign(n, 0);
      layer_[l].ranks = Matrix<std::int64_t>(shape_.top_k[l], shape_.top_k[l]);
    }
  }

  TraceFields needs() const override {
    TraceFields f = no_fields;
    f.out_norm = has_norm_;
    f.weights = has_norm_ && has_weight_;
    return f;
  }

  void observe_layer(const Window& w, Index l) override {
    const LayerRows& rows = w.rows.layer[std::size_t(l)];
    if (rows.out_norm.empty())
      return;
    State& s = layer_[std::size_t(l)];
    const int k = int(s.ranks.rows());
    std::vector<double> norm;
    for (const Index t : w.valid) {
      norm.clear();
      for (Index j = 0; j < rows.expert.cols(); ++j) {
        const int e = rows.expert(t, j);
        if (e < 0)
          continue;
        const double n = rows.out_norm(t, j);
        if (!std::isfinite(n) || (!rows.weight.empty() && !std::isfinite(rows.weight(t, j)))) {
          ++s.strange;
          continue;
        }
        norm.push_back(n);
        const double added = rows.weight.empty() ? n : double(rows.weight(t, j)) * n;
        s.norm[std::size_t(e)] += n;
        ++s.count[std::size_t(e)];
        s.squares += added * added;
        if (!rows.weight.empty())
          s.weighted[std::size_t(e)] += added;
      }
      if (int(norm.size()) != k)
        continue;
      ++s.whole;
      for (int a = 0; a < k; ++a) {
        int larger = 0;
        for (int b = 0; b < k; ++b) {
          larger += norm[std::size_t(b)] > norm[std::size_t(a)] ||
                    (norm[std::size_t(b)] == norm[std::size_t(a)] && b < a);
        }
        ++s.ranks(a, larger);
      }
    }
  }

  std::vector<MetricValue> values() const override {
    if (!has_norm_)
      return {};
    std::vector<std::vector<double>> reap, sum, mean, weighted;
    std::vector<Matrix<double>> ranks;
    for (const State& s : layer_) {
      sum.push_back(s.norm);
      weighted.push_back(s.weighted);
      reap.push_back(over(s.weighted, s.count));
      mean.push_back(over(s.norm, s.count));
      ranks.push_back(as_double(s.ranks));
    }
    std::vector<MetricValue> out{per_layer("prune_ean_sum", sum), per_layer("prune_ean_mean", mean),
                                 per_layer("norm_rank_contingency", ranks)};
    if (has_weight_) {
      out.push_back(per_layer("prune_reap", reap));
      out.push_back(per_layer("prune_weighted_ean_sum", weighted));
    }
    return out;
  }

  void report(Report& r) const override {
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

 private:
  struct State {
    std::vector<double> norm, weighted;  // (E) sums
    double squares = 0;                  // of what single choices add
    std::vector<std::int64_t> count;     // (E)
    Matrix<std::int64_t> ranks;          // (K,K) rank by key, rank by norm
    std::int64_t whole = 0;              // tokens with K experts
    std::int64_t strange = 0;            // choices left out: norm or weight is not finite
  };
  static std::vector<double> over(const std::vector<double>& sum,
                                  const std::vector<std::int64_t>& count) {
    std::vector<double> out(sum.size(), 0);
    for (std::size_t e = 0; e < sum.size(); ++e) {
      if (count[e])
        out[e] = sum[e] / double(count[e]);
    }
    return out;
  }
  const char* score_id() const {
    return has_weight_ ? "prune_reap" : "prune_ean_mean";
  }
  std::vector<double> scores(const State& s) const {
    return over(has_weight_ ? s.weighted : s.norm, s.count);
  }
  void least(Report& r) const {
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
        "would add if the choices had fallen on them by lot. Last column: how often the first "
        "choice is also the one with the largest output; 1/K by chance."));
    t.layers(shape_.number).key("expert", "the one that adds least", expert);
    t.column("adds").meaning("its score").of(score_id(), values);
    t.column("first is largest")
        .unit("share")
        .meaning("tokens whose first choice has the largest output norm")
        .of("norm_rank_contingency", values);
    t.into(r);
  }
  // A row an expert; beside its value the mean over the experts of its layer.
  static void add_rows(Values::Rows& rows, const std::vector<double>& of_experts) {
    const double mean =
        std::accumulate(of_experts.begin(), of_experts.end(), 0.0) / double(of_experts.size());
    for (const double v : of_experts)
      rows.add(v, mean);
  }
  void more(Report& r) const {
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
    TableBuilder t("prune_more", "What every expert adds, by other definitions",
                   section::redundancy);
    t.reading(
         "Scores by which experts are pruned, each under the id of its definition "
         "(docs/metrics.md). Beside them the mean over the experts of the layer: what an expert "
         "drawn by lot would have.")
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
  // The smallest mean over experts when every expert's choices are drawn from all alike.
  chance::Value least_by_lot(const State& s) const {
    const double n = double(std::accumulate(s.count.begin(), s.count.end(), std::int64_t{0}));
    const double experts = double(s.count.size());
    const auto& sums = has_weight_ ? s.weighted : s.norm;
    const double mean = std::accumulate(sums.begin(), sums.end(), 0.0) / n;
    const double spread = std::sqrt(std::max(0.0, s.squares / n - mean * mean));
    std::vector<double> least;
    for (int run = 0; run < 100; ++run) {
      Rng rng(chance::seed, std::uint64_t(run));
      double low = std::numeric_limits<double>::infinity();
      const int k = std::clamp(int(s.ranks.rows()), 1, int(experts));
      for (const std::int64_t c :
           chance::draw_counts(int(experts), k, std::max<std::int64_t>(1, rounded(n / k)), rng)) {
        double sum = c > 8 ? double(c) * mean + std::sqrt(double(c)) * spread * rng.normal() : 0;
        for (std::int64_t i = 0; i < c && c <= 8; ++i)
          sum += mean + spread * std::sqrt(3.0) * (2 * rng.uniform() - 1);
        low = std::min(low, c ? sum / double(c) : 0);
      }
      least.push_back(low);
    }
    return chance::of_runs(least);
  }
  void scores_table(Report& r) const {
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
         "Beside it the mean over experts of the layer: what an expert drawn by lot would have.")
        .chart(Chart::heatmap)
        .detail();
    t.layers(layer).key("expert", "expert id", expert);
    t.column("adds").meaning("mean over its tokens").of(score_id(), values);
    t.into(r);
  }

  Shape shape_;
  bool has_norm_, has_weight_;
  std::vector<State> layer_;
};

}  // namespace

std::unique_ptr<Metric> make_pruning_metric(Spec&, const TraceSource& trace,
                                            const AnalyzeOptions&) {
  return std::make_unique<Pruning>(trace);
}

}  // namespace moe
