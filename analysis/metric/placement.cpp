// What replicating and placing the busy experts (EPLB) would bring: the GPUs' balance under the
// loads that the plan was made from, and, which is what counts, under loads it has not seen:
// planned on every second sequence of each domain, judged on the others. How far a plan carries
// over to text of another kind is a figure of its own: judged on each domain, planned on all
// others. Where an engine only counted: planned on every second step, judged on the others.
#include <algorithm>
#include <array>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/count_pass.h"
#include "analysis/metric/halves.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/verdict.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/serving/eplb.h"

namespace moe {
namespace {

class Placement final : public Metric {
 public:
  Placement(Spec& spec, const TraceSource& trace, const AnalyzeOptions& o)
      : shape_(trace),
        threshold_(threshold_of("ep_balancedness", o.thresholds)),
        halves_(trace),
        half_(trace.tokens() / 2),
        counted_(counts_only(trace)),
        steps_(trace.count_steps()),
        domains_(counted_ ? 1 : trace.header().domains.size() + 1),
        layer_(shape_.experts.size()) {
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
      State& s = layer_[l];
      s.rows[0].assign(std::size_t(shape_.experts[l]), 0);
      s.rows[1] = s.rows[0];
      s.steps = s.rows;
      s.part.assign(domains_, s.rows);
      s.tokens_of.assign(domains_, 0);
      // refuses numbers that do not divide before anything is read
      eplb_plan(s.rows[0], of(shape_.experts[l]));
    }
  }

  TraceFields needs() const override {
    return no_fields;
  }

  void observe_layer(const Window& w, Index l) override {
    State& s = layer_[l];
    for (const Index t : w.valid) {
      const std::size_t row(t);
      // -1 is none; a number that no name stands for counts as none too
      const std::size_t domain = std::min(std::size_t(w.domain[row]), domains_ - 1);
      Counts& by_row = s.rows[w.rows.first + row < half_ ? 0 : 1];
      Counts& part = s.part[domain][halves_.of(w.rows.sequence[row], w.rows.position[row])];
      for (const int e : w.layer[l].of(t)) {
        by_row[e] += 1;
        part[e] += 1;
      }
      ++s.tokens_of[domain];
    }
  }

  bool counts_suffice() const override {
    return true;
  }
  void observe_counts(const CountWindow& w, Index l) override {
    State& s = layer_[l];
    for (Index step = 0; step < w.count(); ++step) {
      const std::size_t half = (w.steps.first + std::uint64_t(step)) % 2;
      const auto counts = w.of(step, l);
      for (std::size_t e = 0; e < counts.size(); ++e)
        s.steps[half][e] += counts[e];
      add_tokens(s.step_tokens[half], w.tokens(step, l));
    }
  }

  std::vector<MetricValue> values() const override {
    std::vector<double> seen, unseen, later, elsewhere;
    for (const State& s : layer_) {
      const Judged here = judged(parts(s), s.tokens_of);
      seen.push_back(here[1]);
      unseen.push_back(here[2]);
      elsewhere.push_back(here[3]);
      later.push_back(carried_over(s.rows[0], s.rows[1]));
    }
    if (counted_)
      return {per_layer("eplb_balancedness", seen), per_layer(of_steps, unseen)};
    return {per_layer("eplb_balancedness", seen), per_layer("eplb_balancedness_unseen", unseen),
            per_layer("eplb_balancedness_other_domains", elsewhere),
            per_layer("eplb_balancedness_held_out", later)};
  }

  void report(Report& r) const override {
    std::vector<std::int64_t> layer;
    Values values;
    Memo& memo = store().memo;
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      const State& s = layer_[l];
      const double n = assignments(s);
      if (n == 0)
        continue;
      const int experts = shape_.experts[l];
      const Judged here = judged(parts(s), s.tokens_of);
      const auto& lot = by_chance(memo, experts, n, s);
      layer.push_back(shape_.number[l]);
      for (std::size_t c = 0; c < ids.size(); ++c)
        values[c == 2 && counted_ ? of_steps : ids[c]].add(here[c], lot[c]);
    }
    if (layer.empty())
      return;
    table(r, layer, values);
  }

