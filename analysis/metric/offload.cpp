// Two passes over a trace: one half is learned from, the other judged. See offload.h.
#include "analysis/metric/offload.h"

#include <algorithm>
#include <numeric>

#include "analysis/metric/pass.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// The second pass.
class OffloadJudge final : public Metric {
 public:
  explicit OffloadJudge(OffloadMetric& owner) : owner_(owner) {}
  TraceFields needs() const override {
    return no_fields;
  }
  void observe_layer(const Window& w, Index layer) override {
    owner_.go_through(w, layer, 1);
  }
  std::vector<MetricValue> values() const override {
    return {};
  }
  void report(Report&) const override {}

 private:
  OffloadMetric& owner_;
};

}  // namespace

OffloadMetric::OffloadMetric(Spec& spec, const TraceSource& trace, const AnalyzeOptions& o)
    : trace_(trace), options_(o), shape_(trace), halves_(trace) {
  const int most_k = shape_.top_k.empty()
                         ? 1
                         : std::max(1, *std::max_element(shape_.top_k.begin(), shape_.top_k.end()));
  const int usual = std::max(1, shape_.max_experts() / 4);
  const int cache = spec.get("cache", usual, 1);
  const int ahead = spec.get("ahead", most_k, 0);
  sizes_ = whole_list_of(spec, "prefetch_sizes",
                         list_text(std::vector<int>{most_k, 2 * most_k}).c_str(), 1);
  most_ = spec.get("tokens", 65536, 0);
  bytes_ = spec.get("expert_bytes", 0.0, 0.0);
  for (std::size_t l = 0; l < shape_.experts.size(); ++l) {
    layer_.emplace_back(OffloadShape{.experts = shape_.experts[l],
                                     .before = l > 0 ? shape_.experts[l - 1] : 0,
                                     .cache = cache,
                                     .ahead = ahead,
                                     .sizes = sizes_});
  }
  check_memory(o.memory);
  last_.resize(layer_.size());
}

// Pairs of experts, and of each token its id's experts and what was fetched for it.
void OffloadMetric::check_memory(std::int64_t memory) const {
  const auto half = std::int64_t(trace_.tokens() / 2);
  const std::int64_t tokens = most_ > 0 ? std::min(most_, half) : half;
  std::int64_t bytes = pair_bytes(trace_);
  for (const int k : shape_.top_k)
    bytes += tokens * (std::int64_t{k} * 8 + std::int64_t(keepings) * 4 + 64);
  if (bytes > memory) {
    throw Error(Exit::usage,
                concat("offload takes ", bytes >> 20, " MiB for ", tokens,
                       " tokens, more than the ", memory >> 20, " MiB that one metric may have"))
        .hint("offload:tokens=N with fewer, or more of --memory");
  }
}

// Tokens one after the other, of both halves, so that each knows the one before it; the `half`
// asked for is learned from (0) or judged (1).
void OffloadMetric::go_through(const Window& w, Index l, int half) {
  OffloadLayer& layer = layer_[l];
  Last& last = last_[l];
  for (const Index t : w.valid) {
    const std::size_t row(t);
    if (halves_.of(w.rows.sequence[row], w.rows.position[row]) != half)
      continue;
    if (most_ > 0 && last.tokens >= most_)
      return;
    ++last.tokens;
    if (last.sequence != std::int64_t{w.rows.sequence[row]})
      last.experts.clear();
    last.sequence = w.rows.sequence[row];
    const std::span<const int> experts = w.layer[l].of(t);
    last.ids = last.ids || w.rows.token_id[row] != withheld_token;
    OffloadToken token{.id = w.rows.token_id[row], .last = last.experts, .experts = experts};
    if (l > 0)
      token.before = w.layer[l - 1].of(t);
    half == 0 ? layer.learn(token) : layer.judge(token);
    last.experts.assign(experts.begin(), experts.end());
  }
}

void OffloadMetric::observe_layer(const Window& w, Index l) {
  go_through(w, l, 0);
}

