// What a plan of placement would bring to text that it was not made from: planned on every second
// sequence of each domain, judged on the others in a second pass, with intervals over their
// sequences. Beside it the experts in order, which is what a server does without a plan.
#pragma once
#include <array>

#include "analysis/metric/halves.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/place_plan.h"

namespace moe {

// A figure of one layer: [0] the judged text as it is, then a value a replica of its sequences.
using PlaceFigure = std::vector<double>;

struct PlaceJudged {  // of one layer, under one plan
  PlaceFigure balancedness;
  PlaceFigure nodes;   // a token: other nodes that get a copy of it
  PlaceFigure copies;  // a token: choices that other nodes compute
};

class PlaceMetric final : public Metric {
 public:
  PlaceMetric(Spec&, const TraceSource&, const AnalyzeOptions&);

  TraceFields needs() const override {
    return no_fields;
  }
  void observe_layer(const Window&, Index layer) override;
  // Every second step in the place of sequences; what crosses between nodes cannot be told.
  bool counts_suffice() const override {
    return true;
  }
  void observe_counts(const CountWindow&, Index layer) override;
  void finish() override;
  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  struct State {
    std::array<PlaceLoads, 2> half;        // planned on the first, judged on the second
    std::array<std::int64_t, 2> tokens{};  // -1 = not known, where an engine counted
    std::int64_t choices = 0;
    PlacePlan plan, plan_of_half, in_order;  // of all tokens; of the first half; without
    PlaceJudged planned, plain;
    // (nodes) tokens of the judged half that came from each node
    std::vector<double> from;
  };

  PlaceLoads both(const State&) const;
  std::vector<chance::Value> balance_by_chance(const State&, int experts, int k) const;
  chance::Value traffic_by_chance(const State&, const PlacePlan&, int k, bool dedup) const;
  void table(Report&, const std::vector<std::size_t>& used) const;
  struct Saved {  // a share of what there would be with experts in order
    PlaceFigure figure;
    double by_chance;  // by random routing
  };
  Saved saved_work(const std::vector<std::size_t>& used) const;
  Saved saved_traffic(const std::vector<std::size_t>& used) const;
  int choices_of(std::size_t layer) const;  // of a token; 0 = not known
  void judge();
  void verdict(Report&, const std::vector<std::size_t>& used) const;
  PlaceFigure gain(const State&) const;

  const TraceSource& trace_;
  AnalyzeOptions options_;
  Shape shape_;
  PlaceShape place_;
  std::string policy_;
  bool together_ = false, counted_ = false;
  Halves halves_;
  std::vector<State> layer_;
};

// The second pass: loads of GPUs and traffic between nodes of the tokens of the second half, with
// replicas of their sequences.
class PlaceJudge final : public Metric {
 public:
  struct Layer {
    const PlacePlan *planned, *plain;
  };
  PlaceJudge(const TraceSource&, const PlaceShape&, std::vector<Layer>, const AnalyzeOptions&);

  TraceFields needs() const override;
  void observe_layer(const Window&, Index layer) override;
  void finish() override;
  std::vector<MetricValue> values() const override {
    return {};
  }
  void report(Report&) const override {}

  PlaceJudged planned(std::size_t layer) const;
  PlaceJudged plain(std::size_t layer) const;
  const std::vector<double>& from(std::size_t layer) const {
    return state_[layer].from;
  }

 private:
  static constexpr std::size_t sums = 5;  // tokens; nodes and copies, planned and plain
  struct State {
    std::array<Matrix<int>, 2> target;  // (N,E) of the plan, and without
    std::vector<std::uint32_t> counts;  // (E,W) choices of the replicas
    std::array<std::vector<double>, sums> sum;
    // of the sequence being read
    std::vector<std::int64_t> pending;
    std::array<double, sums> pending_sum{};
    std::vector<int> touched;
    std::int64_t sequence = -1;
    std::vector<std::uint32_t> weight;
    std::vector<double> from;
  };
  void token(State&, const Window&, Index layer, Index t) const;
  void traffic(State&, std::span<const int> experts, int node, double share) const;
  void close(State&) const;
  PlaceFigure ratio(const State&, std::size_t over) const;
  PlaceFigure balancedness(const State&, const PlacePlan&) const;

  PlaceShape place_;
  Halves halves_;
  std::vector<Layer> plans_;
  std::size_t width_ = 1;
  std::uint64_t stream_ = 0;
  bool has_rank_ = false;
  std::vector<State> state_;
};

}  // namespace moe
