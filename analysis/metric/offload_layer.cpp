// One layer of offload.h: what is learned of it, and what that is worth.
#include <algorithm>
#include <numeric>

#include "analysis/metric/offload.h"

namespace moe {

OffloadLayer::OffloadLayer(OffloadShape shape)
    : shape_(std::move(shape)),
      used_(std::size_t(shape_.experts), 0),
      used_before_(std::size_t(shape_.before), 0),
      after_(shape_.before, shape_.experts),
      together_(shape_.experts, shape_.experts),
      lru_(shape_.experts, shape_.cache),
      ahead_{Lru(shape_.experts, shape_.cache), Lru(shape_.experts, shape_.cache),
             Lru(shape_.experts, shape_.cache)},
      lfu_(shape_.experts, shape_.cache),
      belady_(shape_.experts, {shape_.cache}),
      fixed_(std::size_t(shape_.experts), 0) {
  most_ = std::size_t(shape_.ahead);
  for (const int m : shape_.sizes)
    most_ = std::max(most_, std::size_t(m));
  most_ = std::min(most_, std::size_t(shape_.experts));
  for (auto& found : found_)
    found.assign(shape_.sizes.size(), 0);
}

void OffloadLayer::learn(const OffloadToken& t) {
  for (const int e : t.experts)
    ++used_[e];
  for (const int from : t.before) {
    ++used_before_[from];
    for (const int e : t.experts)
      ++after_(from, e);
  }
  for (const int a : t.experts) {
    for (const int b : t.experts)
      together_(a, b) += a != b;
  }
  Counts& counts = by_id_[t.id];
  for (const int e : t.experts) {
    const auto at =
        std::find_if(counts.begin(), counts.end(), [e](const auto& c) { return c.first == e; });
    if (at == counts.end())
      counts.emplace_back(e, 1);
    else
      ++at->second;
  }
}

void OffloadLayer::learned() {
  most_used_.resize(used_.size());
  std::iota(most_used_.begin(), most_used_.end(), 0);
  std::stable_sort(most_used_.begin(), most_used_.end(),
                   [&](int a, int b) { return used_[a] > used_[b]; });
  for (std::size_t i = 0; i < std::min(most_used_.size(), std::size_t(shape_.cache)); ++i)
    fixed_[most_used_[i]] = 1;
  for (auto& [id, counts] : by_id_) {
    std::sort(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
      return a.second != b.second ? a.second > b.second : a.first < b.first;
    });
    counts.resize(std::min(counts.size(), most_));
  }
  chain();
}

namespace {

// Experts in chains that grow at their ends.
class Chains {
 public:
  explicit Chains(int experts) {
    for (int e = 0; e < experts; ++e) {
      of_.push_back(chains_.size());
      chains_.push_back({e});
    }
  }
  // Makes neighbours of two experts that stand at ends of different chains.
  void join(int a, int b) {
    std::vector<int>& x = chains_[of_[a]];
    std::vector<int>& y = chains_[of_[b]];
    if (&x == &y || !at_end(x, a) || !at_end(y, b))
      return;
    if (x.back() != a)
      std::reverse(x.begin(), x.end());
    if (y.front() != b)
      std::reverse(y.begin(), y.end());
    for (const int e : y)
      of_[e] = of_[a];
    x.insert(x.end(), y.begin(), y.end());
    y.clear();
  }
  std::vector<int> order() const {
    std::vector<int> out;
    for (const auto& chain : chains_)
      out.insert(out.end(), chain.begin(), chain.end());
    return out;
  }

 private:
  static bool at_end(const std::vector<int>& chain, int e) {
    return chain.front() == e || chain.back() == e;
  }
  std::vector<std::vector<int>> chains_;
  std::vector<std::size_t> of_;  // (E) its chain
};

struct Pair {
  int count, a, b;
};

// Those that were chosen together, the most often first.
std::vector<Pair> pairs_of(const Matrix<std::int32_t>& together) {
  std::vector<Pair> out;
  for (Index a = 0; a < together.rows(); ++a) {
    for (Index b = a + 1; b < together.cols(); ++b) {
      if (together(a, b) > 0)
        out.push_back({together(a, b), int(a), int(b)});
    }
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Pair& x, const Pair& y) { return x.count > y.count; });
  return out;
}

}  // namespace

// The order on disk: pairs from the most often chosen together on become neighbours, as long as
// each expert has two at most and no ring closes; the chains that remain follow one another.
void OffloadLayer::chain() {
  Chains chains(shape_.experts);
  for (const Pair& p : pairs_of(together_))
    chains.join(p.a, p.b);
  order_ = chains.order();
  place_.resize(order_.size());
  place_in_order_.resize(order_.size());
  for (std::size_t i = 0; i < order_.size(); ++i) {
    place_[order_[i]] = int(i);
    place_in_order_[i] = int(i);
  }
  together_ = {};
}

void OffloadLayer::fill(std::vector<int>& out) const {
  for (const int e : most_used_) {
    if (out.size() >= most_)
      return;
    if (std::find(out.begin(), out.end(), e) == out.end())
      out.push_back(e);
  }
}

