// What replicating and placing the busy experts (EPLB) would bring: the GPUs' balance under the
// loads that the plan was made from, and, which is what counts, under loads it has not seen:
// planned on the first half of the trace, judged on the second.
#include <array>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/eplb.h"
#include "analysis/metric/layout.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

class Placement final : public Metric {
 public:
  Placement(Spec& spec, const TraceSource& trace)
      : shape_(trace), half_(trace.tokens() / 2), layer_(shape_.experts.size()) {
    int gpus = 8;
    for (const int e : shape_.experts) {
      while (gpus > 1 && gpus > e / 2)
        gpus /= 2;
    }
    eplb_.gpus = spec.get("gpus", gpus, 1);
    extra_ = spec.get("extra", eplb_.gpus, 0);
    eplb_.nodes = spec.get("nodes", 1, 1);
    eplb_.groups = spec.get("groups", 1, 1);
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      layer_[l].first.assign(std::size_t(shape_.experts[l]), 0);
      layer_[l].second = layer_[l].first;
      // refuses numbers that do not divide before anything is read
      eplb_plan(layer_[l].first, of(shape_.experts[l]));
    }
  }

  TraceFields needs() const override {
    return no_fields;
  }

  void observe_layer(const Window& w, Index l) override {
    State& s = layer_[std::size_t(l)];
    for (const Index t : w.valid) {
      auto& counts = w.rows.first + std::uint64_t(t) < half_ ? s.first : s.second;
      for (const int e : w.layer[std::size_t(l)].of(t))
        counts[std::size_t(e)] += 1;
      ++s.tokens;
    }
  }

  std::vector<MetricValue> values() const override {
    std::vector<double> seen, unseen;
    for (const State& s : layer_) {
      const auto [in_order, planned, held_out] = judged(s.first, s.second);
      seen.push_back(planned);
      unseen.push_back(held_out);
    }
    return {per_layer("eplb_balancedness", seen), per_layer("eplb_balancedness_held_out", unseen)};
  }

  void report(Report& r) const override {
    std::vector<std::int64_t> layer;
    Values values;
    Memo& memo = store().memo;
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      const State& s = layer_[l];
      const double n = std::accumulate(s.first.begin(), s.first.end(), 0.0) +
                       std::accumulate(s.second.begin(), s.second.end(), 0.0);
      if (n == 0)
        continue;
      const int experts = shape_.experts[l];
      const int k = whole_choices(n / double(s.tokens), experts);
      const Judged here = judged(s.first, s.second);
      const auto& lot = memo.get({double(experts), double(k), double(s.tokens)},
                                 [&] { return random(experts, k, s.tokens); });
      layer.push_back(shape_.number[l]);
      for (std::size_t c = 0; c < ids.size(); ++c)
        values[ids[c]].add(here[c], lot[c]);
    }
    if (layer.empty())
      return;
    table(r, layer, values);
  }

 private:
  void table(Report& r, const std::vector<std::int64_t>& layer, const Values& values) const {
    TableBuilder t("placement", "What replicating busy experts would bring", section::deployment);
    t.reading(concat(
        "Mean over largest load of ", eplb_.gpus, " GPUs, 1 = even: experts in order; with ",
        extra_,
        " more slots filled and placed by EPLB from these very loads; and the same planned on "
        "the first half of the trace, judged on the second. Only the last says what a server "
        "would see. Random routing has little to gain."));
    t.layers(layer);
    t.column("in order")
        .meaning("mean over largest GPU load, experts placed in order")
        .of("ep_balancedness", values);
    t.column("planned")
        .meaning("mean over largest GPU load, planned and judged on the whole trace")
        .of("eplb_balancedness", values);
    t.column("held out")
        .meaning("mean over largest GPU load of the second half, planned on the first")
        .of("eplb_balancedness_held_out", values);
    t.into(r);
  }
  struct State {
    std::vector<double> first, second;  // (E) counts of the two halves
    std::int64_t tokens = 0;
  };
  EplbShape of(int experts) const {
    EplbShape s = eplb_;
    s.replicas = (experts + extra_ + s.gpus - 1) / s.gpus * s.gpus;
    return s;
  }
  // mean over largest load of experts in order, planned, and held out
  static constexpr std::array ids{"ep_balancedness", "eplb_balancedness",
                                  "eplb_balancedness_held_out"};
  using Judged = std::array<double, ids.size()>;
  Judged judged(const std::vector<double>& first, const std::vector<double>& second) const {
    const EplbShape s = of(int(first.size()));
    std::vector<double> all(first.size());
    std::vector<double> load(std::size_t(s.gpus), 0);
    for (std::size_t e = 0; e < all.size(); ++e) {
      all[e] = first[e] + second[e];
      load[e * load.size() / all.size()] += all[e];
    }
    const double most = *std::max_element(load.begin(), load.end());
    const double plain =
        most > 0 ? std::accumulate(load.begin(), load.end(), 0.0) / double(s.gpus) / most
                 : no_value;
    const bool halves = std::any_of(first.begin(), first.end(), [](double c) { return c > 0; });
    return {plain, eplb_plan(all, s).balancedness,
            halves ? eplb_balancedness(eplb_plan(first, s), second, s.gpus) : no_value};
  }
  std::vector<chance::Value> random(int experts, int k, std::int64_t tokens) const {
    std::array<std::vector<double>, ids.size()> seen;
    for (int run = 0; run < 100; ++run) {
      Rng rng(chance::seed, std::uint64_t(run));
      const auto a = chance::draw_counts(experts, k, std::max<std::int64_t>(1, tokens / 2), rng);
      const auto b =
          chance::draw_counts(experts, k, std::max<std::int64_t>(1, tokens - tokens / 2), rng);
      const Judged one = judged({a.begin(), a.end()}, {b.begin(), b.end()});
      for (std::size_t c = 0; c < ids.size(); ++c)
        seen[c].push_back(one[c]);
    }
    std::vector<chance::Value> out;
    for (const std::vector<double>& runs : seen)
      out.push_back(chance::of_runs(runs));
    return out;
  }

  Shape shape_;
  EplbShape eplb_;
  int extra_ = 0;
  std::uint64_t half_;
  std::vector<State> layer_;
};

}  // namespace

std::unique_ptr<Metric> make_placement_metric(Spec& spec, const TraceSource& trace,
                                              const AnalyzeOptions&) {
  return std::make_unique<Placement>(spec, trace);
}

}  // namespace moe
