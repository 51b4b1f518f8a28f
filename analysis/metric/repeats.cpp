// Whether the next token keeps its experts. Pairs are tokens of one sequence whose positions differ
// by the lag, neither of them padding; sequences may be interleaved, as decoding engines write
// them.
#include <bit>
#include <cmath>
#include <unordered_map>

#include "analysis/metric/chance.h"
#include "analysis/metric/layout.h"
#include "lib/core/clones.h"
#include "lib/core/text.h"

namespace moe {
namespace {

struct Block {                      // of consecutive valid tokens
  std::vector<std::uint64_t> seen;  // (words)
  int tokens = 0;
  double sum = 0, blocks = 0;
};
struct Past {  // a token; its experts are bits of Recent::bits
  std::uint32_t position = 0;
  int count = -1, first = -1;  // -1: nothing here yet
};
// of one sequence: a ring of tokens at least as long as the longest lag, a token at position % ring
struct Recent {
  std::vector<Past> past;
  std::vector<std::uint64_t> bits;  // (ring, words)
  std::int64_t last = -2;           // position of the token before
};
struct State {
  std::vector<double> overlap, pairs;  // (lags)
  std::vector<Block> blocks;
  std::vector<std::uint64_t> now;                  // (words) experts of the token being read
  std::unordered_map<std::uint32_t, Recent> open;  // sequences not yet at their end
  Recent* current = nullptr;
  std::uint32_t sequence = 0;
  double neighbours = 0, same_first = 0, same_any = 0;
  std::int64_t assignments = 0, tokens = 0;
};
struct Asked {
  std::vector<int> lags, blocks;
  std::vector<TraceSequence> lengths;
  std::size_t ring = 1;  // a power of 2
};

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
                           std::uint32_t position, std::span<const int> chosen) {
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
    s.same_first += r.past[at].count > 0 && !chosen.empty() && r.past[at].first == chosen[0];
    s.same_any += common(&r.bits[at * words], s.now.data(), words) > 0;
  }
  const std::size_t at = position & ring;
  r.past[at] = {position, int(chosen.size()), chosen.empty() ? -1 : chosen[0]};
  for (std::size_t x = 0; x < words; ++x)
    r.bits[at * words + x] = s.now[x];
  r.last = position;
  if (sequence < a.lengths.size() && position + 1 >= a.lengths[sequence].length) {
    s.open.erase(sequence);
    s.current = nullptr;
  }
}

MOE_INLINE void scan(State& s, const Asked& a, const Window& w, Index l, std::size_t words) {
  const LayerChoices& c = w.layer[std::size_t(l)];
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
    neighbours(s, a, words, w.rows.sequence[std::size_t(t)], w.rows.position[std::size_t(t)],
               chosen);
  }
}
// up to 64 experts: one word
MOE_SIMD void scan_64(State& s, const Asked& a, const Window& w, Index l) {
  scan(s, a, w, l, 1);
}
MOE_SIMD void scan_more(State& s, const Asked& a, const Window& w, Index l, std::size_t words) {
  scan(s, a, w, l, words);
}

