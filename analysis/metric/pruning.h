// What each expert adds: scores that pruning goes by (REAP 2510.13999, EAN), from the norms of the
// chosen experts' outputs, and whether the router's order is the order of those norms. pruning.cpp
// sums up, pruning_report.cpp says what came out.
#pragma once
#include "analysis/metric/layout.h"

namespace moe {

class PruningMetric final : public Metric {
 public:
  explicit PruningMetric(const TraceSource& trace);

  TraceFields needs() const override;

  void observe_layer(const Window& w, Index l) override;

  std::vector<MetricValue> values() const override;

  void report(Report& r) const override;

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
                                  const std::vector<std::int64_t>& count);
  const char* score_id() const;
  std::vector<double> scores(const State& s) const;
  void least(Report& r) const;
  // A row an expert; beside its value the mean over the experts of its layer.
  static void add_rows(Values::Rows& rows, const std::vector<double>& of_experts);
  void more(Report& r) const;
  // The smallest mean over experts when every expert's choices are drawn from all alike.
  chance::Value least_by_lot(const State& s) const;
  void scores_table(Report& r) const;

  Shape shape_;
  bool has_norm_, has_weight_;
  std::vector<State> layer_;
};

}  // namespace moe
