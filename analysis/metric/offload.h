// What would running with experts out of memory cost? A layer keeps `cache` experts near the
// processor; the others lie on disk or in the host's memory. Predictors and the order of experts on
// disk are learned from every second sequence of each domain and judged on the others.
// offload_layer.cpp learns and simulates one layer, offload.cpp runs it over a trace,
// offload_report.cpp says what came out.
#pragma once
#include <array>
#include <unordered_map>

#include "analysis/metric/halves.h"
#include "analysis/metric/layout.h"
#include "lib/serving/cache_policies.h"

namespace moe {

// What foretells a token's experts before its layer is reached.
enum class Foresight : std::uint8_t { previous_layer, token_id, last_token, most_used };
constexpr const char* foresight_names[] = {"previous layer", "token id", "last token", "most used"};
constexpr std::size_t foresights = std::size(foresight_names);

// Which experts a cache keeps. The last three are LRU with experts fetched ahead as a predictor
// says.
enum class Keeping : std::uint8_t {
  lru,
  lfu,
  fixed,
  belady,
  lru_previous_layer,
  lru_token_id,
  lru_last_token
};
constexpr const char* keeping_names[] = {"LRU",
                                         "LFU",
                                         "most used",
                                         "Belady",
                                         "LRU + previous layer",
                                         "LRU + token id",
                                         "LRU + last token"};
constexpr std::size_t keepings = std::size(keeping_names);

struct OffloadToken {  // what is known of a token, in one layer
  std::uint32_t id = 0;
  std::span<const int> before;  // its experts in the layer before; empty in the first
  std::span<const int> last;    // of the token before it in its sequence; may be empty
  std::span<const int> experts;
};

struct OffloadShape {
  int experts = 0, before = 0 /*experts of the layer before; 0 = none*/, cache = 1, ahead = 1;
  std::vector<int> sizes;  // of predictions that are judged
};

// One layer: learns, then is judged.
class OffloadLayer {
 public:
  explicit OffloadLayer(OffloadShape);

  void learn(const OffloadToken&);
  void learned();  // nothing more is learned
  void judge(const OffloadToken&);

  const OffloadShape& shape() const {
    return shape_;
  }
  std::int64_t tokens() const {
    return tokens_;
  }
  std::int64_t choices() const {
    return choices_;
  }
  // share of experts among the first sizes[i] foretold, mean over tokens; of no token: NaN
  double recall(Foresight, std::size_t size) const;
  // (T) of each judged token: experts that it waits for, and experts fetched at all
  const std::vector<std::uint16_t>& misses(Keeping k) const {
    return misses_[std::size_t(k)];
  }
  const std::vector<std::uint16_t>& fetched(Keeping k) const {
    return fetched_[std::size_t(k)];
  }
  // Runs of neighbours that hold a token's experts, mean over tokens: in the order of ids, and in
  // the order that was learned.
  double reads_in_order() const;
  double reads() const;
  const std::vector<int>& order() const {  // (E) expert at each place on disk
    return order_;
  }

 private:
  // LRU of a given size; a request of a resident is a hit.
  class Lru {
   public:
    Lru(int experts, int size) : size_(std::size_t(size)), last_(std::size_t(experts), 0) {}
    bool request(int expert);

   private:
    std::size_t size_;
    std::vector<std::uint64_t> last_;  // (E) 0 = not resident
    std::vector<int> held_;
    std::uint64_t now_ = 0;
  };
  using Counts = std::vector<std::pair<int, int>>;  // expert, how often

  void rank(const OffloadToken&, Foresight, std::vector<int>& out) const;
  void fill(std::vector<int>& out) const;  // with the most used
  void chain();
  void judge_recall(const OffloadToken&);
  void judge_caches(const OffloadToken&);
  void judge_ahead(const OffloadToken&, Keeping, Foresight);
  double runs(std::span<const int> experts, const std::vector<int>& place) const;

  OffloadShape shape_;
  std::size_t most_ = 1;  // experts that a prediction ranks
  // learned
  std::vector<std::int64_t> used_;  // (E)
  std::vector<std::int64_t> used_before_;
  Matrix<std::int32_t> after_, together_;  // (E before, E), (E, E)
  std::unordered_map<std::uint32_t, Counts> by_id_;
  std::vector<int> most_used_, order_, place_, place_in_order_;  // (E)
  // judged
  std::int64_t tokens_ = 0, choices_ = 0;
  std::array<std::vector<double>, foresights> found_;
  double reads_ = 0, reads_in_order_ = 0;
  std::array<std::vector<std::uint16_t>, keepings> misses_, fetched_;
  Lru lru_;
  std::array<Lru, 3> ahead_;
  LfuCache lfu_;
  RecencyStack belady_;
  std::vector<char> fixed_;  // (E) held by the cache that never changes
  std::vector<int> ranked_;  // scratch
};

class OffloadMetric final : public Metric {
 public:
  OffloadMetric(Spec&, const TraceSource&, const AnalyzeOptions&);

  TraceFields needs() const override {
    return no_fields;
  }
  void observe_layer(const Window&, Index layer) override;
  void finish() override;
  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

  // One layer's part of a window, of tokens of one half.
  void go_through(const Window&, Index layer, int half);

 private:
  struct Last {  // of each layer: the token before
    std::int64_t sequence = -1;
    std::vector<int> experts;
    std::int64_t tokens = 0;  // of the half
    bool ids = false;         // some token has one
  };
  struct PerToken {                                            // over judged tokens
    double mean = no_value, half = no_value, most = no_value;  // p50, p99
  };
  void give_recalls(std::vector<MetricValue>&) const;
  void give_caches(std::vector<MetricValue>&) const;
  void check_memory(std::int64_t) const;
  PerToken per_token(Keeping, bool waited, bool in_bytes) const;
  double expert_bytes(std::size_t layer) const;
  bool knows_bytes() const;
  std::vector<std::size_t> judged_layers() const;
  std::vector<chance::Value> by_chance(std::size_t layer) const;
  struct ChanceColumns {
    std::vector<double> misses, fetched, bytes;  // a row for each way to keep
  };
  ChanceColumns chance_columns(const std::vector<std::size_t>& used) const;
  std::string reading(const OffloadLayer&) const;
  void report_caches(Report&, const std::vector<std::size_t>& used) const;
  void report_foresight(Report&, const std::vector<std::size_t>& used) const;
  void report_reads(Report&, const std::vector<std::size_t>& used) const;

  const TraceSource& trace_;
  AnalyzeOptions options_;
  Shape shape_;
  Halves halves_;
  std::vector<int> sizes_;
  std::int64_t most_ = 0;
  double bytes_ = 0;
  std::vector<OffloadLayer> layer_;
  std::vector<Last> last_;
};

}  // namespace moe