class Repeats final : public Metric {
 public:
  Repeats(Spec& spec, const TraceSource& trace)
      : shape_(trace),
        asked_{whole_list_of(spec, "lags", "1,2,4,8", 1),
               whole_list_of(spec, "batch_sizes", "8,64", 1), trace.sequences()},
        state_(shape_.experts.size()) {
    asked_.ring = std::bit_ceil(
        std::size_t(lags_.empty() ? 1 : *std::max_element(lags_.begin(), lags_.end())));
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

  TraceFields needs() const override {
    return no_fields;
  }

  void observe_layer(const Window& w, Index l) override {
    State& s = state_[std::size_t(l)];
    words(l) == 1 ? scan_64(s, asked_, w, l) : scan_more(s, asked_, w, l, words(l));
  }

  std::vector<MetricValue> values() const override {
    std::vector<double> first, any;
    std::vector<std::vector<double>> overlap, distinct;
    for (const State& s : state_) {
      first.push_back(s.same_first / s.neighbours);
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

  void report(Report&) const override;

 private:
  static double choices(const State&);  // of a token
  void neighbouring(Report&, const Values&) const;
  void lags(Report&, const Values&) const;
  void distinct(Report&) const;
  std::size_t words(Index l) const {
    return std::size_t(shape_.experts[std::size_t(l)] + 63) / 64;
  }

  Shape shape_;
  Asked asked_;
  const std::vector<int>& lags_ = asked_.lags;
  std::vector<State> state_;
};

double Repeats::choices(const State& s) {
  return double(s.assignments) / double(s.tokens);
}

void Repeats::distinct(Report& r) const {
  TableBuilder t("distinct", "How many experts a batch needs", section::deployment);
  t.reading(
       "Mean number of distinct experts that a block of so many consecutive tokens chooses: what "
       "has to be read from memory for a batch of that size. Random routing: E (1-(1-K/E)^B).")
      .detail();
  t.layers(shape_.number);
  for (std::size_t i = 0; i < asked_.blocks.size(); ++i) {
    Values::Rows rows;
    for (std::size_t l = 0; l < state_.size(); ++l) {
      const Block& b = state_[l].blocks[i];
      rows.add(b.blocks > 0 ? b.sum / b.blocks : no_value,
               chance::distinct_experts(shape_.experts[l], choices(state_[l]), asked_.blocks[i]));
    }
    t.column(concat(asked_.blocks[i], " tokens"))
        .unit("experts")
        .meaning("distinct experts of so many consecutive tokens, mean over blocks")
        .of("distinct_experts")
        .digits(2)
        .rows(rows);
  }
  t.into(r);
}

void Repeats::lags(Report& r, const Values& values) const {
  TableBuilder t("lags", "Experts kept over distance", section::paths);
  t.reading(
       "Share of a token's experts that the token so many positions later has too; random "
       "routing: K/E. Falls towards the value of unrelated tokens.")
      .detail();
  t.layers(shape_.number);
  const std::vector<double>& overlap = values.at("lag_overlap").value;
  for (std::size_t i = 0; i < lags_.size(); ++i) {
    Values::Rows rows;
    for (std::size_t l = 0; l < state_.size(); ++l) {
      rows.add(state_[l].pairs[i] > 0 ? overlap[l * lags_.size() + i] : no_value,
               choices(state_[l]) / shape_.experts[l]);
    }
    t.column(concat("lag ", lags_[i]))
        .unit("share")
        .meaning("mean overlap at this lag")
        .of("lag_overlap")
        .rows(rows);
  }
  t.into(r);
}

void Repeats::neighbouring(Report& r, const Values& values) const {
  TableBuilder t("repeats", "Does the next token keep its expert?", section::paths);
  t.reading(
       "Share of neighbouring tokens whose first choice is the same, and that share at least one "
       "expert. Random routing gives 1/E and 1 - C(E-K,K)/C(E,K); "
       "the Mixtral paper found 12.5 % expected and up to 28 % seen for first choices.")
      .chart(Chart::lines);
  t.layers(shape_.number);
  t.column("same first choice")
      .unit("share")
      .meaning("neighbours with the same first choice")
      .of("repeat_first", values);
  t.column("a common expert")
      .unit("share")
      .meaning("neighbours with at least one expert in common")
      .of("repeat_any", values);
  t.into(r);
}

void Repeats::report(Report& r) const {
  if (state_.empty() || state_[0].neighbours == 0)
    return;
  Values all(values());
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const double first = 1.0 / shape_.experts[l];
    const double any = chance::repeat_any(shape_.experts[l], choices(state_[l]));
    const double pairs = state_[l].neighbours;
    // neighbouring pairs are independent by lot
    all["repeat_first"].chance.add({first, std::sqrt(first * (1 - first) / pairs)});
    all["repeat_any"].chance.add({any, std::sqrt(any * (1 - any) / pairs)});
  }
  neighbouring(r, all);
  lags(r, all);
  distinct(r);
  const Values::Rows& first = all.at("repeat_first");
  const auto best =
      std::size_t(std::max_element(first.value.begin(), first.value.end()) - first.value.begin());
  r.findings.push_back(concat(
      "Neighbouring tokens keep their first expert in ", percent(first.value[best]),
      " of cases in layer ", shape_.number[best],
      ", the most of all layers (random routing: ", percent(first.chance.value[best]), ")."));
}

}  // namespace

std::unique_ptr<Metric> make_repeats_metric(Spec& spec, const TraceSource& trace,
                                            const AnalyzeOptions&) {
  return std::make_unique<Repeats>(spec, trace);
}

}  // namespace moe
