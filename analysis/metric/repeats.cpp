// Whether the next token keeps its experts. Pairs are tokens of one sequence whose positions differ by the lag, neither of
// them padding; sequences may be interleaved, as decoding engines write them.
#include <unordered_map>

#include "analysis/metric/chance.h"
#include "analysis/metric/layout.h"

namespace moe {
namespace {

class Repeats final : public Metric {
 public:
  Repeats(Spec& spec, const TraceSource& trace)
      : shape_(trace), lags_(whole_list_of(spec, "lags", "1,2,4,8", 1)), blocks_(whole_list_of(spec, "batch_sizes", "8,64", 1)), lengths_(trace.sequences()), state_(shape_.experts.size()) {
    for (State& s : state_) s.overlap.assign(lags_.size(), 0), s.pairs.assign(lags_.size(), 0), s.blocks.resize(blocks_.size());
    for (std::size_t l = 0; l < state_.size(); ++l)
      for (Block& b : state_[l].blocks) b.seen.assign(std::size_t(shape_.experts[l]), 0);
  }

  TraceFields needs() const override { return no_fields; }

  void observe(const Window& w) override {
    for (const Index t : w.valid) {
      const std::uint32_t q = w.rows.sequence[std::size_t(t)], position = w.rows.position[std::size_t(t)];
      Recent& recent = recent_[q];
      for (std::size_t i = 0; i < lags_.size(); ++i)
        for (const Past& p : recent.past)
          if (std::uint64_t(p.position) + std::uint64_t(lags_[i]) == position) pair(p, w, t, i);
      if (adjacent(recent, position)) first_pair(recent, w, t);
      remember(recent, w, t);
      if (q < lengths_.size() && position + 1 >= lengths_[q].length) recent_.erase(q);
    }
  }

  void observe_layer(const Window& w, Index l) override {
    State& s = state_[std::size_t(l)];
    for (const Index t : w.valid)
      for (std::size_t i = 0; i < blocks_.size(); ++i) {
        Block& b = s.blocks[i];
        for (const int e : w.layer[std::size_t(l)].of(t)) b.distinct += !b.seen[std::size_t(e)], b.seen[std::size_t(e)] = 1;
        if (++b.tokens < blocks_[i]) continue;
        b.sum += b.distinct, b.blocks += 1, b.tokens = b.distinct = 0;
        std::fill(b.seen.begin(), b.seen.end(), 0);
      }
    for (const Index t : w.valid) s.assignments += std::int64_t(w.layer[std::size_t(l)].of(t).size()), ++s.tokens;
  }

  std::vector<MetricValue> values() const override {
    std::vector<double> first, any;
    std::vector<std::vector<double>> overlap, distinct;
    for (const State& s : state_) {
      first.push_back(s.same_first / s.neighbours), any.push_back(s.same_any / s.neighbours);
      overlap.push_back({}), distinct.push_back({});
      for (std::size_t i = 0; i < lags_.size(); ++i) overlap.back().push_back(s.pairs[i] > 0 ? s.overlap[i] / s.pairs[i] : 0);
      for (const Block& b : s.blocks) distinct.back().push_back(b.sum / b.blocks);
    }
    return {per_layer("repeat_first", first), per_layer("repeat_any", any), per_layer("lag_overlap", overlap), per_layer("distinct_experts", distinct)};
  }

  void report(Report&) const override;

 private:
  struct Block {  // of consecutive valid tokens
    std::vector<std::uint8_t> seen;
    int tokens = 0, distinct = 0;
    double sum = 0, blocks = 0;
  };
  struct State {
    std::vector<double> overlap, pairs;  // (lags)
    std::vector<Block> blocks;
    double neighbours = 0, same_first = 0, same_any = 0;
    std::int64_t assignments = 0, tokens = 0;
  };
  struct Past {
    std::uint32_t position;
    std::vector<std::vector<int>> chosen;  // (L)(K)
  };
  struct Recent {
    std::vector<Past> past;  // as far back as the longest lag
  };

