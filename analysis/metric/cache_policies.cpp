#include "analysis/metric/cache_policies.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "lib/core/clones.h"

namespace moe {
namespace {

// Where `expert` stands among n different ones; it is there.
MOE_SIMD std::size_t place_of(const std::uint16_t* order, std::size_t n, std::uint16_t expert) {
  std::uint16_t at = 0;
  for (std::size_t k = 0; k < n; ++k) at = std::uint16_t(at | (order[k] == expert ? k : 0));
  return at;
}

// A request at `depth` > 0 of one Belady cache: whether it hits, and what is then kept.
MOE_SIMD bool renew(std::uint16_t* kept, std::size_t depth, unsigned size) {
  std::uint16_t most = 0;
  for (std::size_t k = 0; k < depth; ++k) most = std::max(most, kept[k]);
  const bool hit = most + 1u < size;
  if (hit)
    for (std::size_t k = 0; k < depth; ++k) ++kept[k];
  kept[depth - 1] = std::max(kept[depth - 1], kept[depth]);  // the moments up to the request now renewed belong to the expert before
  std::memmove(kept + 1, kept, depth * sizeof *kept);
  kept[0] = 0;
  return hit;
}

}  // namespace

RecencyStack::RecencyStack(int experts, const std::vector<int>& belady_sizes) : order_(std::size_t(experts), 0), depth_(std::size_t(experts), 0), counts_(std::size_t(experts), 0) {
  for (const int size : belady_sizes) belady_.push_back({unsigned(size), 0, std::vector<std::uint16_t>(std::size_t(experts), 0)});
}

void RecencyStack::request(int expert) {
  ++requests_;
  const bool known = counts_[std::size_t(expert)]++ > 0;
  const std::size_t depth = known ? place_of(order_.data(), known_, std::uint16_t(expert)) : known_++;
  if (known) ++depth_[depth];
  for (Belady& b : belady_) {
    if (known) b.hits += depth == 0 || renew(b.kept.data(), depth, b.size);
    else std::memmove(b.kept.data() + 1, b.kept.data(), depth * sizeof b.kept[0]), b.kept[0] = 0;
  }
  std::memmove(order_.data() + 1, order_.data(), depth * sizeof order_[0]);
  order_[0] = std::uint16_t(expert);
}

std::int64_t RecencyStack::lru_hits(int size) const {
  return std::accumulate(depth_.begin(), depth_.begin() + std::clamp<std::ptrdiff_t>(size, 0, std::ssize(depth_)), std::int64_t{0});
}

void LfuCache::request(int expert) {
  const std::uint64_t key = key_[std::size_t(expert)] = ++count_[std::size_t(expert)] << time_bits | ++now_;
  const auto put = [&](std::size_t at, int e) { order_[at] = e, place_[std::size_t(e)] = int(at); };
  std::size_t at = 0;
  if (place_[std::size_t(expert)] >= 0) {
    ++hits_, at = std::size_t(place_[std::size_t(expert)]);
  } else if (order_.size() < size_) {
    order_.insert(order_.begin(), expert);
    for (std::size_t k = 1; k < order_.size(); ++k) place_[std::size_t(order_[k])] = int(k);
  } else {
    place_[std::size_t(order_[0])] = -1;
  }
  for (; at + 1 < order_.size() && key_[std::size_t(order_[at + 1])] < key; ++at) put(at, order_[at + 1]);
  put(at, expert);
}

}  // namespace moe
