// How well a predictor, whose ranking stands in the trace, foretold the experts: for prefetching,
// token by token, and for the loads as a whole.
#include <cmath>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/layout.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// 1..n, equals share their mean rank
std::vector<double> ranks_of(const std::vector<std::int64_t>& v) {
  std::vector<std::size_t> by(v.size());
  std::iota(by.begin(), by.end(), std::size_t{0});
  std::sort(by.begin(), by.end(), [&](auto a, auto b) { return v[a] < v[b]; });
  std::vector<double> out(v.size());
  for (std::size_t i = 0; i < by.size();) {
    std::size_t last = i;
    while (last + 1 < by.size() && v[by[last + 1]] == v[by[i]])
      ++last;
    for (std::size_t j = i; j <= last; ++j)
      out[by[j]] = double(i + last) / 2 + 1;
    i = last + 1;
  }
  return out;
}

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  const auto dot = [](const auto& x, const auto& y) {
    return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
  };
  const double size = std::sqrt(dot(a, a) * dot(b, b));
  return size > 0 ? dot(a, b) / size : 0;
}

std::vector<double> centred(std::vector<double> v) {
  const double mean = std::accumulate(v.begin(), v.end(), 0.0) / double(v.size());
  for (double& x : v)
    x -= mean;
  return v;
}

class Prefetch final : public Metric {
 public:
  Prefetch(Spec& spec, const TraceSource& trace)
      : shape_(trace),
        sizes_(whole_list_of(spec, "prefetch_sizes", "1,2,4,8", 1)),
        has_(trace.fields().predicted),
        layer_(shape_.experts.size()) {
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      layer_[l].found.assign(sizes_.size(), 0);
      layer_[l].actual.assign(std::size_t(shape_.experts[l]), 0);
      layer_[l].predicted = layer_[l].actual;
    }
  }

  TraceFields needs() const override {
    TraceFields f = no_fields;
    f.predicted = has_;
    return f;
  }

  void observe_layer(const Window& w, Index l) override {
    const Matrix<int>& guess = w.rows.layer[l].predicted;
    if (guess.empty())
      return;
    State& s = layer_[l];
    s.ranked = std::max(s.ranked, int(guess.cols()));
    const int experts = shape_.experts[l];
    for (const Index t : w.valid) {
      const auto chosen = w.layer[l].of(t);
      if (chosen.empty())
        continue;
      s.tokens += 1;
      s.assignments += std::int64_t(chosen.size());
      for (const int e : chosen)
        ++s.actual[e];
      const auto row = guess.row(t);
      for (std::size_t j = 0; j < row.size(); ++j) {
        if (row[j] < 0 || row[j] >= experts)
          continue;
        if (j < chosen.size())
          ++s.predicted[row[j]];
        if (std::find(chosen.begin(), chosen.end(), row[j]) == chosen.end())
          continue;
        for (std::size_t i = 0; i < sizes_.size(); ++i) {
          if (int(j) < sizes_[i])
            s.found[i] += 1.0 / double(chosen.size());
        }
      }
    }
  }

  std::vector<MetricValue> values() const override {
    if (!has_)
      return {};
    std::vector<std::vector<double>> recall;
    std::vector<double> alike, order;
    for (const State& s : layer_) {
      recall.emplace_back();
      for (const double f : s.found)
        recall.back().push_back(f / s.tokens);
      const std::vector<double> a(s.actual.begin(), s.actual.end());
      const std::vector<double> p(s.predicted.begin(), s.predicted.end());
      alike.push_back(s.tokens > 0 ? cosine(p, a) : no_value);
      order.push_back(s.tokens > 0
                          ? cosine(centred(ranks_of(s.predicted)), centred(ranks_of(s.actual)))
                          : no_value);
    }
    return {per_layer("prefetch_recall", recall), per_layer("predictor_count_cosine", alike),
            per_layer("predictor_count_spearman", order)};
  }

  void report(Report& r) const override {
    if (!has_ || layer_.empty() || layer_[0].tokens == 0)
      return;
    Values all(values());
    TableBuilder t("prefetch", "How well the predictor predicted the experts", section::deployment);
    t.reading(
        "Recall at m: the share of a token's experts among the predictor's first m; drawing m "
        "experts at random finds m/E. The loads' cosine is high for any predictor when the load "
        "is even.");
    t.layers(shape_.number);
    for (std::size_t i = 0; i < sizes_.size(); ++i) {
      // it ranks no more
      if (i > 0 && sizes_[i] > layer_[0].ranked && sizes_[i - 1] >= layer_[0].ranked)
        continue;
      t.column(concat("recall at ", sizes_[i]))
          .unit("share")
          .meaning("of a token's experts among the first m predicted")
          .of("prefetch_recall")
          .rows(recall(all.at("prefetch_recall").value, i));
    }
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      const double k = double(layer_[l].assignments) / layer_[l].tokens;
      all["predictor_count_cosine"].chance.value.push_back(
          chance::load_jain(shape_.experts[l], k, layer_[l].tokens));
      // Spearman: 1/(E-1) is its variance
      all["predictor_count_spearman"].chance.add(
          {0, 1 / std::sqrt(std::max(1.0, shape_.experts[l] - 1.0))});
    }
    t.column("load cosine")
        .meaning("of predicted and actual counts")
        .of("predictor_count_cosine", all);
    t.column("load rank correlation")
        .meaning("Spearman's, of predicted and actual counts")
        .of("predictor_count_spearman", all);
    t.into(r);
  }

 private:
  struct State {
    std::vector<double> found;                    // (sizes)
    std::vector<std::int64_t> actual, predicted;  // (E)
    double tokens = 0;
    std::int64_t assignments = 0;
    int ranked = 0;  // how many the predictor ranks
  };
  // At size number i; all: (L, sizes).
  Values::Rows recall(const std::vector<double>& all, std::size_t i) const {
    Values::Rows rows;
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      rows.add(all[l * sizes_.size() + i],
               std::min(1.0, double(std::min(sizes_[i], layer_[l].ranked)) / shape_.experts[l]));
    }
    return rows;
  }

  Shape shape_;
  std::vector<int> sizes_;
  bool has_;
  std::vector<State> layer_;
};

}  // namespace

std::unique_ptr<Metric> make_prefetch_metric(Spec& spec, const TraceSource& trace,
                                             const AnalyzeOptions&) {
  return std::make_unique<Prefetch>(spec, trace);
}

}  // namespace moe
