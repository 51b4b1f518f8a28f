// What each expert adds: scores that pruning goes by (REAP 2510.13999, EAN), from the norms of the chosen experts' outputs, and
// whether the router's order is the order of those norms.
#include "analysis/metric/layout.h"

namespace moe {
namespace {

class Pruning final : public Metric {
 public:
  explicit Pruning(const TraceSource& trace) : shape_(trace), has_norm_(trace.fields().out_norm), has_weight_(trace.fields().weights), layer_(shape_.experts.size()) {
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      const auto n = std::size_t(shape_.experts[l]);
      layer_[l].norm.assign(n, 0), layer_[l].weighted.assign(n, 0), layer_[l].count.assign(n, 0);
      layer_[l].ranks = Matrix<std::int64_t>(shape_.top_k[l], shape_.top_k[l]);
    }
  }

  TraceFields needs() const override {
    TraceFields f = no_fields;
    f.out_norm = has_norm_, f.weights = has_norm_ && has_weight_;
    return f;
  }

  void observe_layer(const Window& w, Index l) override {
    const LayerRows& rows = w.rows.layer[std::size_t(l)];
    if (rows.out_norm.empty()) return;
    State& s = layer_[std::size_t(l)];
    const int k = int(s.ranks.rows());
    std::vector<double> norm;
    for (const Index t : w.valid) {
      norm.clear();
      for (Index j = 0; j < rows.expert.cols(); ++j) {
        const int e = rows.expert(t, j);
        if (e < 0) continue;
        const double n = rows.out_norm(t, j);
        if (!std::isfinite(n) || (!rows.weight.empty() && !std::isfinite(rows.weight(t, j)))) {
          ++s.strange;
          continue;
        }
        norm.push_back(n);
        s.norm[std::size_t(e)] += n, ++s.count[std::size_t(e)];
        if (!rows.weight.empty()) s.weighted[std::size_t(e)] += double(rows.weight(t, j)) * n;
      }
      if (int(norm.size()) != k) continue;
      ++s.whole;
      for (int a = 0; a < k; ++a) {
        int larger = 0;
        for (int b = 0; b < k; ++b) larger += norm[std::size_t(b)] > norm[std::size_t(a)] || (norm[std::size_t(b)] == norm[std::size_t(a)] && b < a);
        ++s.ranks(a, larger);
      }
    }
  }

  std::vector<MetricValue> values() const override {
    if (!has_norm_) return {};
    std::vector<std::vector<double>> reap, sum, mean, weighted;
    std::vector<Matrix<double>> ranks;
    for (const State& s : layer_) {
      sum.push_back(s.norm), weighted.push_back(s.weighted), reap.push_back(over(s.weighted, s.count)), mean.push_back(over(s.norm, s.count)), ranks.push_back(as_double(s.ranks));
    }
    std::vector<MetricValue> out{per_layer("prune_ean_sum", sum), per_layer("prune_ean_mean", mean), per_layer("norm_rank_contingency", ranks)};
    if (has_weight_) out.push_back(per_layer("prune_reap", reap)), out.push_back(per_layer("prune_weighted_ean_sum", weighted));
    return out;
  }

  void report(Report& r) const override {
    std::int64_t any = 0;
    for (const State& s : layer_) any += std::accumulate(s.count.begin(), s.count.end(), std::int64_t{0});
    std::int64_t strange = 0;
    for (const State& s : layer_) strange += s.strange;
    if (strange) r.warnings.push_back(std::to_string(strange) + " choices have a combine weight or an output norm that is not a finite number: what each expert adds is counted without them");
    if (!has_norm_ || any == 0) return;
    std::vector<std::int64_t> least;
    std::vector<double> score, mean, first, lot;
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      const State& s = layer_[l];
      const auto scores = over(has_weight_ ? s.weighted : s.norm, s.count);
      const auto low = std::min_element(scores.begin(), scores.end());
      least.push_back(low - scores.begin()), score.push_back(*low), mean.push_back(std::accumulate(scores.begin(), scores.end(), 0.0) / double(scores.size()));
      first.push_back(s.whole ? double(s.ranks(0, 0)) / double(s.whole) : no_value), lot.push_back(s.ranks.rows() ? 1.0 / double(s.ranks.rows()) : no_value);
    }
    const char* id = has_weight_ ? "prune_reap" : "prune_ean_mean";
    r.tables.push_back({"pruning", "Which expert adds least", "The expert with the smallest mean size of what it adds (" + std::string(has_weight_ ? "weight times output norm, REAP" : "output norm") + "), beside the mean over experts, which is what an expert drawn by lot "
        "would have. Last column: how often the first choice is also the one with the largest output; 1/K by chance.", Chart::none,
        {column({"layer", "", "absolute layer number", ""}, shape_.number), column({"expert", "", "the one that adds least", ""}, least), column({"adds", "", "its score; beside it the mean over experts", id}, score, mean),
         column({"first is largest", "share", "tokens whose first choice has the largest output norm", "norm_rank_contingency"}, first, lot)}, section::redundancy, false, {}});
    scores_table(r, id);
  }

 private:
  struct State {
    std::vector<double> norm, weighted;  // (E) sums
    std::vector<std::int64_t> count;     // (E)
    Matrix<std::int64_t> ranks;          // (K,K) rank by key, rank by norm
    std::int64_t whole = 0;              // tokens with K experts
    std::int64_t strange = 0;            // choices left out: norm or weight is not finite
  };
  static std::vector<double> over(const std::vector<double>& sum, const std::vector<std::int64_t>& count) {
    std::vector<double> out(sum.size(), 0);
    for (std::size_t e = 0; e < sum.size(); ++e)
      if (count[e]) out[e] = sum[e] / double(count[e]);
    return out;
  }
  void scores_table(Report& r, const char* id) const {
    std::vector<std::int64_t> layer, expert;
    std::vector<double> value, mean;
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      const auto scores = over(has_weight_ ? layer_[l].weighted : layer_[l].norm, layer_[l].count);
      const double middle = std::accumulate(scores.begin(), scores.end(), 0.0) / double(scores.size());
      for (std::size_t e = 0; e < scores.size(); ++e) layer.push_back(shape_.number[l]), expert.push_back(std::int64_t(e)), value.push_back(scores[e]), mean.push_back(middle);
    }
    r.tables.push_back({"prune_scores", "What every expert adds", "Mean size of what an expert adds to a token that chose it; an unused expert has 0. Beside it the mean over experts of the layer: what an expert drawn by lot would have.", Chart::heatmap,
        {column({"layer", "", "absolute layer number", ""}, layer), column({"expert", "", "expert id", ""}, expert), column({"adds", "", "mean over its tokens", id}, value, mean)}, section::redundancy, true, {}});
  }

  Shape shape_;
  bool has_norm_, has_weight_;
  std::vector<State> layer_;
};

}  // namespace

std::unique_ptr<Metric> make_pruning_metric(Spec&, const TraceSource& trace, const AnalyzeOptions&) { return std::make_unique<Pruning>(trace); }

}  // namespace moe
