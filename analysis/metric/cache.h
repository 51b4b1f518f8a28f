// Would a cache of experts help? Each layer keeps C experts near the processor and fetches the
// others. Requests are those of the tokens one by one, in the order of the trace; simulated on the
// first `tokens` of them. cache.cpp simulates, cache_report.cpp says what came out.
#pragma once
#include <numeric>

#include "analysis/metric/layout.h"
#include "lib/serving/cache_policies.h"

namespace moe {

class CacheMetric final : public Metric {
 public:
  CacheMetric(Spec& spec, const TraceSource& trace);

  TraceFields needs() const override;

  void observe_layer(const Window& w, Index l) override;

  std::vector<MetricValue> values() const override;

  void report(Report&) const override;

  struct Simulation {  // of one layer
    Simulation(int experts, const std::vector<int>& sizes) : recency(experts, sizes) {
      for (const int c : sizes)
        lfu.emplace_back(experts, c);
    }
    void request(int e) {
      recency.request(e);
      for (LfuCache& c : lfu)
        c.request(e);
    }
    std::int64_t static_hits(int size) const {
      auto counts = recency.counts();
      std::sort(counts.rbegin(), counts.rend());
      return std::accumulate(counts.begin(),
                             counts.begin() + std::min<std::ptrdiff_t>(size, std::ssize(counts)),
                             std::int64_t{0});
    }
    RecencyStack recency;
    std::vector<LfuCache> lfu;
    std::int64_t tokens = 0;
  };

 private:
  struct HitRates {  // at one size
    chance::Value lru, lfu, belady, fixed;
  };
  std::vector<HitRates> by_lot(Memo&, std::size_t layer) const;
  std::vector<chance::Value> simulate(int experts, int k, std::int64_t tokens) const;
  Values hit_rates(const std::vector<std::size_t>& used,
                   const std::vector<std::vector<HitRates>>& by_lot) const;
  void table(Report&, const Values&, std::int64_t tokens) const;

  Shape shape_;
  std::vector<int> sizes_;
  std::int64_t most_;
  std::vector<Simulation> layer_;
};

}  // namespace moe
