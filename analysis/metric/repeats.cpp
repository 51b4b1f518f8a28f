#include "analysis/metric/repeats.h"

#include <bit>

#include "lib/core/clones.h"

namespace moe {
namespace {

using Asked = RepeatsMetric::Asked;
using Block = RepeatsMetric::Block;
using Past = RepeatsMetric::Past;
using Recent = RepeatsMetric::Recent;
using State = RepeatsMetric::State;

MOE_INLINE int common(const std::uint64_t* a, const std::uint64_t* b, std::size_t words) {
  int n = 0;
  for (std::size_t i = 0; i < words; ++i)
    n += std::popcount(a[i] & b[i]);
  return n;
}

MOE_INLINE void end_of_block(State& s, const Asked& a, std::size_t words) {
  for (std::size_t i = 0; i < a.blocks.size(); ++i) {
    Block& b = s.blocks[i];
    for (std::size_t x = 0; x < words; ++x)
      b.seen[x] |= s.now[x];
    if (++b.tokens < a.blocks[i])
      continue;
    b.sum += common(b.seen.data(), b.seen.data(), words);
    b.blocks += 1;
    b.tokens = 0;
    for (std::size_t x = 0; x < words; ++x)
      b.seen[x] = 0;
  }
}

MOE_INLINE Recent& recent_of(State& s, const Asked& a, std::size_t words, std::uint32_t sequence) {
  if (!s.current || s.sequence != sequence) {
    s.sequence = sequence;
    Recent& r = s.open[sequence];
    if (r.past.empty()) {
      r.past.resize(a.ring);
      r.bits.resize(a.ring * words);
    }
    s.current = &r;
  }
  return *s.current;
}

MOE_INLINE void neighbours(State& s, const Asked& a, std::size_t words, std::uint32_t sequence,
                           std::uint32_t position, std::span<const int> chosen, int first) {
  Recent& r = recent_of(s, a, words, sequence);
  const std::uint32_t ring = std::uint32_t(a.ring) - 1;
  for (std::size_t i = 0; i < a.lags.size(); ++i) {
    const auto lag = std::uint32_t(a.lags[i]);
    if (lag > position)
      continue;
    const std::size_t at = (position - lag) & ring;
    const Past& p = r.past[at];
    if (p.position != position - lag || p.count <= 0)
      continue;
    s.overlap[i] += double(common(&r.bits[at * words], s.now.data(), words)) / p.count;
    s.pairs[i] += 1;
  }
  if (r.last + 1 == std::int64_t(position)) {
    const std::size_t at = (position - 1) & ring;
    s.neighbours += 1;
    s.same_first += r.past[at].count > 0 && first >= 0 && r.past[at].first == first;
    s.same_any += common(&r.bits[at * words], s.now.data(), words) > 0;
  }
  const std::size_t at = position & ring;
  r.past[at] = {position, int(chosen.size()), first};
  for (std::size_t x = 0; x < words; ++x)
    r.bits[at * words + x] = s.now[x];
  r.last = position;
  if (sequence < a.lengths.size() && position + 1 >= a.lengths[sequence].length) {
    s.open.erase(sequence);
    s.current = nullptr;
  }
}

MOE_INLINE void scan(State& s, const Asked& a, const Window& w, Index l, std::size_t words) {
  const LayerChoices& c = w.layer[l];
  std::uint64_t* now = s.now.data();
  for (const Index t : w.valid) {
    const auto chosen = c.of(t);
    for (std::size_t x = 0; x < words; ++x)
      now[x] = 0;
    for (const int e : chosen)
      now[unsigned(e) / 64] |= std::uint64_t{1} << (e % 64);
    end_of_block(s, a, words);
    s.assignments += std::int64_t(chosen.size());
    ++s.tokens;
    neighbours(s, a, words, w.rows.sequence[t], w.rows.position[t], chosen, c.first(t));
  }
}

// up to 64 experts: one word
MOE_SIMD void scan_64(State& s, const Asked& a, const Window& w, Index l) {
  scan(s, a, w, l, 1);
}

MOE_SIMD void scan_more(State& s, const Asked& a, const Window& w, Index l, std::size_t words) {
  scan(s, a, w, l, words);
}

}  // namespace

RepeatsMetric::RepeatsMetric(Spec& spec, const TraceSource& trace)
    : shape_(trace),
      asked_{whole_list_of(spec, "lags", "1,2,4,8", 1),
             whole_list_of(spec, "batch_sizes", "8,64", 1), trace.sequences()},
      state_(shape_.experts.size()) {
  asked_.ring =
      std::bit_ceil(std::size_t(lags_.empty() ? 1 : *std::max_element(lags_.begin(), lags_.end())));
  for (std::size_t l = 0; l < state_.size(); ++l) {
    State& s = state_[l];
    s.overlap.assign(lags_.size(), 0);
    s.pairs.assign(lags_.size(), 0);
    s.blocks.resize(asked_.blocks.size());
    s.now.assign(words(Index(l)), 0);
    for (Block& b : s.blocks)
      b.seen.assign(words(Index(l)), 0);
  }
}

TraceFields RepeatsMetric::needs() const {
  return no_fields;
}

void RepeatsMetric::observe_layer(const Window& w, Index l) {
  State& s = state_[l];
  s.ranked = w.layer[l].ranked;
  words(l) == 1 ? scan_64(s, asked_, w, l) : scan_more(s, asked_, w, l, words(l));
}

std::vector<MetricValue> RepeatsMetric::values() const {
  std::vector<double> first, any;
  std::vector<std::vector<double>> overlap, distinct;
  for (const State& s : state_) {
    first.push_back(s.ranked ? s.same_first / s.neighbours : no_value);
    any.push_back(s.same_any / s.neighbours);
    overlap.push_back({});
    distinct.push_back({});
    for (std::size_t i = 0; i < lags_.size(); ++i)
      overlap.back().push_back(s.pairs[i] > 0 ? s.overlap[i] / s.pairs[i] : 0);
    for (const Block& b : s.blocks)
      distinct.back().push_back(b.sum / b.blocks);
  }
  return {per_layer("repeat_first", first), per_layer("repeat_any", any),
          per_layer("lag_overlap", overlap), per_layer("distinct_experts", distinct)};
}

std::size_t RepeatsMetric::words(Index l) const {
  return std::size_t(shape_.experts[l] + 63) / 64;
}

double RepeatsMetric::choices(const State& s) {
  return double(s.assignments) / double(s.tokens);
}

std::unique_ptr<Metric> make_repeats_metric(Spec& spec, const TraceSource& trace,
                                            const AnalyzeOptions&) {
  return std::make_unique<RepeatsMetric>(spec, trace);
}

}  // namespace moe
