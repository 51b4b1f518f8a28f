// Byte pair merging: the adjacent pair with the lowest rank, leftmost where ranks are equal,
// becomes one part, again and again. One engine for merge lists, ranks of texts and scores: each is
// a table from a pair to its rank and what it becomes.
#pragma once
#include <bit>
#include <cstdint>
#include <string_view>
#include <vector>

#include "lib/tokenizer/flat_map.h"

namespace moe {

// A part of a word: an id, or a negative number that no pair has.
struct Part {
  std::int32_t id;
  std::uint32_t bytes;
};

// Most neighbours of a text do not merge, and megabytes of pairs lie outside the near caches: a
// filter of some bits a pair, which fits there, answers for nearly all that have no entry.
class MergeTable {
 public:
  explicit MergeTable(std::size_t expected = 0)
      : pairs_(expected), filter_(std::bit_ceil(expected * kFilterBits + 64) / 64) {}
  // the same pair again: the last one counts
  void add(std::int32_t left, std::int32_t right, std::uint32_t rank, std::int32_t id) {
    const std::uint64_t k = key(left, right);
    pairs_[k] = std::uint64_t(rank) << 32 | std::uint32_t(id);
    const std::size_t bit = bit_of(k);
    filter_[bit / 64] |= std::uint64_t(1) << bit % 64;
  }
  // rank << 32 | id; FlatMap::none = they do not merge
  std::uint64_t find(std::int32_t left, std::int32_t right) const {
    const std::uint64_t k = key(left, right);
    const std::size_t bit = bit_of(k);
    return filter_[bit / 64] >> bit % 64 & 1 ? pairs_.find(k) : FlatMap::none;
  }

 private:
  static constexpr std::size_t kFilterBits = 8;

  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
  }
  std::size_t bit_of(std::uint64_t key) const {
    return std::size_t((key * 0xD6E8FEB86659FD93u) >> 20) & (filter_.size() * 64 - 1);
  }
  FlatMap pairs_;
  std::vector<std::uint64_t> filter_;
};

// Memory of a merge, kept for the next.
struct MergeWork {
  struct Link {
    std::int32_t before, after;
  };
  struct Candidate {
    std::uint64_t rank_place;  // rank << 32 | place
    std::int32_t id;
  };
  std::vector<std::uint64_t> pair;
  std::vector<Link> links;
  std::vector<Candidate> heap;
};

// Merges the parts of a word in place. Time grows with n log n.
void merge_parts(std::vector<Part>& parts, const MergeTable& table, MergeWork& work);

}  // namespace moe