// The experts that are foretold, the likeliest first; behind what a predictor knows, the most used.
void OffloadLayer::rank(const OffloadToken& t, Foresight by, std::vector<int>& out) const {
  out.clear();
  if (by == Foresight::last_token) {
    out.assign(t.last.begin(), t.last.end());
    out.resize(std::min(out.size(), most_));
  } else if (by == Foresight::token_id) {
    if (const auto at = by_id_.find(t.id); at != by_id_.end()) {
      for (const auto& [e, n] : at->second)
        out.push_back(e);
    }
  } else if (by == Foresight::previous_layer && !t.before.empty()) {
    // sum over the experts before of how often each of ours followed them
    std::vector<double> score(used_.size(), 0);
    for (const int from : t.before) {
      const double n = double(std::max<std::int64_t>(1, used_before_[from]));
      const auto row = after_.row(from);
      for (std::size_t e = 0; e < score.size(); ++e)
        score[e] += double(row[e]) / n;
    }
    out.resize(score.size());
    std::iota(out.begin(), out.end(), 0);
    std::partial_sort(out.begin(), out.begin() + std::ptrdiff_t(most_), out.end(),
                      [&](int a, int b) {
                        const double x = score[a];
                        const double y = score[b];
                        return x != y ? x > y : a < b;
                      });
    out.resize(most_);
  }
  fill(out);
}

bool OffloadLayer::Lru::request(int expert) {
  ++now_;
  std::uint64_t& last = last_[expert];
  const bool hit = last != 0;
  last = now_;
  if (hit)
    return true;
  if (held_.size() == size_) {
    auto oldest = std::min_element(held_.begin(), held_.end(),
                                   [&](int a, int b) { return last_[a] < last_[b]; });
    last_[*oldest] = 0;
    *oldest = expert;
  } else {
    held_.push_back(expert);
  }
  return false;
}

void OffloadLayer::judge_recall(const OffloadToken& t) {
  for (std::size_t f = 0; f < foresights; ++f) {
    rank(t, Foresight(f), ranked_);
    for (std::size_t i = 0; i < shape_.sizes.size(); ++i) {
      const auto end =
          ranked_.begin() + std::ptrdiff_t(std::min(ranked_.size(), std::size_t(shape_.sizes[i])));
      const auto found = std::count_if(t.experts.begin(), t.experts.end(), [&](int e) {
        return std::find(ranked_.begin(), end, e) != end;
      });
      found_[f][i] += double(found) / double(t.experts.size());
    }
  }
}

// Experts are fetched ahead, one after the other, then requested.
void OffloadLayer::judge_ahead(const OffloadToken& t, Keeping keeping, Foresight by) {
  Lru& cache = ahead_[std::size_t(keeping) - std::size_t(Keeping::lru_previous_layer)];
  rank(t, by, ranked_);
  int fetched = 0;
  int missed = 0;
  // what the cache cannot hold beside what is to come is not fetched
  const auto ahead =
      std::min({ranked_.size(), std::size_t(shape_.ahead), std::size_t(shape_.cache)});
  for (std::size_t i = ahead; i-- > 0;)  // the likeliest last, so that it goes last
    fetched += !cache.request(ranked_[i]);
  for (const int e : t.experts)
    missed += !cache.request(e);
  misses_[std::size_t(keeping)].push_back(std::uint16_t(missed));
  fetched_[std::size_t(keeping)].push_back(std::uint16_t(fetched + missed));
}

void OffloadLayer::judge_caches(const OffloadToken& t) {
  std::array<int, keepings> missed{};
  for (const int e : t.experts) {
    const std::int64_t lfu = lfu_.hits();
    const std::int64_t belady = belady_.belady_hits(0);
    lfu_.request(e);
    belady_.request(e);
    missed[std::size_t(Keeping::lru)] += !lru_.request(e);
    missed[std::size_t(Keeping::lfu)] += lfu_.hits() == lfu;
    missed[std::size_t(Keeping::belady)] += belady_.belady_hits(0) == belady;
    missed[std::size_t(Keeping::fixed)] += !fixed_[e];
  }
  for (const Keeping k : {Keeping::lru, Keeping::lfu, Keeping::fixed, Keeping::belady}) {
    misses_[std::size_t(k)].push_back(std::uint16_t(missed[std::size_t(k)]));
    fetched_[std::size_t(k)].push_back(std::uint16_t(missed[std::size_t(k)]));
  }
  judge_ahead(t, Keeping::lru_previous_layer, Foresight::previous_layer);
  judge_ahead(t, Keeping::lru_token_id, Foresight::token_id);
  judge_ahead(t, Keeping::lru_last_token, Foresight::last_token);
}

double OffloadLayer::runs(std::span<const int> experts, const std::vector<int>& place) const {
  std::vector<int> at;
  for (const int e : experts)
    at.push_back(place[e]);
  std::sort(at.begin(), at.end());
  int out = at.empty() ? 0 : 1;
  for (std::size_t i = 1; i < at.size(); ++i)
    out += at[i] != at[i - 1] + 1;
  return out;
}

// A token without experts in this layer has no misses; its place among the tokens stays.
void OffloadLayer::judge(const OffloadToken& t) {
  judge_caches(t);
  if (t.experts.empty())
    return;
  judge_recall(t);
  reads_ += runs(t.experts, place_);
  reads_in_order_ += runs(t.experts, place_in_order_);
  ++tokens_;
  choices_ += std::int64_t(t.experts.size());
}

double OffloadLayer::recall(Foresight f, std::size_t size) const {
  return tokens_ > 0 ? found_[std::size_t(f)][size] / double(tokens_) : no_value;
}

double OffloadLayer::reads_in_order() const {
  return tokens_ > 0 ? reads_in_order_ / double(tokens_) : no_value;
}

double OffloadLayer::reads() const {
  return tokens_ > 0 ? reads_ / double(tokens_) : no_value;
}

}  // namespace moe
