// What replicating and placing the busy experts (EPLB) would bring: the GPUs' balance under the
// loads that the plan was made from, and, which is what counts, under loads it has not seen:
// planned on every second sequence of each domain, judged on the others. How far a plan carries
// over to text of another kind is a figure of its own: judged on each domain, planned on all
// others.
#include <array>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/eplb.h"
#include "analysis/metric/halves.h"
#include "analysis/metric/layout.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

class Placement final : public Metric {
 public:
  Placement(Spec& spec, const TraceSource& trace)
      : shape_(trace),
        halves_(trace),
        half_(trace.tokens() / 2),
        domains_(trace.header().domains.size() + 1),
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
    State& s = layer_[std::size_t(l)];
    for (const Index t : w.valid) {
      const std::size_t row(t);
      const std::size_t domain(w.domain[row] < 0 ? domains_ - 1 : std::size_t(w.domain[row]));
      Counts& by_row = s.rows[w.rows.first + row < half_ ? 0 : 1];
      Counts& part = s.part[domain][halves_.of(w.rows.sequence[row], w.rows.position[row])];
      for (const int e : w.layer[std::size_t(l)].of(t)) {
        by_row[std::size_t(e)] += 1;
        part[std::size_t(e)] += 1;
      }
      ++s.tokens;
      ++s.tokens_of[domain];
    }
  }

  std::vector<MetricValue> values() const override {
    std::vector<double> seen, unseen, later, elsewhere;
    for (const State& s : layer_) {
      const Judged here = judged(s.part, s.tokens_of);
      seen.push_back(here[1]);
      unseen.push_back(here[2]);
      elsewhere.push_back(here[3]);
      later.push_back(carried_over(s.rows[0], s.rows[1]));
    }
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
      const double n = std::accumulate(s.rows[0].begin(), s.rows[0].end(), 0.0) +
                       std::accumulate(s.rows[1].begin(), s.rows[1].end(), 0.0);
      if (n == 0)
        continue;
      const int experts = shape_.experts[l];
      const int k = whole_choices(n / double(s.tokens), experts);
      const Judged here = judged(s.part, s.tokens_of);
      std::vector<double> size{double(experts), double(k)};
      size.insert(size.end(), s.tokens_of.begin(), s.tokens_of.end());
      const auto& lot = memo.get(size, [&] { return random(experts, k, s.tokens_of); });
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
        " more slots filled and placed by EPLB from these very loads; planned on every second "
        "sequence of each domain and judged on the others, which is what a server would see of "
        "such text; and judged on each domain, planned on all others, which is what it would see "
        "of another kind of text. Random routing has little to gain."));
    t.layers(layer);
    t.column("in order")
        .meaning("mean over largest GPU load, experts placed in order")
        .of("ep_balancedness", values);
    t.column("planned")
        .meaning("mean over largest GPU load, planned and judged on the whole trace")
        .of("eplb_balancedness", values);
    t.column("unseen text")
        .meaning("mean over largest GPU load of every second sequence, planned on the others")
        .of("eplb_balancedness_unseen", values);
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
    std::vector<Halved> part;             // (domains) every second sequence; the last: no domain
    std::vector<std::int64_t> tokens_of;  // (domains)
    std::int64_t tokens = 0;
  };
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
  // The figures of one draw of random routing: half of each domain's tokens in each half.
  Judged judged_at_random(int experts, int k, const std::vector<std::int64_t>& tokens,
                          Rng& rng) const {
    std::vector<Halved> part(tokens.size());
    for (std::size_t d = 0; d < tokens.size(); ++d) {
      for (const int h : {0, 1}) {
        const auto drawn = chance::draw_counts(experts, k, (tokens[d] + 1 - h) / 2, rng);
        part[d][std::size_t(h)].assign(drawn.begin(), drawn.end());
      }
    }
    return judged(part, tokens);
  }
  std::vector<chance::Value> random(int experts, int k,
                                    const std::vector<std::int64_t>& tokens) const {
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
  EplbShape eplb_;
  int extra_ = 0;
  Halves halves_;
  std::uint64_t half_;
  std::size_t domains_;  // and one for rows without
  std::vector<State> layer_;
};

}  // namespace

std::unique_ptr<Metric> make_placement_metric(Spec& spec, const TraceSource& trace,
                                              const AnalyzeOptions&) {
  return std::make_unique<Placement>(spec, trace);
}

}  // namespace moe
