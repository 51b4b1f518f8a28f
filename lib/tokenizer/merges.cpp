#include "lib/tokenizer/merges.h"

#include <algorithm>
#include <span>

namespace moe {
namespace {

constexpr std::size_t kShort = 40;  // parts; above it the heap is faster
constexpr std::uint64_t kNone = FlatMap::none;

// The pair of lowest rank by looking at all of them: nothing is faster for a word.
void merge_short(std::vector<Part>& parts, const MergeTable& table, MergeWork& work) {
  std::size_t n = parts.size();
  work.pair.resize(n);
  std::uint64_t* pair = work.pair.data();
  Part* part = parts.data();
  for (std::size_t i = 0; i + 1 < n; ++i)
    pair[i] = table.find(part[i].id, part[i + 1].id);
  while (n > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < n; ++i) {
      if (pair[i] >> 32 < pair[best] >> 32)
        best = i;
    }
    if (pair[best] == kNone)
      break;
    part[best] = {std::int32_t(pair[best]), part[best].bytes + part[best + 1].bytes};
    std::copy(part + best + 2, part + n, part + best + 1);
    std::copy(pair + best + 2, pair + n, pair + best + 1);
    --n;
    if (best + 1 < n)
      pair[best] = table.find(part[best].id, part[best + 1].id);
    if (best > 0)
      pair[best - 1] = table.find(part[best - 1].id, part[best].id);
  }
  parts.resize(n);
}

class LongMerge {
 public:
  LongMerge(std::vector<Part>& parts, const MergeTable& table, MergeWork& work)
      : parts_(parts), table_(table), links_(work.links), heap_(work.heap) {}

  void run() {
    const std::int32_t n = std::int32_t(parts_.size());
    links_.resize(parts_.size());
    heap_.clear();
    for (std::int32_t i = 0; i < n; ++i)
      links_[std::size_t(i)] = {i - 1, i + 1 < n ? i + 1 : -1};
    for (std::int32_t i = 0; i + 1 < n; ++i)
      consider(i, false);
    std::ranges::make_heap(heap_, later);
    while (!heap_.empty()) {
      std::ranges::pop_heap(heap_, later);
      const MergeWork::Candidate c = heap_.back();
      heap_.pop_back();
      take(c);
    }
    // a part that was joined to the one before it has no bytes left
    std::erase_if(parts_, [](const Part& p) { return p.bytes == kGone; });
  }

 private:
  static constexpr std::uint32_t kGone = ~std::uint32_t(0);

  static bool later(const MergeWork::Candidate& a, const MergeWork::Candidate& b) {
    return a.rank_place > b.rank_place;
  }
  void consider(std::int32_t left, bool push) {
    const std::int32_t right = links_[std::size_t(left)].after;
    if (right < 0)
      return;
    const std::uint64_t found =
        table_.find(parts_[std::size_t(left)].id, parts_[std::size_t(right)].id);
    if (found == kNone)
      return;
    heap_.push_back({(found >> 32) << 32 | std::uint32_t(left), std::int32_t(found)});
    if (push)
      std::ranges::push_heap(heap_, later);
  }
  // A candidate whose pair has become another one since is passed over.
  void take(const MergeWork::Candidate& c) {
    const std::int32_t left = std::int32_t(c.rank_place & 0xFFFFFFFF);
    Part& part = parts_[std::size_t(left)];
    const std::int32_t right = links_[std::size_t(left)].after;
    if (part.bytes == kGone || right < 0)
      return;
    Part& next = parts_[std::size_t(right)];
    const std::uint64_t now = table_.find(part.id, next.id);
    if (now == kNone || std::int32_t(now) != c.id)
      return;
    part = {c.id, part.bytes + next.bytes};
    next.bytes = kGone;
    const std::int32_t after = links_[std::size_t(right)].after;
    links_[std::size_t(left)].after = after;
    if (after >= 0)
      links_[std::size_t(after)].before = left;
    consider(left, true);
    if (links_[std::size_t(left)].before >= 0)
      consider(links_[std::size_t(left)].before, true);
  }

  std::vector<Part>& parts_;
  const MergeTable& table_;
  std::vector<MergeWork::Link>& links_;
  std::vector<MergeWork::Candidate>& heap_;
};

}  // namespace

void merge_parts(std::vector<Part>& parts, const MergeTable& table, MergeWork& work) {
  if (parts.size() <= kShort)
    merge_short(parts, table, work);
  else
    LongMerge(parts, table, work).run();
}

}  // namespace moe
