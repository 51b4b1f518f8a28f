// How far the expert of one layer tells that of the next: transitions, information, and the best
// guess. crosslayer.cpp counts, crosslayer_report.cpp says what came out.
#pragma once
#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"

namespace moe {

class CrossLayerMetric final : public Metric {
 public:
  CrossLayerMetric(Spec& spec, const TraceSource& trace, bool matrices, std::int64_t memory);

  TraceFields needs() const override;

  void observe_layer(const Window& w, Index l) override;

  void finish() override;

  std::vector<MetricValue> values() const override;

  void report(Report&) const override;

 private:
  struct State {
    Counts first;  // (E,E') of first choices
    // all pairs of choices; rank with same rank, the first from finish() on; empty where nobody
    // asks
    Counts all, zip;
    bool ranked = true;  // first choices are known
  };
  static std::int64_t tokens(const State& s);
  static double base_share(const State& s);
  std::string step(std::size_t l) const;
  // What random routing gives: the best guess, the base, the information; then, of the first,
  // second, .. of the most travelled steps, tokens, share and lift.
  struct ByLot {
    chance::Value guess, base, information;
    struct Step {
      chance::Value tokens, share, lift;
    };
    std::vector<Step> step;
  };
  ByLot by_lot(Memo&, std::size_t l) const;
  struct Travelled {  // a step from an expert to one of the next layer
    Index from, to;
    std::int64_t tokens;
    double share, lift;  // of the first expert's tokens; over what independent layers would give
  };
  static std::vector<Travelled> most_travelled(const Counts&, std::size_t top);
  Values layer_values(Memo&) const;
  void summary(Report&, const Values&) const;
  void finding(Report&, std::size_t layer) const;
  void transitions(Report&, Memo&) const;
  void map(Report&, std::size_t l) const;
  void flow(Report&, const Values&) const;

  Shape shape_;
  std::int64_t memory_;
  int top_;
  std::vector<State> state_;
};

}  // namespace moe
