// Whether the next token keeps its experts. Pairs are tokens of one sequence whose positions differ
// by the lag, neither of them padding; sequences may be interleaved, as decoding engines write
// them. repeats.cpp counts, repeats_report.cpp says what came out.
#pragma once
#include <unordered_map>

#include "analysis/metric/layout.h"

namespace moe {

class RepeatsMetric final : public Metric {
 public:
  RepeatsMetric(Spec& spec, const TraceSource& trace);

  TraceFields needs() const override;

  void observe_layer(const Window& w, Index l) override;

  std::vector<MetricValue> values() const override;

  void report(Report&) const override;

  struct Block {                      // of consecutive valid tokens
    std::vector<std::uint64_t> seen;  // (words)
    int tokens = 0;
    double sum = 0, blocks = 0;
  };

  struct Past {  // a token; its experts are bits of Recent::bits
    std::uint32_t position = 0;
    int count = -1, first = -1;  // -1: nothing here yet
  };

  // of one sequence: a ring of tokens at least as long as the longest lag, a token at position %
  // ring
  struct Recent {
    std::vector<Past> past;
    std::vector<std::uint64_t> bits;  // (ring, words)
    std::int64_t last = -2;           // position of the token before
  };

  struct State {
    std::vector<double> overlap, pairs;  // (lags)
    std::vector<Block> blocks;
    std::vector<std::uint64_t> now;                  // (words) experts of the token being read
    std::unordered_map<std::uint32_t, Recent> open;  // sequences not yet at their end
    Recent* current = nullptr;
    std::uint32_t sequence = 0;
    double neighbours = 0, same_first = 0, same_any = 0;
    std::int64_t assignments = 0, tokens = 0;
    bool ranked = true;  // first choices are known
  };

  struct Asked {
    std::vector<int> lags, blocks;
    std::vector<TraceSequence> lengths;
    std::size_t ring = 1;  // a power of 2
  };

 private:
  static double choices(const State&);  // of a token
  void finding(Report&) const;
  // what neighbours keep, from a column of the table of neighbours
  void kept(Report&, const char* column, const char* what) const;
  void neighbouring(Report&, const Values&) const;
  void lags(Report&, const Values&) const;
  void distinct(Report&) const;
  std::size_t words(Index l) const;

  Shape shape_;
  Asked asked_;
  const std::vector<int>& lags_ = asked_.lags;
  std::vector<State> state_;
};

}  // namespace moe