 private:
  void table(Report& r, const std::vector<std::int64_t>& layer, const Values& values) const {
    TableBuilder t("placement", "What replicating busy experts would bring", section::deployment);
    const bool one_step = counted_ && steps_ < 2;
    t.reading(concat(
        "Mean over largest load of ", eplb_.gpus, " GPUs, 1 = even: experts in order; with ",
        extra_, " more slots filled and placed by EPLB from these very loads; ",
        one_step ? "of a single step there is none left to judge on, so the plan flatters itself"
        : counted_
            ? "and planned on every second step and judged on the others, which is what a server "
              "would see of such traffic"
            : "planned on every second sequence of each domain and judged on the others, "
              "which is what a server would see of such text; and judged on each domain, "
              "planned on all others, which is what it would see of another kind of text",
        ". Random routing has little to gain."));
    t.layers(layer);
    t.column("in order")
        .meaning("mean over largest GPU load, experts placed in order")
        .of("ep_balancedness", values)
        .judged_by(evidence());
    t.column("planned")
        .meaning("mean over largest GPU load, planned and judged on the whole trace")
        .of("eplb_balancedness", values);
    if (counted_ && !one_step) {
      t.column("unseen steps")
          .meaning("mean over largest GPU load of every second step, planned on the others")
          .of(of_steps, values);
    }
    if (!counted_) {
      t.column("unseen text")
          .meaning("mean over largest GPU load of every second sequence, planned on the others")
          .of("eplb_balancedness_unseen", values);
    }
    if (domains_ > 2) {
      t.column("other domains")
          .meaning(
              "mean over largest GPU load of a domain, planned on all others; over domains, "
              "by their tokens")
          .of("eplb_balancedness_other_domains", values);
    }
    t.into(r);
  }
  using Counts = std::vector<double>;    // (E)
  using Halved = std::array<Counts, 2>;  // of two halves
  struct State {
    Halved rows;                          // first and second half of the trace
    Halved steps;                         // even and odd ones, where an engine counted
    std::vector<Halved> part;             // (domains) every second sequence; the last: no domain
    std::vector<std::int64_t> tokens_of;  // (domains)
    std::array<std::int64_t, 2> step_tokens{};  // where an engine counted; -1: not known
  };
  static constexpr const char* of_steps = "eplb_balancedness_unseen_steps";

  double assignments(const State& s) const {
    const Halved& both = counted_ ? s.steps : s.rows;
    return std::accumulate(both[0].begin(), both[0].end(), 0.0) +
           std::accumulate(both[1].begin(), both[1].end(), 0.0);
  }

  // Of the layers that have a row; -1: not known
  static std::int64_t tokens_of(const State& s, bool counted) {
    std::int64_t sum = 0;
    if (counted) {
      for (const std::int64_t half : s.step_tokens)
        add_tokens(sum, half);
      return sum;
    }
    return std::accumulate(s.tokens_of.begin(), s.tokens_of.end(), sum);
  }
  Evidence evidence() const {
    struct Row {
      double experts, assignments;
      std::int64_t tokens;
    };
    std::vector<Row> rows;
    for (std::size_t l = 0; l < layer_.size(); ++l) {
      const State& s = layer_[l];
      if (const double n = assignments(s); n > 0)
        rows.push_back({double(shape_.experts[l]), n, tokens_of(s, counted_)});
    }
    const bool known = std::ranges::none_of(rows, [](const Row& r) { return r.tokens < 0; });
    Judge out(threshold_, [gpus = eplb_.gpus](const chance::Size& s) {
      return chance::reach_balancedness(s, gpus);
    });
    for (const Row& r : rows) {
      const double tokens = double(r.tokens);
      if (known)
        out.add({r.experts, r.assignments / tokens, tokens, double(rows.size())});
      else
        out.add_assignments(r.experts, r.assignments, double(rows.size()));
    }
    return out.take();
  }
  // What stands for the text that a plan has seen, and for what it has not.
  std::vector<Halved> parts(const State& s) const {
    return counted_ ? std::vector<Halved>{s.steps} : s.part;
  }
  EplbShape of(int experts) const {
    EplbShape s = eplb_;
    s.replicas = (experts + extra_ + s.gpus - 1) / s.gpus * s.gpus;
    return s;
  }
  // mean over largest load of experts in order; planned; of unseen sequences; of other domains
  static constexpr std::array ids{"ep_balancedness", "eplb_balancedness",
                                  "eplb_balancedness_unseen", "eplb_balancedness_other_domains"};
  using Judged = std::array<double, ids.size()>;

