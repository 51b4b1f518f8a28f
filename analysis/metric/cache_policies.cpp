#include "analysis/metric/cache_policies.h"

#include <algorithm>
#include <numeric>

namespace moe {

RecencyStack::RecencyStack(int experts, const std::vector<int>& belady_sizes) : depth_(std::size_t(experts), 0), counts_(std::size_t(experts), 0) {
  order_.reserve(std::size_t(experts));
  for (const int size : belady_sizes) belady_.push_back({size, 0, {}});
}

void RecencyStack::request(int expert) {
  ++requests_, ++counts_[std::size_t(expert)];
  const auto at = std::find(order_.begin(), order_.end(), expert);
  const auto depth = at - order_.begin();
  if (at == order_.end()) {
    order_.insert(order_.begin(), expert);
    for (Belady& b : belady_) b.kept.insert(b.kept.begin(), 0);
    return;
  }
  ++depth_[std::size_t(depth)];
  for (Belady& b : belady_) {
    const auto begin = b.kept.begin(), end = begin + depth;
    if (depth == 0) {
      ++b.hits;
      continue;
    }
    if (*std::max_element(begin, end) < b.size - 1) {
      ++b.hits;
      for (auto k = begin; k != end; ++k) ++*k;
    }
    *(end - 1) = std::max(*(end - 1), *end);  // the moments up to the request now renewed belong to the expert before
    std::move_backward(begin, end, end + 1);
    *begin = 0;
  }
  std::move_backward(order_.begin(), at, at + 1);
  order_.front() = expert;
}

std::int64_t RecencyStack::lru_hits(int size) const {
  return std::accumulate(depth_.begin(), depth_.begin() + std::clamp<std::ptrdiff_t>(size, 0, std::ssize(depth_)), std::int64_t{0});
}

void LfuCache::request(int expert) {
  std::uint64_t& key = key_[std::size_t(expert)];
  const bool resident = key != absent;
  hits_ += resident;
  if (!resident && room_ > 0) --room_;
  else if (!resident) *std::min_element(key_.begin(), key_.end()) = absent;
  key = ++count_[std::size_t(expert)] << time_bits | ++now_;
}

}  // namespace moe
