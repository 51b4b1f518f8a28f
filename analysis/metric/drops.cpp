// What capacity dropped (as recorded), and what a capacity of other factors would have dropped on
// the whole trace.
#include <algorithm>
#include <cmath>

#include "analysis/metric/chance.h"
#include "analysis/metric/count_pass.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/verdict.h"
#include "lib/core/load.h"
#include "lib/core/text.h"

namespace moe {
namespace {

// Our own traces say what was dropped wherever something could be.
std::string why_no_drops(const TraceHeader& h) {
  const bool capacity = std::ranges::any_of(
      h.layers, [](const TraceLayer& l) { return !std::isnan(l.capacity_factor); });
  return h.engine == "moe" && !capacity ? "no capacity was in force: nothing was dropped"
                                        : "the trace does not say what was dropped";
}

class Drops final : public Metric {
 public:
  Drops(Spec& spec, const TraceSource& trace, const AnalyzeOptions& o)
      : shape_(trace),
        factors_(list_of(spec, "capacity_factors", list_text(usual_capacity_factors).c_str(), 0)),
        bucket_(spec.get("position_bucket", 64, 1)),
        threshold_(threshold_of("observed_drop_rate", o.thresholds)),
        recorded_(trace.fields().dropped && !counts_only(trace)),
        why_none_(why_no_drops(trace.header())),
        state_(shape_.experts.size()) {
    for (std::size_t l = 0; l < state_.size(); ++l)
      prepare(state_[l], shape_.experts[l], trace.header().layers[l].capacity_factor);
  }

  TraceFields needs() const override {
    TraceFields f = no_fields;
    f.dropped = recorded_;
    return f;
  }

  void observe_layer(const Window& w, Index l) override {
    State& s = state_[l];
    const LayerRows& rows = w.rows.layer[l];
    for (const Index t : w.valid) {
      if (recorded_)
        count_kept(s, rows, t, w.rows.step[t]);
      const auto chosen = w.layer[l].of(t);
      for (const int e : chosen)
        ++s.counts[e];
      ++s.tokens;
      if (rows.dropped.empty())
        continue;
      int lost = 0;
      for (Index j = 0; j < rows.expert.cols(); ++j)
        lost += rows.expert(t, j) >= 0 && rows.dropped(t, j);
      s.dropped += lost;
      at_position(s, w.rows.position[t], lost, int(chosen.size()));
      s.whole += lost && lost == int(chosen.size());
    }
  }

  bool counts_suffice() const override {
    return true;
  }
  void observe_counts(const CountWindow& w, Index l) override {
    State& s = state_[l];
    for (Index step = 0; step < w.count(); ++step) {
      const auto counts = w.of(step, l);
      for (std::size_t e = 0; e < counts.size(); ++e)
        s.counts[e] += counts[e];
      add_tokens(s.tokens, w.tokens(step, l));
    }
  }

  std::vector<MetricValue> values() const override {
    std::vector<std::vector<double>> would;
    std::vector<double> share, tokens;
    for (const State& s : state_) {
      would.push_back({});
      for (const double f : factors_)
        would.back().push_back(capacity_drop_rate(s.counts, f));
      share.push_back(drop_rate(s));
      tokens.push_back(double(s.whole) / double(s.tokens));
    }
    std::vector<MetricValue> out{per_layer("capacity_drop_rate", would)};
    if (!recorded_)
      return out;
    std::vector<std::vector<double>> places;
    for (const State& s : state_) {
      places.emplace_back();
      for (const Place& p : s.place)
        places.back().push_back(double(p.dropped) / double(p.all));
    }
    out.push_back(per_layer("observed_drop_rate", share));
    out.push_back(per_layer("observed_token_drop_rate", tokens));
    out.push_back(per_layer("observed_drop_rate_by_position", places));
    return out;
  }