  static bool any(const Counts& counts) {
    return std::any_of(counts.begin(), counts.end(), [](double c) { return c > 0; });
  }
  // Planned on some counts, judged on others.
  double carried_over(const Counts& planned, const Counts& judged) const {
    const EplbShape s = of(int(planned.size()));
    if (!any(planned) || !any(judged))
      return no_value;
    return eplb_balancedness(eplb_plan(planned, s), judged, s.gpus);
  }
  // Each domain under the plan of all others, by its tokens.
  double to_other_domains(const Counts& all, const std::vector<Halved>& part,
                          const std::vector<std::int64_t>& tokens) const {
    double sum = 0;
    double weight = 0;
    for (std::size_t d = 0; d < part.size(); ++d) {
      Counts own = part[d][0];
      Counts others = all;
      for (std::size_t e = 0; e < others.size(); ++e) {
        own[e] += part[d][1][e];
        others[e] -= own[e];
      }
      const double value = carried_over(others, own);
      if (std::isnan(value))
        continue;
      sum += value * double(tokens[d]);
      weight += double(tokens[d]);
    }
    return weight > 0 ? sum / weight : no_value;
  }
  Judged judged(const std::vector<Halved>& part, const std::vector<std::int64_t>& tokens) const {
    const std::size_t experts = part[0][0].size();
    const EplbShape s = of(int(experts));
    Halved half{Counts(experts), Counts(experts)};
    Counts all(experts);
    Counts load(std::size_t(s.gpus), 0);
    for (std::size_t e = 0; e < experts; ++e) {
      for (const Halved& of_domain : part) {
        half[0][e] += of_domain[0][e];
        half[1][e] += of_domain[1][e];
      }
      all[e] = half[0][e] + half[1][e];
      load[e * load.size() / experts] += all[e];
    }
    const double most = *std::max_element(load.begin(), load.end());
    const double plain =
        most > 0 ? std::accumulate(load.begin(), load.end(), 0.0) / double(s.gpus) / most
                 : no_value;
    return {plain, eplb_plan(all, s).balancedness, carried_over(half[0], half[1]),
            to_other_domains(all, part, tokens)};
  }
  // The tokens of both halves of each domain.
  using HalvedTokens = std::vector<std::array<std::int64_t, 2>>;

  // The figures of one draw of random routing.
  Judged judged_at_random(int experts, int k, const HalvedTokens& tokens, Rng& rng) const {
    std::vector<Halved> part(tokens.size());
    std::vector<std::int64_t> both;
    for (std::size_t d = 0; d < tokens.size(); ++d) {
      for (const std::size_t h : {0, 1}) {
        const auto drawn = chance::draw_counts(experts, k, tokens[d][h], rng);
        part[d][h].assign(drawn.begin(), drawn.end());
      }
      both.push_back(tokens[d][0] + tokens[d][1]);
    }
    return judged(part, both);
  }
  const std::vector<chance::Value>& by_chance(Memo& memo, int experts, double assignments,
                                              const State& s) const {
    HalvedTokens tokens;
    double all = 0;
    if (counted_)
      tokens.push_back(s.step_tokens);
    for (std::size_t d = 0; d < s.tokens_of.size() && !counted_; ++d)
      tokens.push_back({(s.tokens_of[d] + 1) / 2, s.tokens_of[d] / 2});
    bool known = true;
    std::vector<double> key{double(experts)};
    for (const auto& half : tokens) {
      known &= half[0] >= 0 && half[1] >= 0;
      all += double(half[0] + half[1]);
      key.insert(key.end(), {double(half[0]), double(half[1])});
    }
    const int k = known ? whole_choices(assignments / all, experts) : 0;
    key.push_back(k);
    return memo.get(key, [&] {
      return known ? random(experts, k, tokens) : std::vector<chance::Value>(ids.size());
    });
  }
  std::vector<chance::Value> random(int experts, int k, const HalvedTokens& tokens) const {
    std::array<std::vector<double>, ids.size()> seen;
    for (int run = 0; run < 100; ++run) {
      Rng rng(chance::seed, std::uint64_t(run));
      const Judged one = judged_at_random(experts, k, tokens, rng);
      for (std::size_t c = 0; c < ids.size(); ++c)
        seen[c].push_back(one[c]);
    }
    std::vector<chance::Value> out;
    for (const std::vector<double>& runs : seen)
      out.push_back(chance::of_runs(runs));
    return out;
  }

  Shape shape_;
  Threshold threshold_;  // of ep_balancedness
  EplbShape eplb_;
  int extra_ = 0;
  Halves halves_;
  std::uint64_t half_;
  bool counted_;  // by the engine, there are no tokens
  std::uint64_t steps_;
  std::size_t domains_;  // and one for rows without
  std::vector<State> layer_;
};

}  // namespace

std::unique_ptr<Metric> make_placement_metric(Spec& spec, const TraceSource& trace,
                                              const AnalyzeOptions& o) {
  return std::make_unique<Placement>(spec, trace, o);
}

}  // namespace moe
