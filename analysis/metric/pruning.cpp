#include "analysis/metric/pruning.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace moe {
PruningMetric::PruningMetric(const TraceSource& trace)
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

TraceFields PruningMetric::needs() const {
  TraceFields f = no_fields;
  f.out_norm = has_norm_;
  f.weights = has_norm_ && has_weight_;
  return f;
}

// Of every slot the rank of its norm, ties by slot.
static void count_ranks(const std::vector<double>& norm, Matrix<std::int64_t>& ranks) {
  for (std::size_t a = 0; a < norm.size(); ++a) {
    Index larger = 0;
    for (std::size_t b = 0; b < norm.size(); ++b)
      larger += norm[b] > norm[a] || (norm[b] == norm[a] && b < a);
    ++ranks(Index(a), larger);
  }
}

void PruningMetric::observe_layer(const Window& w, Index l) {
  const LayerRows& rows = w.rows.layer[l];
  if (rows.out_norm.empty())
    return;
  State& s = layer_[l];
  const int k = int(s.ranks.rows());
  std::vector<double> norm;
  const auto& odd = w.odd_weights[l];
  for (const Index t : w.valid) {
    if (!odd.empty() && odd[t])
      continue;
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
      s.norm[e] += n;
      ++s.count[e];
      s.squares += added * added;
      if (!rows.weight.empty())
        s.weighted[e] += added;
    }
    if (int(norm.size()) != k)
      continue;
    ++s.whole;
    count_ranks(norm, s.ranks);
  }
}

std::vector<MetricValue> PruningMetric::values() const {
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

std::vector<double> PruningMetric::over(const std::vector<double>& sum,
                                        const std::vector<std::int64_t>& count) {
  std::vector<double> out(sum.size(), 0);
  for (std::size_t e = 0; e < sum.size(); ++e) {
    if (count[e])
      out[e] = sum[e] / double(count[e]);
  }
  return out;
}

const char* PruningMetric::score_id() const {
  return has_weight_ ? "prune_reap" : "prune_ean_mean";
}

std::vector<double> PruningMetric::scores(const State& s) const {
  return over(has_weight_ ? s.weighted : s.norm, s.count);
}

chance::Value PruningMetric::least_by_lot(const State& s) const {
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

std::unique_ptr<Metric> make_pruning_metric(Spec&, const TraceSource& trace,
                                            const AnalyzeOptions&) {
  return std::make_unique<PruningMetric>(trace);
}

}  // namespace moe