  void report(Report& r) const override {
    if (std::ranges::all_of(
            state_, [](const State& s) { return load_figures(s.counts).assignments == 0; })) {
      return;
    }
    TableBuilder t("dropped", "Dropped by capacity", section::balance);
    t.reading(
        "A dropped assignment is not computed; a token that loses all of its experts passes "
        "through the residual alone. "
        "The capacity columns ask what would be dropped if every expert took at most factor x "
        "the mean load of the whole trace; their chance values are for random routing.");
    t.layers(shape_.number);
    const Values all(values());
    if (recorded_) {
      t.column("dropped")
          .unit("share")
          .meaning("assignments flagged as dropped")
          .of("observed_drop_rate", all)
          .digits(4)
          .judged_by(evidence());
      t.column("tokens without expert")
          .unit("share")
          .meaning("tokens whose every assignment was dropped")
          .of("observed_token_drop_rate", all)
          .digits(4);
    } else {
      t.warn(why_none_);
    }
    Memo& memo = store().memo;
    const std::vector<double>& rate = all.at("capacity_drop_rate").value;
    for (std::size_t i = 0; i < factors_.size(); ++i) {
      Values::Rows rows;
      for (std::size_t l = 0; l < state_.size(); ++l)
        rows.add(rate[l * factors_.size() + i], chance_drops(memo, l)[i]);
      t.column(concat("at factor ", factors_[i]))
          .unit("share")
          .meaning("share dropped at this capacity factor")
          .of("capacity_drop_rate")
          .digits(4)
          .rows(rows);
    }
    t.into(r);
    by_position(r);
    finding(r);
  }

 private:
  static constexpr std::size_t most_places = 256;  // later positions share the last bucket
  struct Place {
    std::int64_t dropped = 0, all = 0;
  };
  struct State {
    std::vector<std::int64_t> counts;
    std::vector<Place> place;                         // by bucket of positions
    std::int64_t tokens = 0, dropped = 0, whole = 0;  // tokens -1: not known
    // of the step being read: what every expert kept, and of its choices how many were dropped
    std::vector<std::int64_t> kept;
    std::int64_t lost = 0, chosen = 0;
    std::uint32_t step = 0;
    std::int64_t steps = 0;
    double factor = 0;  // in force; NaN = not recorded
    // over the steps that dropped: what the fullest expert kept over the mean load
    double full = 0, dropping = 0;
  };
  static void prepare(State& s, int experts, float factor) {
    s.counts.assign(std::size_t(experts), 0);
    s.kept.assign(std::size_t(experts), 0);
    s.factor = factor > 0 ? factor : no_value;
  }
  static void count_kept(State& s, const LayerRows& rows, Index t, std::uint32_t step) {
    if (step != s.step)
      end_step(s);
    s.step = step;
    for (Index j = 0; j < rows.expert.cols(); ++j) {
      const int e = rows.expert(t, j);
      if (e < 0)
        continue;
      ++s.chosen;
      (rows.dropped(t, j) ? s.lost : s.kept[e]) += 1;
    }
  }
  static void end_step(State& s) {
    if (s.chosen == 0)
      return;
    ++s.steps;
    if (s.lost > 0) {
      const double mean = double(s.chosen) / double(s.kept.size());
      s.full += double(*std::ranges::max_element(s.kept)) / mean;
      ++s.dropping;
    }
    std::ranges::fill(s.kept, 0);
    s.lost = 0;
    s.chosen = 0;
  }
  // The capacity factor in force: as recorded, else what full experts held.
  static double factor_of(const State& s) {
    return std::isnan(s.factor) && s.dropping > 0 ? s.full / s.dropping : s.factor;
  }
  // What random routing drops in steps of this size at the capacity in force.
  Evidence evidence() const;
  void at_position(State& s, std::uint32_t position, int lost, int all) const {
    const std::size_t at =
        std::min<std::size_t>(position / std::uint32_t(bucket_), most_places - 1);
    if (at >= s.place.size())
      s.place.resize(at + 1);
    s.place[at].dropped += lost;
    s.place[at].all += all;
  }
  // Summed over layers. A rule that fills experts in order of position drops towards the end of a
  // sequence.
  void by_position(Report& r) const {
    std::vector<Place> sum;
    Place all;
    for (const State& s : state_) {
      for (std::size_t i = 0; i < s.place.size(); ++i) {
        if (i >= sum.size())
          sum.resize(i + 1);
        sum[i].dropped += s.place[i].dropped;
        sum[i].all += s.place[i].all;
        all.dropped += s.place[i].dropped;
        all.all += s.place[i].all;
      }
    }
    if (all.dropped == 0 || sum.size() < 2)
      return;
    std::vector<std::int64_t> from;
    Values values;
    for (std::size_t i = 0; i < sum.size(); ++i) {
      from.push_back(std::int64_t(i) * bucket_);
      values["observed_drop_rate_by_position"].add(double(sum[i].dropped) / double(sum[i].all),
                                                   double(all.dropped) / double(all.all));
    }
    TableBuilder t("drops_by_position", "Where in the sequence capacity drops", section::balance);
    t.reading(
         "Share of assignments dropped by position, all layers together. A rule that fills experts "
         "in the order of positions drops towards the end; were position without influence, every "
         "bucket would show the share of the whole.")
        .chart(Chart::lines);
    t.key("position", "first position of the bucket", from);
    t.column("dropped")
        .unit("share")
        .meaning("assignments of these positions flagged as dropped")
        .of("observed_drop_rate_by_position", values)
        .digits(4);
    t.into(r);
  }
  static double drop_rate(const State& s) {
    return double(s.dropped) / double(load_figures(s.counts).assignments);
  }

