#include "analysis/metric/crosslayer.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "analysis/metric/pair_counts.h"
#include "lib/core/text.h"

namespace moe {
CrossLayerMetric::CrossLayerMetric(Spec& spec, const TraceSource& trace, bool matrices,
                                   std::int64_t memory)
    : shape_(trace), memory_(memory), top_(spec.get("top", 5, 1)) {
  for (std::size_t l = 0; l + 1 < shape_.experts.size(); ++l) {
    const Counts zeros(shape_.experts[l], shape_.experts[l + 1]);
    const Counts none;
    state_.push_back({zeros, matrices ? zeros : none, matrices ? zeros : none});
  }
}

TraceFields CrossLayerMetric::needs() const {
  return no_fields;
}

void CrossLayerMetric::observe_layer(const Window& w, Index l) {
  if (l + 1 >= shape_.layers())
    return;
  State& s = state_[l];
  const LayerChoices& a = w.layer[l];
  const LayerChoices& b = w.layer[l + 1];
  s.ranked = a.ranked;
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
  in_small_cells(s.zip, w.valid.size() * std::size_t(std::min(a.width, b.width)), [&](auto* cells) {
    for (const Index t : w.valid) {
      const auto from = a.of(t);
      const auto to = b.of(t);
      for (std::size_t r = 1; r < std::min(from.size(), to.size()); ++r)
        ++cells[from[r] * s.zip.cols() + to[r]];
    }
  });
}

void CrossLayerMetric::finish() {
  for (State& s : state_) {
    for (Index c = 0; c < s.zip.size(); ++c)
      s.zip.data()[c] += s.first.data()[c];
  }
}

std::vector<MetricValue> CrossLayerMetric::values() const {
  if (state_.empty())
    return {};
  std::vector<Matrix<double>> all, zip;
  std::vector<double> mi, guess, base;
  for (const State& s : state_) {
    all.push_back(as_double(s.all));
    zip.push_back(s.ranked ? as_double(s.zip)
                           : Matrix<double>(s.zip.rows(), s.zip.cols(), no_value));
    mi.push_back(mutual_information_bits(s.first));
    guess.push_back(best_guess_share(s.first));
    base.push_back(base_share(s));
  }
  return {per_layer("crosslayer_transition", all), per_layer("crosslayer_rank_zip", zip),
          per_layer("crosslayer_mi_bits", mi), per_layer("crosslayer_predictability", guess),
          per_layer("crosslayer_base", base)};
}

std::int64_t CrossLayerMetric::tokens(const State& s) {
  const auto rows = row_sums(s.first);
  return std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
}

double CrossLayerMetric::base_share(const State& s) {
  const auto cols = column_sums(s.first);
  return tokens(s) ? double(*std::max_element(cols.begin(), cols.end())) / double(tokens(s))
                   : no_value;
}

std::string CrossLayerMetric::step(std::size_t l) const {
  return concat(shape_.number[l], "→", shape_.number[l + 1]);
}

std::vector<CrossLayerMetric::Travelled> CrossLayerMetric::most_travelled(const Counts& j,
                                                                          std::size_t top) {
  const auto rows = row_sums(j);
  const auto cols = column_sums(j);
  const double n = double(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}));
  std::vector<Travelled> all;
  for (Index a = 0; a < j.rows(); ++a) {
    for (Index b = 0; b < j.cols(); ++b) {
      if (j(a, b)) {
        all.push_back({a, b, j(a, b), double(j(a, b)) / double(rows[a]),
                       double(j(a, b)) * n / (double(rows[a]) * double(cols[b]))});
      }
    }
  }
  top = std::min(all.size(), top);
  std::partial_sort(all.begin(), all.begin() + std::ptrdiff_t(top), all.end(),
                    [](const Travelled& x, const Travelled& y) {
                      return std::tie(y.tokens, x.from, x.to) < std::tie(x.tokens, y.from, y.to);
                    });
  all.resize(top);
  return all;
}

CrossLayerMetric::ByLot CrossLayerMetric::by_lot(Memo& memo, std::size_t l) const {
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
      for (const Travelled& s : most_travelled(j, top)) {
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

std::unique_ptr<Metric> make_crosslayer_metric(Spec& spec, const TraceSource& trace,
                                               const AnalyzeOptions& o) {
  const std::int64_t bytes = (o.values ? 3 : 1) * pair_bytes(trace);
  if (bytes <= o.memory)
    return std::make_unique<CrossLayerMetric>(spec, trace, o.values != nullptr, o.memory);
  spec.get("top", 5, 1);  // known, as where it is measured
  return left_out("how far one layer tells the next", bytes, o.memory);
}

}  // namespace moe
