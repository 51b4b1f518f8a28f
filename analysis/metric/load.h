// How evenly tokens spread over experts: the whole trace, and step by step where the trace has
// steps. load.cpp counts and judges, load_report.cpp says what came out.
#pragma once
#include "analysis/metric/layout.h"
#include "analysis/metric/step_sizes.h"
#include "analysis/metric/verdict.h"
#include "lib/core/load.h"

namespace moe {

class LoadMetric final : public Metric {
 public:
  // options: topn (1,2,4), tile_sizes (16,128)
  LoadMetric(Spec&, const TraceSource&, const AnalyzeOptions&);

  TraceFields needs() const override;
  void observe_layer(const Window&, Index layer) override;
  bool counts_suffice() const override {
    return true;
  }
  void observe_counts(const CountWindow&, Index layer) override;
  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  struct State {
    std::vector<std::int64_t> counts, step_counts;
    std::vector<double> importance;
    // sums of squares of weights, and of the tokens' sums of weights
    double weight_squares = 0, token_squares = 0;
    std::int64_t tokens = 0;  // -1: not known
    std::uint32_t step = 0;
    std::int64_t step_tokens = 0;  // of the step being read; -1: not known
    StepSizes sizes;
    double step_cv = 0, step_maxvio = 0;
  };
  struct Done {  // of one layer
    LoadFigures all;
    double cv_batch, maxvio_batch;
    double k, tokens;  // NaN: not known
    StepSizes sizes;
  };
  // The figures of one layer's counts, those of a list option under "ID N" ("load_topn_coverage
  // 2"), and what random routing gives for them, in the same order.
  using Figures = std::vector<std::pair<std::string, double>>;
  using ByChance = std::map<std::string, chance::Value>;

  static void count_step(State&, const Window&, const LayerChoices&, std::size_t from,
                         std::size_t to);
  static void add_counts(const int* id, Index n, State&);
  static void add_weights(State&, const Window&, Index layer);
  static void end_step(State&);
  Done done(std::size_t layer) const;
  Figures figures(const LoadFigures&, std::span<const std::int64_t> counts) const;
  ByChance simulated(Memo&, int experts, int k, std::int64_t tokens) const;
  static double importance_cv(const State&);
  static double importance_chance(const State&);
  Values judged() const;  // every figure of every layer beside what random routing gives

  void summary(Report&, const Values&) const;
  void more(Report&, const Values&) const;
  void list_options(TableBuilder&, const Values&) const;
  bool tokens_known() const;
  std::string chance_cv(const Done&) const;
  struct Cells;
  Cells cells() const;
  void shares(Report&) const;
  void histogram(Report&) const;
  Evidence evidence(const Threshold&, const chance::Reach&) const;
  moe::Cells dead_counts() const;
  void most_uneven(Report&) const;
  void dead_experts(Report&) const;
  void layers_without_choices(Report&) const;

  Shape shape_;
  std::vector<int> topn_, tiles_;
  Threshold cv_, maxvio_, dead_;  // which the lights and findings go by
  bool has_weights_, counted_;    // counted_: by the engine, there are no tokens
  std::vector<State> layer_;
};

}  // namespace moe