  std::vector<chance::Value> chance_drops(Memo& memo, std::size_t l) const {
    const State& s = state_[l];
    if (s.tokens <= 0)
      return std::vector<chance::Value>(factors_.size());
    const double k = double(std::max<std::int64_t>(
        1, rounded(double(load_figures(s.counts).assignments) / double(s.tokens))));
    return memo.get({double(shape_.experts[l]), k, double(s.tokens)}, [&] {
      return chance::simulate_load(shape_.experts[l], int(k), s.tokens, factors_.size(),
                                   [&](auto counts) {
                                     std::vector<double> out;
                                     for (const double f : factors_)
                                       out.push_back(capacity_drop_rate(counts, f));
                                     return out;
                                   });
    });
  }

  void finding(Report& r) const {
    if (!recorded_)
      return;
    std::int64_t dropped = 0;
    std::int64_t all = 0;
    for (const State& s : state_) {
      dropped += s.dropped;
      all += load_figures(s.counts).assignments;
    }
    const QuotedTable t(r, "dropped");
    const Quote rates = t.basis("dropped");
    if (dropped == 0)
      return tell(r, derived("Nothing was dropped by capacity.", {rates}));
    const std::size_t worst = largest(t.numbers("dropped"));
    // the mean of the layers' rates, each weighing as many assignments as it has, which no column
    // of this table says
    tell(r, "Capacity dropped ", derived(percent(double(dropped) / double(all)), {rates}),
         " of all assignments, most in layer ", t.cell("layer", worst), " (",
         t.cell("dropped", worst).percent(), ").");
  }

  Shape shape_;
  std::vector<double> factors_;
  int bucket_;
  Threshold threshold_;  // of observed_drop_rate
  bool recorded_;
  std::string why_none_;  // why no drops are recorded
  std::vector<State> state_;
};

Evidence Drops::evidence() const {
  Evidence out;
  for (const State& open : state_) {
    State s = open;
    end_step(s);
    const double steps = double(s.steps);
    const int experts = int(s.counts.size());
    const double k = double(load_figures(s.counts).assignments) / double(s.tokens);
    const auto reach = [&](const chance::Size& size) {
      const auto of = [&](std::span<const std::int64_t> counts) {
        return std::vector<double>{capacity_drop_rate(counts, factor_of(s))};
      };
      const chance::Value v =
          chance::simulate_load(experts, whole_choices(k, experts), rounded(size.tokens), 1, of)[0];
      return v.mean + chance::rare_deviations(size.layers) * v.spread / std::sqrt(steps);
    };
    Judge judge(threshold_, reach);
    const bool known = s.steps > 0 && !std::isnan(factor_of(s));
    judge.add(
        {double(experts), k, known ? double(s.tokens) / steps : no_value, double(state_.size())});
    const Evidence one = judge.take();
    out.reach.push_back(known ? one.reach[0] : no_value);
    out.tokens.push_back(one.tokens[0]);
    out.needed.push_back(known ? one.needed[0] : no_value);
  }
  out.per = " a step";
  return out;
}

}  // namespace

std::unique_ptr<Metric> make_drops_metric(Spec& spec, const TraceSource& trace,
                                          const AnalyzeOptions& o) {
  return std::make_unique<Drops>(spec, trace, o);
}

}  // namespace moe
