// Experts spread over ranks and nodes (expert parallelism): how uneven the ranks are, and what
// all-to-all has to send. Experts stand on ranks in order, rank = e R / E, and ranks on nodes
// likewise; counts per rank and per step are all that is kept. ranks.cpp counts, ranks_report.cpp
// says what the counts mean.
#pragma once
#include "analysis/metric/layout.h"
#include "analysis/metric/step_sizes.h"
#include "analysis/metric/verdict.h"

namespace moe {

class RanksMetric final : public Metric {
 public:
  // options: ep_size (as recorded, else usual_ranks()), num_nodes (2, or 1 where ep_size is odd)
  RanksMetric(Spec&, const TraceSource&, const AnalyzeOptions&);

  TraceFields needs() const override;
  void observe_layer(const Window&, Index layer) override;
  bool counts_suffice() const override {
    return true;
  }
  // balance alone: what is sent depends on which experts share a token
  void observe_counts(const CountWindow&, Index layer) override;
  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

  // What the ranks did that computed the tokens, where the trace says which: an expert's rows were
  // computed by the rank of the source's group that had the expert.
  struct Recorded {
    std::vector<int> owner_of;               // (E): place in a group
    std::vector<std::int64_t> tokens, rows;  // by rank, up to the last step that ended
    std::vector<std::int64_t> now;           // rows of the step
    double imbalance = 0;                    // summed over steps
    std::int64_t steps = 0;
  };
  struct State {  // of one layer
    // (E) choices, and those up to the last step that ended
    std::vector<std::int64_t> counts, before;
    std::vector<int> rank_of, node_of;  // (E)
    // (E): the rank of an expert at the largest size, as a bit
    std::vector<std::uint64_t> bit;
    // (E): its rank and node at ep_size; up to 64 ranks
    std::vector<std::uint64_t> rank_bit, node_bit;
    // (sizes) distinct ranks, summed over tokens
    std::vector<std::int64_t> at_size;
    std::vector<std::int64_t> seen_rank, seen_node;  // token that last met it
    Matrix<std::int64_t> tokens_to, copies_to;       // (R,R) by source and destination
    std::int64_t tokens = 0;                         // -1: not known
    std::int64_t assignments = 0, ranks = 0, nodes = 0, sends = 0, foreign = 0;
    std::int64_t tokens_before = 0;  // up to the last step that ended
    StepSizes sizes;
    double imbalance = 0;
    std::uint32_t step = 0;
    Recorded recorded;
  };

 private:
  struct Load {  // over the ranks
    double mean, most;
  };
  static Load rank_load(std::span<const std::int64_t> counts, int ranks);
  static double balancedness(std::span<const std::int64_t> counts, int ranks);  // none: NaN
  static double choices(const State&);  // of a token; NaN: not known
  void prepare(State&, int experts) const;
  void sent_values(std::vector<MetricValue>&) const;
  void own(State&, std::span<const int> chosen, int source) const;
  void end_step(State&) const;
  chance::Value chance_balancedness(Memo&, std::size_t layer, int ranks, std::int64_t tokens,
                                    bool imbalance) const;

  void add_size(Values&, Memo&, std::size_t size) const;
  void by_size(Report&, Memo&) const;
  Evidence evidence() const;  // of the balancedness of the layers
  void finding(Report&) const;
  std::string uneven_cut() const;
  Values layer_values(Memo&) const;
  void by_layer(Report&, Memo&) const;
  void add_sends(TableBuilder&, const Values&) const;
  void whole(Report&, Memo&) const;
  void add_sent(Values&, int from, int to) const;
  void matrix(Report&) const;
  // ranks_recorded.cpp
  static int recorded_owners(const TraceSource&, const Shape&);
  void record(State&, const LayerRows&, Index t, int rank) const;
  static void end_recorded_step(Recorded&);
  Recorded recorded_in_all() const;
  void recorded(Report&) const;
  // The rank of a token as one of the ranks at ep_size; -1 where the trace does not say.
  int source_of(const TraceRows& rows, Index t) const {
    if (rows.rank.empty())
      return -1;
    const int rank = rows.rank[std::size_t(t)];
    return folded() ? rank % owners_ : rank;
  }
  bool folded() const {  // each group that shared experts out counts as one
    return owners_ > 1 && ep_ == owners_;
  }

  Shape shape_;
  int owners_;  // ranks that shared the experts out when this was recorded; 0 = not known
  int ep_, nodes_;
  int told_;                 // the size that the finding speaks of
  Threshold threshold_;      // of ep_balancedness
  bool has_rank_, counted_;  // counted_: by the engine, there are no tokens
  std::vector<int> sizes_;   // of the sweep
  std::vector<State> layer_;
};

}  // namespace moe
