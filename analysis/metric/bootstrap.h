// How far the headline figures would move with other text of the same kind: a Poisson bootstrap
// over sequences (tokens are not independent, sequences nearly are), beside the metrics in their
// one pass. Every sequence weighs Poisson(1) in each replica, a function of (seed, stream,
// sequence); counts of all replicas are kept: 4 bytes a layer, domain, expert and replica.
#pragma once
#include "analysis/metric/metric.h"

namespace moe {

struct Interval {
  double low, high;  // NaN: not known
};

struct Replicated {            // one figure of one layer
  std::string id;              // definition id
  double parameter;            // capacity factor; NaN where the definition has none
  Index layer;                 // of the trace, from 0
  std::vector<double> values;  // [0] the trace as it is, then a value a replica
  double least, most;          // of the definition's range
};

// 2.5 % to 97.5 % of the replicas, moved so that their mean lies on `at`: resampling adds noise of
// its own to figures such as a CV, and that much is taken off again. Fewer than 20 finite replicas:
// NaN. {0,1,...,100} behind any [0], at 50: {2.5, 97.5}
Interval interval_of(std::span<const double> values, double at, double least, double most);

// Poisson(1) weights of one sequence; out[0] = 1, the trace as it is.
void poisson_weights(std::uint64_t stream, std::uint64_t sequence, std::span<std::uint32_t> out);

class Bootstrap final : public Metric {
 public:
  static constexpr std::size_t least_sequences = 8;  // of fewer, no interval is given
  Bootstrap(const TraceSource&, const AnalyzeOptions&);

  TraceFields needs() const override;
  void observe_layer(const Window&, Index layer) override;
  std::vector<MetricValue> values() const override {
    return {};
  }
  // adds low and high to columns of tables by layer, and says what they are
  void report(Report&) const override;
  std::vector<Replicated> results() const;

 private:
  enum Ratio { entropy, repeat, dedup, ratio_count };  // figures that are a sum over a sum
  struct State {
    std::vector<std::uint32_t> replica;  // (domain slot, E, R): counts
    std::vector<double> over, under;     // (ratios, R)
    std::vector<std::int64_t> pending;   // (E) of the sequence being read
    std::vector<int> touched;            // experts with pending counts
    double pending_over[ratio_count] = {}, pending_under[ratio_count] = {};
    std::vector<std::uint32_t> weight;  // (R)
    std::int64_t sequence = -1;
    int domain = -1, last_first = -1;
    std::uint32_t last_position = 0;
  };

  void token(State&, const Window&, Index layer, Index t) const;
  void close(State&) const;
  std::vector<Replicated> of_layer(std::size_t l) const;
  void counts_of(const State&, std::size_t replica, std::vector<std::int64_t>& all,
                 Matrix<std::int64_t>& by_domain) const;
  void counted(const State&, std::size_t l, std::vector<Replicated>&) const;

  std::vector<int> experts_;
  std::vector<std::int64_t> number_;
  std::size_t width_, slots_ = 1, sequences_;
  std::uint64_t stream_;
  int ranks_ = 1;
  bool entropy_ = false, too_large_ = false;
  std::vector<State> layer_;
};

}  // namespace moe
