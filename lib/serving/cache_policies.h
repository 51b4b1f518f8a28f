// Caches of experts under a stream of requests, each in one pass with a state of E numbers: LRU at
// every size at once, the best possible (Belady) at given sizes without looking ahead, and LFU at
// one size.
#pragma once
#include <cstdint>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "lib/serving/recency_tree.h"

namespace moe {

// From this many experts on caches are searched instead of gone through.
constexpr int many_experts = 2048;

// How many others were requested since an expert's last request is its depth (0 = the one requested
// before); LRU of C experts hits exactly when depth < C. Belady with every miss admitted keeps an
// expert between two requests when fewer than C-1 others are kept over every moment in between
// (earliest end first is optimal for intervals of equal worth); what is needed to know that is the
// largest number kept at a moment since each expert's last request: one number an expert and size.
// All stand by expert in 16 bits, and nothing moves: a request renews whole rows of them, many at
// once. An expert 65,535 deep counts as never requested: no cache of fewer experts notices. From
// `many` experts on a tree finds the same.
class RecencyStack {
 public:
  RecencyStack(int experts, const std::vector<int>& belady_sizes, int many = many_experts);
  void request(int expert);

  std::int64_t requests() const {
    return requests_;
  }
  std::int64_t lru_hits(int size) const;  // any size
  std::int64_t belady_hits(std::size_t which) const {
    return belady_hits_[which];
  }
  std::vector<std::int64_t> counts() const {
    return counts_;
  }

  struct Kept {  // what a request does to one size
    std::uint16_t depth, now;
  };

 private:
  void searched(int expert);

  std::size_t padded_;  // E in whole blocks
  // (1 + sizes, padded_) depth, the largest number where there was no request yet; then, for every
  // Belady size, most experts kept at a moment since the last request
  std::vector<std::uint16_t> rows_;
  std::vector<std::int64_t> depth_;   // (E) hits at each depth
  std::vector<std::int64_t> counts_;  // (E)
  std::vector<unsigned> sizes_;       // of Belady
  std::vector<Kept> kept_;            // (sizes) scratch of one request
  std::vector<std::int64_t> belady_hits_;
  std::int64_t requests_ = 0;
  std::unique_ptr<RecencyTree> tree_;  // of many experts, in the place of rows_
  std::vector<std::uint8_t> hits_;     // (sizes) scratch of one request
};

// Evicts the resident with the fewest requests of all time, of equals the one not requested for
// longest. Residents stand in the order in which they would go; a request moves one up, mostly by a
// place or two. Of `many` experts they stand in a tree.
class LfuCache {
 public:
  LfuCache(int experts, int size, int many = many_experts)
      : size_(std::size_t(size)),
        searched_(experts >= many),
        key_(std::size_t(experts), 0),
        place_(std::size_t(experts), -1),
        count_(std::size_t(experts), 0) {}
  void request(int expert);
  std::int64_t hits() const {
    return hits_;
  }

 private:
  void request_searched(int expert, std::uint64_t before, std::uint64_t key);

  static constexpr int time_bits = 34;
  std::size_t size_;
  bool searched_;
  std::set<std::pair<std::uint64_t, int>> resident_;  // of many experts: key, expert
  std::vector<int> order_;                            // residents, the first to go first
  std::vector<std::uint64_t> key_;                    // (E) requests, then time of the last one
  std::vector<int> place_;            // (E) in order_; -1 = not resident; 0 in resident_
  std::vector<std::uint64_t> count_;  // (E) requests of all time
  std::int64_t hits_ = 0;
  std::uint64_t now_ = 0;
};

}  // namespace moe