void OffloadMetric::finish() {
  for (OffloadLayer& layer : layer_)
    layer.learned();
  last_.assign(layer_.size(), {});
  OffloadJudge judge(*this);
  read_again(trace_, judge, options_);
}

double OffloadMetric::expert_bytes(std::size_t l) const {
  return bytes_ > 0 ? bytes_ : double(trace_.header().layers[l].expert_bytes);
}

bool OffloadMetric::knows_bytes() const {
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    if (!(expert_bytes(l) > 0))
      return false;
  }
  return true;
}

// Over the judged tokens, all layers together.
OffloadMetric::PerToken OffloadMetric::per_token(Keeping k, bool waited, bool in_bytes) const {
  std::vector<double> sums;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const auto& of = waited ? layer_[l].misses(k) : layer_[l].fetched(k);
    sums.resize(std::max(sums.size(), of.size()), 0);
    for (std::size_t t = 0; t < of.size(); ++t)
      sums[t] += of[t] * (in_bytes ? expert_bytes(l) : 1);
  }
  if (sums.empty())
    return {};
  std::sort(sums.begin(), sums.end());
  // the smallest that so many of a hundred tokens do not exceed
  const auto quantile = [&](std::size_t percent) {
    return sums[(sums.size() * percent + 99) / 100 - 1];
  };
  const double all = std::accumulate(sums.begin(), sums.end(), 0.0);
  return {all / double(sums.size()), quantile(50), quantile(99)};
}

void OffloadMetric::give_recalls(std::vector<MetricValue>& out) const {
  constexpr const char* ids[] = {"prefetch_recall_previous_layer", "prefetch_recall_token_id",
                                 "prefetch_recall_last_token", "prefetch_recall_most_used"};
  for (std::size_t f = 0; f < foresights; ++f) {
    std::vector<std::vector<double>> rows;
    for (const OffloadLayer& layer : layer_) {
      rows.emplace_back();
      for (std::size_t i = 0; i < sizes_.size(); ++i)
        rows.back().push_back(layer.recall(Foresight(f), i));
    }
    out.push_back(per_layer(ids[f], rows));
  }
}

void OffloadMetric::give_caches(std::vector<MetricValue>& out) const {
  const auto give = [&](const char* id, bool waited, bool in_bytes, double PerToken::*of) {
    MetricValue v{id, {Index(keepings)}, {}};
    for (std::size_t k = 0; k < keepings; ++k)
      v.values.push_back(per_token(Keeping(k), waited, in_bytes).*of);
    out.push_back(std::move(v));
  };
  give("offload_misses", true, false, &PerToken::mean);
  give("offload_misses_p50", true, false, &PerToken::half);
  give("offload_misses_p99", true, false, &PerToken::most);
  give("offload_fetched", false, false, &PerToken::mean);
  if (!knows_bytes())
    return;
  give("offload_bytes", false, true, &PerToken::mean);
  give("offload_bytes_p50", false, true, &PerToken::half);
  give("offload_bytes_p99", false, true, &PerToken::most);
}

std::vector<MetricValue> OffloadMetric::values() const {
  std::vector<MetricValue> out;
  give_recalls(out);
  give_caches(out);
  std::vector<double> plain, learned;
  std::vector<std::vector<double>> order;
  for (const OffloadLayer& layer : layer_) {
    plain.push_back(layer.reads_in_order());
    learned.push_back(layer.reads());
    order.emplace_back(layer.order().begin(), layer.order().end());
  }
  out.push_back(per_layer("disk_reads_in_order", plain));
  out.push_back(per_layer("disk_reads", learned));
  out.push_back(per_layer("disk_order", order));
  return out;
}

std::unique_ptr<Metric> make_offload_metric(Spec& spec, const TraceSource& trace,
                                            const AnalyzeOptions& o) {
  return std::make_unique<OffloadMetric>(spec, trace, o);
}

}  // namespace moe
