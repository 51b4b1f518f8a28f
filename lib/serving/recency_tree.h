// What RecencyStack counts, for so many experts that rows of all of them cost more than a search: a
// request takes O(log E). Requests stand in the order of time; of each expert only the last one
// counts, so that places are given out anew whenever they run out.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace moe {

// Numbers at places, for suffixes: how large is the largest from a place on. Kept as differences,
// so that adding to all places from one on changes a single number.
class SuffixMaxima {
 public:
  explicit SuffixMaxima(std::size_t places);
  void add_from(std::size_t place, std::int32_t by);
  // Of places `place` .. the last one, of which numbers are never negative; 0 where there are none.
  std::int32_t largest_from(std::size_t place) const;
  std::int32_t last() const {
    return sum_[1];
  }
  std::vector<std::int32_t> numbers() const;
  void set(std::span<const std::int32_t> numbers);  // the places behind them are as the last

 private:
  void join(std::size_t node);

  std::size_t leaves_;
  // (2 leaves) a binary tree: sum of the differences below, and the largest sum of the first ones
  std::vector<std::int32_t> sum_, best_;
};

class RecencyTree {
 public:
  RecencyTree(int experts, std::span<const unsigned> belady_sizes);

  struct Found {
    std::int64_t depth = -1;  // others requested since; -1 = never requested
  };
  // Counts the request; `hits` (sizes) gets 1 where Belady's cache of that size has the expert.
  Found request(int expert, std::span<std::uint8_t> hits);

 private:
  std::size_t live_from(std::size_t place) const;
  void mark(std::size_t place, int by);
  void renumber();

  std::vector<unsigned> sizes_;
  std::size_t places_, next_ = 1;     // place 0 stands for no request
  std::vector<std::size_t> last_;     // (E) place of the last request; 0 = none
  std::vector<std::int32_t> counts_;  // (places + 1) Fenwick tree of places that are a last request
  std::size_t live_ = 0;              // of all
  std::vector<SuffixMaxima> kept_;    // (sizes) most experts kept at the moment of each request
};

}  // namespace moe
