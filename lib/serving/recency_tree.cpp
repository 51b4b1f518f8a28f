#include "lib/serving/recency_tree.h"

#include <algorithm>
#include <bit>

namespace moe {

SuffixMaxima::SuffixMaxima(std::size_t places)
    : leaves_(std::bit_ceil(std::max<std::size_t>(places, 1))),
      sum_(2 * leaves_, 0),
      best_(2 * leaves_, 0) {}

void SuffixMaxima::join(std::size_t node) {
  sum_[node] = sum_[2 * node] + sum_[2 * node + 1];
  best_[node] = std::max(best_[2 * node], sum_[2 * node] + best_[2 * node + 1]);
}

void SuffixMaxima::add_from(std::size_t place, std::int32_t by) {
  std::size_t node = leaves_ + place;
  sum_[node] += by;
  best_[node] = sum_[node];
  while (node > 1)
    join(node /= 2);
}

std::int32_t SuffixMaxima::largest_from(std::size_t place) const {
  std::size_t node = leaves_ + place;
  std::int32_t best = best_[node];
  for (; node > 1; node /= 2) {
    if (node % 2 == 1)
      best += sum_[node - 1];
    else
      best = std::max(best, sum_[node] + best_[node + 1]);
  }
  return std::max(best, 0);
}

std::vector<std::int32_t> SuffixMaxima::numbers() const {
  std::vector<std::int32_t> out(sum_.begin() + std::ptrdiff_t(leaves_), sum_.end());
  for (std::size_t i = 1; i < out.size(); ++i)
    out[i] += out[i - 1];
  return out;
}

void SuffixMaxima::set(std::span<const std::int32_t> numbers) {
  for (std::size_t i = 0; i < leaves_; ++i) {
    const std::int32_t before = i == 0 ? 0 : numbers[std::min(i, numbers.size()) - 1];
    sum_[leaves_ + i] = i < numbers.size() ? numbers[i] - before : 0;
    best_[leaves_ + i] = sum_[leaves_ + i];
  }
  for (std::size_t node = leaves_; node-- > 1;)
    join(node);
}

RecencyTree::RecencyTree(int experts, std::span<const unsigned> belady_sizes)
    : sizes_(belady_sizes.begin(), belady_sizes.end()),
      places_(4 * std::size_t(experts) + 2),
      last_(std::size_t(experts), 0),
      counts_(places_ + 1, 0),
      kept_(belady_sizes.size(), SuffixMaxima(places_)) {}

void RecencyTree::mark(std::size_t place, int by) {
  for (std::size_t i = place + 1; i <= places_; i += i & (~i + 1))
    counts_[i] += by;
  live_ += std::size_t(by);
}

// Last requests behind `place`.
std::size_t RecencyTree::live_from(std::size_t place) const {
  std::size_t before = 0;
  for (std::size_t i = place + 1; i > 0; i &= i - 1)
    before += std::size_t(counts_[i]);
  return live_ - before;
}

RecencyTree::Found RecencyTree::request(int expert, std::span<std::uint8_t> hits) {
  if (next_ == places_)
    renumber();
  std::size_t& last = last_[std::size_t(expert)];
  const bool before = last > 0;
  const Found found{before ? std::int64_t(live_from(last)) : -1};
  if (found.depth == 0) {
    std::ranges::fill(hits, std::uint8_t(1));
    return found;
  }
  for (std::size_t i = 0; i < sizes_.size(); ++i) {
    SuffixMaxima& kept = kept_[i];
    const bool hit = before && std::uint32_t(kept.largest_from(last + 1)) + 1 < sizes_[i];
    hits[i] = hit;
    if (hit)
      kept.add_from(last + 1, 1);
    kept.add_from(next_, -kept.last());
  }
  if (before)
    mark(last, -1);
  mark(next_, 1);
  last = next_++;
  return found;
}

// Moments between two last requests are one: the largest number kept at any of them is what counts.
void RecencyTree::renumber() {
  std::vector<std::size_t> order;
  for (std::size_t e = 0; e < last_.size(); ++e) {
    if (last_[e] > 0)
      order.push_back(e);
  }
  std::ranges::sort(order, {}, [&](std::size_t e) { return last_[e]; });
  for (SuffixMaxima& kept : kept_) {
    const std::vector<std::int32_t> old = kept.numbers();
    std::vector<std::int32_t> merged(order.size() + 1, 0);
    for (std::size_t i = 1; i < merged.size(); ++i) {
      const std::size_t first = i == 1 ? 1 : last_[order[i - 2]] + 1;
      const std::size_t end = last_[order[i - 1]] + 1;
      merged[i] =
          *std::max_element(old.begin() + std::ptrdiff_t(first), old.begin() + std::ptrdiff_t(end));
    }
    kept.set(merged);
  }
  std::ranges::fill(counts_, 0);
  live_ = 0;
  next_ = 1;
  for (const std::size_t e : order) {
    last_[e] = next_;
    mark(next_++, 1);
  }
}

}  // namespace moe