  static bool adjacent(const Recent& r, std::uint32_t position) { return !r.past.empty() && std::uint64_t(r.past.back().position) + 1 == position; }
  static int common(std::span<const int> a, std::span<const int> b) {
    return int(std::count_if(a.begin(), a.end(), [&](int e) { return std::find(b.begin(), b.end(), e) != b.end(); }));
  }
  void first_pair(const Recent& recent, const Window& w, Index t) {
    for (std::size_t l = 0; l < state_.size(); ++l) {
      const auto& before = recent.past.back().chosen[l];
      const auto now = w.layer[l].of(t);
      state_[l].neighbours += 1;
      state_[l].same_first += !before.empty() && !now.empty() && before[0] == now[0];
      state_[l].same_any += common(before, now) > 0;
    }
  }
  void pair(const Past& before, const Window& w, Index t, std::size_t lag) {
    for (std::size_t l = 0; l < state_.size(); ++l) {
      const auto& was = before.chosen[l];
      if (was.empty()) continue;
      state_[l].overlap[lag] += double(common(was, w.layer[l].of(t))) / double(was.size()), state_[l].pairs[lag] += 1;
    }
  }
  void remember(Recent& recent, const Window& w, Index t) {
    const std::size_t longest = std::size_t(std::max(1, lags_.empty() ? 1 : *std::max_element(lags_.begin(), lags_.end())));
    if (recent.past.size() >= longest) recent.past.erase(recent.past.begin());
    recent.past.push_back({w.rows.position[std::size_t(t)], {}});
    for (const LayerChoices& c : w.layer) recent.past.back().chosen.emplace_back(c.of(t).begin(), c.of(t).end());
  }

  Shape shape_;
  std::vector<int> lags_, blocks_;
  std::vector<TraceSequence> lengths_;
  std::vector<State> state_;
  std::unordered_map<std::uint32_t, Recent> recent_;  // of sequences not yet at their end
};

void Repeats::report(Report& r) const {
  if (state_.empty() || state_[0].neighbours == 0) return;
  const auto all = values();
  std::vector<double> null_first, null_any;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    null_first.push_back(1.0 / shape_.experts[l]);
    null_any.push_back(chance::repeat_any(shape_.experts[l], double(state_[l].assignments) / double(state_[l].tokens)));
  }
  r.tables.push_back({"repeats", "Does the next token keep its expert?", "Share of neighbouring tokens whose first choice is the same, and that share at least one expert. Random routing gives 1/E and 1 - C(E-K,K)/C(E,K); "
      "the Mixtral paper found 12.5 % expected and up to 28 % seen for first choices.", Chart::lines,
      {column({"layer", "", "absolute layer number", ""}, shape_.number), column({"same first choice", "share", "neighbours with the same first choice", "repeat_first"}, all[0].values, null_first),
       column({"a common expert", "share", "neighbours with at least one expert in common", "repeat_any"}, all[1].values, null_any)}, section::paths, false, {}});
  Table t{"lags", "Experts kept over distance", "Share of a token's experts that the token so many positions later has too; random routing: K/E. Falls towards the value of unrelated tokens.", Chart::none,
          {column({"layer", "", "absolute layer number", ""}, shape_.number)}, section::paths, true, {}};
  for (std::size_t i = 0; i < lags_.size(); ++i) {
    std::vector<double> v, null;
    for (std::size_t l = 0; l < state_.size(); ++l) {
      v.push_back(state_[l].pairs[i] > 0 ? all[2].values[l * lags_.size() + i] : no_value);
      null.push_back(double(state_[l].assignments) / double(state_[l].tokens) / shape_.experts[l]);
    }
    t.columns.push_back(column({"", "share", "mean overlap at this lag", "lag_overlap"}, v, null));
    t.columns.back().name = "lag " + std::to_string(lags_[i]);
  }
  r.tables.push_back(std::move(t));
  const std::size_t best = std::size_t(std::max_element(all[0].values.begin(), all[0].values.end()) - all[0].values.begin());
  r.findings.push_back("Neighbouring tokens keep their first expert in " + percent(all[0].values[best]) + " of cases in layer " + std::to_string(shape_.number[best]) + ", the most of all layers (random routing: " + percent(null_first[best]) + ").");
}

}  // namespace

std::unique_ptr<Metric> make_repeats_metric(Spec& spec, const TraceSource& trace, const AnalyzeOptions&) { return std::make_unique<Repeats>(spec, trace); }

}  // namespace moe
