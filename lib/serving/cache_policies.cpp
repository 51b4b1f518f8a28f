#include "lib/serving/cache_policies.h"

#include <algorithm>
#include <numeric>

#include "lib/core/clones.h"

namespace moe {
namespace {

// rows are padded to whole blocks: loops of this length have no remainder
constexpr std::size_t block = 32;
constexpr std::uint16_t never = 0xffff;  // deeper than any expert that was requested

// What a request at `depth` does to the rows. In the first, those requested since then are one
// deeper. In each other, where `kept` says that it was a hit: the expert was kept over moments that
// had at most now - 1 kept, and they have one more. Those requested since its last request saw only
// such moments (the last one none at all), the others these and earlier ones. The expert itself
// starts anew. One pass of whole blocks: a number stored alone would have to reach memory before
// the row could be read at once.
MOE_SIMD void renew(std::uint16_t* at, std::size_t n, std::size_t expert, std::uint16_t depth,
                    const RecencyStack::Kept* kept, std::size_t sizes) {
  for (std::size_t first = 0; first < n; first += block) {
    const auto fresh = std::uint16_t(std::min(expert - first, block));
    std::uint16_t old[block];
    for (std::uint16_t k = 0; k < block; ++k)
      old[k] = at[first + k];
    for (std::uint16_t k = 0; k < block; ++k) {
      at[first + k] =
          k == fresh ? std::uint16_t(0) : std::uint16_t(old[k] + (old[k] < depth ? 1 : 0));
    }
    for (std::size_t b = 0; b < sizes; ++b) {
      std::uint16_t* row = at + (b + 1) * n + first;
      const std::uint16_t now = kept[b].now;
      const std::uint16_t since = kept[b].depth;
      for (std::uint16_t k = 0; k < block; ++k) {
        const std::uint16_t more = std::uint16_t(row[k] + (old[k] ? 1 : 0));
        const std::uint16_t other = row[k] > now ? row[k] : now;
        row[k] = k == fresh ? std::uint16_t(0) : old[k] < since ? more : other;
      }
    }
  }
}

}  // namespace

RecencyStack::RecencyStack(int experts, const std::vector<int>& belady_sizes, int many)
    : padded_(experts >= many ? 0 : (std::size_t(experts) + block - 1) / block * block),
      rows_((belady_sizes.size() + 1) * padded_, 0),
      depth_(std::size_t(experts), 0),
      counts_(std::size_t(experts), 0),
      kept_(belady_sizes.size()),
      belady_hits_(belady_sizes.size(), 0),
      hits_(belady_sizes.size(), 0) {
  std::fill_n(rows_.begin(), padded_, never);
  for (const int size : belady_sizes)
    sizes_.push_back(unsigned(size));
  if (experts >= many)
    tree_ = std::make_unique<RecencyTree>(experts, sizes_);
}

void RecencyStack::request(int expert) {
  const auto x = std::size_t(expert);
  ++requests_;
  ++counts_[x];
  if (tree_)
    return searched(expert);
  const std::uint16_t depth = rows_[x];
  if (depth != never)
    ++depth_[depth];
  for (std::size_t b = 0; b < sizes_.size(); ++b) {
    const std::uint16_t most = rows_[(b + 1) * padded_ + x];
    const bool hit = depth == 0 || (depth != never && most + 1u < sizes_[b]);
    // zeros leave a row as it is
    belady_hits_[b] += hit;
    kept_[b] = hit ? Kept{depth, std::uint16_t(most + 1)} : Kept{0, 0};
  }
  if (depth > 0)
    renew(rows_.data(), padded_, x, depth, kept_.data(), kept_.size());
}

void RecencyStack::searched(int expert) {
  const RecencyTree::Found found = tree_->request(expert, hits_);
  if (found.depth >= 0)
    ++depth_[std::size_t(found.depth)];
  for (std::size_t b = 0; b < hits_.size(); ++b)
    belady_hits_[b] += hits_[b];
}

std::int64_t RecencyStack::lru_hits(int size) const {
  return std::accumulate(depth_.begin(),
                         depth_.begin() + std::clamp<std::ptrdiff_t>(size, 0, std::ssize(depth_)),
                         std::int64_t{0});
}

void LfuCache::request(int expert) {
  const std::uint64_t before = key_[expert];
  const std::uint64_t key = key_[expert] = ++count_[expert] << time_bits | ++now_;
  if (searched_)
    return request_searched(expert, before, key);
  const auto put = [&](std::size_t at, int e) {
    order_[at] = e;
    place_[e] = int(at);
  };
  std::size_t at = 0;
  if (place_[expert] >= 0) {
    ++hits_;
    at = std::size_t(place_[expert]);
  } else if (order_.size() < size_) {
    order_.insert(order_.begin(), expert);
    for (std::size_t k = 1; k < order_.size(); ++k)
      place_[order_[k]] = int(k);
  } else {
    place_[order_[0]] = -1;
  }
  for (; at + 1 < order_.size() && key_[order_[at + 1]] < key; ++at)
    put(at, order_[at + 1]);
  put(at, expert);
}

void LfuCache::request_searched(int expert, std::uint64_t before, std::uint64_t key) {
  if (place_[expert] >= 0) {
    ++hits_;
    resident_.erase({before, expert});
  } else if (resident_.size() == size_) {
    place_[resident_.begin()->second] = -1;
    resident_.erase(resident_.begin());
  }
  place_[expert] = 0;
  resident_.emplace(key, expert);
}

}  // namespace moe
