// How sure the router is of its choice. From logits where the trace has them; entropy, margin and
// logsumexp otherwise from the values stored per token. router.cpp sums up, router_report.cpp says
// what came out.
#pragma once
#include "analysis/metric/layout.h"

namespace moe {

// Of the softmax of a row of logits, nats.
double entropy_of_logits(std::span<const float> logits);

// The median of numbers in 0..1 in bounded memory: exact for up to 65,536 of them, beyond that from
// 65,536 bins, each value off by half a bin (7.6e-6) at most.
class BoundedMedian {
 public:
  void add(float v) {
    if (bins_.empty() && values_.size() < most)
      return values_.push_back(v);
    if (bins_.empty()) {
      bins_.assign(most, 0);
      count_ = std::int64_t(values_.size());
      for (const float old : values_)
        ++bins_[bin(old)];
      values_ = {};
    }
    ++bins_[bin(v)];
    ++count_;
  }
  double value() const {
    if (!bins_.empty())
      return (at((count_ - 1) / 2) + at(count_ / 2)) / 2;
    if (values_.empty())
      return no_value;
    std::vector<float> v = values_;
    std::sort(v.begin(), v.end());
    const std::size_t half = v.size() / 2;
    return v.size() % 2 ? double(v[half]) : (double(v[half - 1]) + double(v[half])) / 2;
  }

 private:
  static constexpr std::size_t most = 65536;
  static std::size_t bin(float v) {
    return std::min(most - 1, std::size_t(double(v) * double(most)));
  }
  double at(std::int64_t rank) const {
    std::size_t b = 0;
    for (std::int64_t below = bins_[0]; below <= rank; below += bins_[++b]) {
    }
    return (double(b) + 0.5) / double(most);
  }
  std::vector<float> values_;
  std::vector<std::int64_t> bins_;
  std::int64_t count_ = 0;
};

class RouterMetric final : public Metric {
 public:
  explicit RouterMetric(const TraceSource& trace);

  TraceFields needs() const override;

  void observe_layer(const Window& w, Index l) override;

  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  struct Sums {                  // of one layer, over tokens
    double entropy_squares = 0;  // of the tokens' entropies
    double tokens = 0, entropy = 0, margin = 0, top1 = 0, topk = 0, variance = 0, z = 0;
    // how many had one: stored values may be NaN
    double entropy_tokens = 0, margin_tokens = 0, z_tokens = 0;
    std::vector<double> mean_p, counts;  // (E)
    BoundedMedian ratio;                 // p_(2)/p_(1) of every token
    double assignments = 0;
    // aux_sequence: the sequence being read, and the mean over those that ended
    std::uint32_t sequence = 0;
    double seq_tokens = 0, seq_assignments = 0, aux_sum = 0, sequences = 0;
    std::vector<double> seq_p, seq_counts;
  };
  static void stored(Sums&, const LayerRows&, Index t);
  static void logits(Sums&, std::span<const float> z, std::uint32_t sequence,
                     std::span<const int> chosen);
  static void add_probabilities(Sums&, std::span<const double> p);
  static void add_chosen(Sums&, std::vector<double> p, std::span<const int> chosen);
  static void end_sequence(Sums& s);
  double aux_concat() const;
  bool known(std::string_view id) const;
  Values with_chance(std::vector<MetricValue>) const;
  void more(Report&, const Values&) const;
  void over_all_layers(Report&, const Values&) const;
  double entropy_error(std::size_t layer) const;  // standard error of the mean, over ln E
  void finding(Report&) const;

  Shape shape_;
  TraceFields has_;
  std::vector<Sums> sums_;
};

}  // namespace moe
