// Caches of experts under a stream of requests, each in one pass with a state of E numbers: LRU at every size at once, the
// best possible (Belady) at given sizes without looking ahead, and LFU at one size.
#pragma once
#include <cstdint>
#include <vector>

namespace moe {

// The experts in order of their last request. A request finds its expert at some depth (0 = the one requested before); LRU of C
// experts hits exactly when depth < C. Belady with every miss admitted keeps an expert between two requests when fewer than C-1
// others are kept over some moment in between (earliest end first is optimal for intervals of equal worth); what is needed
// to know that is the largest number kept since each expert's last request: one number an expert and size.
class RecencyStack {
 public:
  RecencyStack(int experts, const std::vector<int>& belady_sizes);
  void request(int expert);

  std::int64_t requests() const { return requests_; }
  std::int64_t lru_hits(int size) const;             // any size
  std::int64_t belady_hits(std::size_t which) const { return belady_[which].hits; }
  std::vector<std::int64_t> counts() const { return counts_; }

 private:
  struct Belady {
    int size;
    std::int64_t hits = 0;
    std::vector<int> kept;  // by depth: most experts kept at a moment after the next deeper one's last request, up to this one's
  };
  std::vector<int> order_;              // experts requested so far, the last one first
  std::vector<std::int64_t> depth_;     // (E) hits at each depth
  std::vector<std::int64_t> counts_;    // (E)
  std::vector<Belady> belady_;
  std::int64_t requests_ = 0;
};

// Evicts the resident with the fewest requests of all time, of equals the one not requested for longest.
class LfuCache {
 public:
  LfuCache(int experts, int size) : key_(std::size_t(experts), absent), count_(std::size_t(experts), 0), room_(size) {}
  void request(int expert);
  std::int64_t hits() const { return hits_; }

 private:
  static constexpr std::uint64_t absent = ~std::uint64_t{0};
  static constexpr int time_bits = 34;
  std::vector<std::uint64_t> key_;    // (E) requests, then time of the last one; absent = not resident
  std::vector<std::uint64_t> count_;  // (E) requests of all time
  int room_;
  std::int64_t hits_ = 0;
  std::uint64_t now_ = 0;
};

}  // namespace moe
