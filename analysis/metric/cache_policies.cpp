#include "analysis/metric/cache_policies.h"

#include <algorithm>
#include <numeric>

#include "lib/core/clones.h"

namespace moe {
namespace {

constexpr std::size_t block = 32;          // rows are padded to whole blocks: loops of this length have no remainder
constexpr std::uint16_t never = 0xffff;    // deeper than any expert that was requested

// An expert was kept from its last request, at `depth`, to now: over moments that had at most `most` kept. Those requested since then saw
// only such moments (the last one none at all), the others these and earlier ones.
MOE_SIMD void keep(std::uint16_t* __restrict kept, const std::uint16_t* __restrict at, std::size_t n, std::uint16_t depth, std::uint16_t most) {
  const auto now = std::uint16_t(most + 1);
  for (std::size_t first = 0; first < n; first += block)
    for (std::size_t k = first; k < first + block; ++k) {
      const std::uint16_t more = std::uint16_t(kept[k] + (at[k] ? 1 : 0)), other = kept[k] > now ? kept[k] : now;
      kept[k] = at[k] < depth ? more : other;
    }
}

// Those requested since the last request of an expert at `depth` are one deeper now.
MOE_SIMD void deepen(std::uint16_t* at, std::size_t n, std::uint16_t depth) {
  for (std::size_t first = 0; first < n; first += block)
    for (std::size_t k = first; k < first + block; ++k) at[k] = std::uint16_t(at[k] + (at[k] < depth ? 1 : 0));
}

}  // namespace

RecencyStack::RecencyStack(int experts, const std::vector<int>& belady_sizes)
    : at_((std::size_t(experts) + block - 1) / block * block, never), depth_(std::size_t(experts), 0), counts_(std::size_t(experts), 0) {
  for (const int size : belady_sizes) belady_.push_back({unsigned(size), 0, std::vector<std::uint16_t>(at_.size(), 0)});
}

void RecencyStack::request(int expert) {
  const auto x = std::size_t(expert);
  ++requests_, ++counts_[x];
  const std::uint16_t depth = at_[x];
  if (depth != never) ++depth_[depth];
  for (Belady& b : belady_) {
    const std::uint16_t most = b.kept[x];
    if (depth == 0) {
      ++b.hits;
      continue;
    }
    if (depth != never && most + 1u < b.size) ++b.hits, keep(b.kept.data(), at_.data(), at_.size(), depth, most);
    b.kept[x] = 0;
  }
  if (depth > 0) deepen(at_.data(), at_.size(), depth);
  at_[x] = 0;
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
