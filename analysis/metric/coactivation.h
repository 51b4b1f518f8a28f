// Which experts are chosen together, over all pairs of a token's choices (not only neighbouring
// ranks). coactivation.cpp counts, coactivation_report.cpp says what came out.
#pragma once
#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"

namespace moe {

class CoactivationMetric final : public Metric {
 public:
  CoactivationMetric(Spec& spec, const TraceSource& trace, bool adjacent, std::int64_t memory);

  TraceFields needs() const override;

  void observe_layer(const Window& w, Index l) override;

  // Until the last window both tables hold a pair once, at one of its two places: half the work.
  void finish() override;

  std::vector<MetricValue> values() const override;

  void report(Report&) const override;

 private:
  struct State {
    Counts pairs;     // (E,E)
    Counts adjacent;  // (E,E) of neighbouring ranks alone; empty where nobody asks
    std::int64_t tokens, assignments;
  };
  struct Pair {
    Index i, j;
    double lift;
  };
  // by lift, among pairs that chance would bring together at least 5 times
  std::vector<Pair> sorted(const State& s) const;
  static double choices(const State&);  // of a token
  const chance::ClosestPairs& by_lot(std::size_t layer) const;
  struct Listed;
  void list(std::size_t layer, const chance::ClosestPairs&, Listed&) const;
  void pairs(Report&) const;
  void finding(Report&) const;
  std::string no_pairs() const;
  void table_of_pairs(Report&, const Listed&) const;
  void map(Report&, Index layer) const;
  void maps(Report&) const;

  Shape shape_;
  std::int64_t memory_;
  int top_;
  std::vector<State> state_;
};

}  // namespace moe
