// What place.h measures, as a table and a verdict.
#include <cmath>
#include <numeric>

#include "analysis/metric/bootstrap.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/place.h"

namespace moe {
namespace {

constexpr double worth = 0.02;  // of the work of the busiest GPU, or of the traffic
constexpr double endless = std::numeric_limits<double>::infinity();

// Of a token of node s: other nodes that get a copy (dedup), or choices computed there, where
// experts are drawn at random.
double remote_by_chance(const Matrix<int>& target, int s, int k, int nodes, bool dedup) {
  const auto experts = double(target.cols());
  std::vector<double> on(std::size_t(nodes), 0);
  for (Index e = 0; e < target.cols(); ++e)
    on[target(s, e)] += 1;
  double sum = 0;
  for (int d = 0; d < nodes; ++d) {
    if (d != s)
      sum += dedup ? chance::meets(experts, k, on[d]) : k * on[d] / experts;
  }
  return sum;
}

}  // namespace

// Of the plan, under random routing: nothing is random about the plan itself.
chance::Value PlaceMetric::traffic_by_chance(const State& s, const PlacePlan& plan, int k,
                                             bool dedup) const {
  if (counted_)
    return {};
  const Matrix<int> target = place_targets(plan, place_);
  const double all = std::accumulate(s.from.begin(), s.from.end(), 0.0);
  double sum = 0;
  for (int node = 0; node < place_.nodes; ++node)
    sum += s.from[node] * remote_by_chance(target, node, k, place_.nodes, dedup);
  return {all > 0 ? sum / all : no_value};
}

// Simulated: in order, planned, gain; planned on the loads of as many random tokens.
std::vector<chance::Value> PlaceMetric::balance_by_chance(const State& s, int experts,
                                                          int k) const {
  const auto& make = place_policies().at(policy_).make;
  if (k == 0)
    return std::vector<chance::Value>(3);
  const PlacePlan plain = place_in_order(experts, place_.gpus);
  std::array<std::vector<double>, 3> seen;
  for (int run = 0; run < 40; ++run) {
    Rng rng(chance::seed, std::uint64_t(run));
    std::array<std::vector<double>, 2> half;
    for (const std::size_t h : {0, 1}) {
      const auto drawn =
          chance::draw_counts(experts, k, std::max<std::int64_t>(1, s.tokens[h]), rng);
      half[h].assign(drawn.begin(), drawn.end());
    }
    const PlacePlan plan = make({half[0], {}}, place_);
    seen[0].push_back(place_balancedness(plain, half[1], place_.gpus));
    seen[1].push_back(place_balancedness(plan, half[1], place_.gpus));
    seen[2].push_back(seen[1].back() / seen[0].back());
  }
  return {chance::of_runs(seen[0]), chance::of_runs(seen[1]), chance::of_runs(seen[2])};
}

int PlaceMetric::choices_of(std::size_t l) const {
  const State& s = layer_[l];
  if (s.tokens[0] < 0 || s.tokens[1] < 0)
    return 0;
  return whole_choices(double(s.choices) / double(s.tokens[0] + s.tokens[1]), shape_.experts[l]);
}

namespace {

// Figures of the layers, row by row, with their intervals.
class Rows {
 public:
  void add(const char* id, const PlaceFigure& figure, const chance::Value& lot) {
    values_[id].add(figure[0], lot);
    const Interval i = interval_of(figure, figure[0], 0, endless);
    low_[id].push_back(i.low);
    high_[id].push_back(i.high);
  }
  void column(TableBuilder& t, const char* name, const char* unit, const char* meaning,
              const char* id) {
    t.column(name).unit(unit).meaning(meaning).of(id, values_).interval(low_[id], high_[id]);
  }

 private:
  Values values_;
  std::map<std::string, std::vector<double>> low_, high_;
};

std::string reading(const PlaceShape& s, bool counted) {
  return concat("Planned for ", s.gpus, " GPUs on ", s.nodes, s.nodes == 1 ? " node" : " nodes",
                " with ", s.extra, " extra slots a layer, on every second ",
                counted ? "step" : "sequence of each domain",
                ", and judged on the others. Balance: mean over largest load of the GPUs, 1 = "
                "even. Gain: how many times less the "
                "busiest GPU has to do than with experts in order.",
                counted ? "" : " Intervals: 95 %, over the judged sequences.");
}

void columns(TableBuilder& t, Rows& rows, int nodes) {
  rows.column(t, "in order", "", "mean over largest GPU load, experts in order",
              "place_balancedness_in_order");
  rows.column(t, "planned", "", "mean over largest GPU load, planned on the other half",
              "place_balancedness");
  rows.column(t, "gain", "x", "planned over in order", "place_gain");
  if (nodes == 1)
    return;
  rows.column(t, "nodes in order", "a token",
              "other nodes that get a copy of a token, experts in order",
              "place_remote_nodes_in_order");
  rows.column(t, "nodes planned", "a token", "the same, planned", "place_remote_nodes");
  rows.column(t, "copies in order", "a token", "choices computed on other nodes, experts in order",
              "place_remote_copies_in_order");
  rows.column(t, "copies planned", "a token", "the same, planned", "place_remote_copies");
}

}  // namespace

void PlaceMetric::table(Report& r, const std::vector<std::size_t>& used) const {
  Rows rows;
  std::vector<std::int64_t> layer;
  for (const std::size_t l : used) {
    const State& s = layer_[l];
    const int experts = shape_.experts[l];
    const int k = choices_of(l);
    layer.push_back(shape_.number[l]);
    const std::vector<double> key{double(experts), double(k), double(s.tokens[0]),
                                  double(s.tokens[1])};
    const auto& lot = store().memo.get(key, [&] { return balance_by_chance(s, experts, k); });
    rows.add("place_balancedness_in_order", s.plain.balancedness, lot[0]);
    rows.add("place_balancedness", s.planned.balancedness, lot[1]);
    rows.add("place_gain", gain(s), lot[2]);
    const auto traffic = [&](const PlacePlan& plan, bool dedup) {
      return traffic_by_chance(s, plan, k, dedup);
    };
    rows.add("place_remote_nodes_in_order", s.plain.nodes, traffic(s.in_order, true));
    rows.add("place_remote_nodes", s.planned.nodes, traffic(s.plan_of_half, true));
    rows.add("place_remote_copies_in_order", s.plain.copies, traffic(s.in_order, false));
    rows.add("place_remote_copies", s.planned.copies, traffic(s.plan_of_half, false));
  }
  TableBuilder t("place", concat("What placing experts by ", policy_, " would bring"),
                 section::deployment);
  t.reading(reading(place_, counted_));
  t.layers(std::move(layer));
  columns(t, rows, counted_ ? 1 : place_.nodes);
  t.into(r);
}

namespace {

// The mean over layers, replica by replica.
PlaceFigure mean_of(const std::vector<PlaceFigure>& layers) {
  PlaceFigure out(layers[0].size(), 0);
  for (const PlaceFigure& f : layers) {
    for (std::size_t r = 0; r < out.size(); ++r)
      out[r] += f[r] / double(layers.size());
  }
  return out;
}

// "12.3 % less (95 % interval 10.1 to 14.5)"; of what falls below nothing, how much more it is.
std::string less(double share, const Interval& i) {
  const double sign = share >= 0 ? 1 : -1;
  std::string out = concat(percent(sign * share), share >= 0 ? " less" : " more");
  if (std::isnan(i.low))
    return out;
  const double ends[] = {sign * (share >= 0 ? i.low : i.high),
                         sign * (share >= 0 ? i.high : i.low)};
  return concat(out, " (95 % interval ", figure(100 * ends[0], 1), " to ", figure(100 * ends[1], 1),
                ")");
}

PlaceFigure each_of(const PlaceFigure& a, const PlaceFigure& b, double (*of)(double, double)) {
  PlaceFigure out;
  for (std::size_t r = 0; r < a.size(); ++r)
    out.push_back(of(a[r], b[r]));
  return out;
}

// What is saved of the plain figure, 0 where there was nothing.
double saved(double planned, double plain) {
  return plain > 0 ? 1 - planned / plain : 0;
}

}  // namespace

// Of the work of the busiest GPU, or of what is sent to other nodes, mean over layers.
PlaceMetric::Saved PlaceMetric::saved_work(const std::vector<std::size_t>& used) const {
  std::vector<PlaceFigure> layers;
  for (const std::size_t l : used) {
    const State& s = layer_[l];
    layers.push_back(each_of(s.plain.balancedness, s.planned.balancedness, saved));
  }
  Saved out{mean_of(layers), 0};
  return out;
}

PlaceMetric::Saved PlaceMetric::saved_traffic(const std::vector<std::size_t>& used) const {
  std::vector<PlaceFigure> layers;
  double lot = 0;
  for (const std::size_t l : used) {
    const State& s = layer_[l];
    const int k = choices_of(l);
    layers.push_back(each_of(s.planned.nodes, s.plain.nodes, saved));
    lot += saved(traffic_by_chance(s, s.plan_of_half, k, true).mean,
                 traffic_by_chance(s, s.in_order, k, true).mean);
  }
  return {mean_of(layers), lot / double(used.size())};
}

void PlaceMetric::verdict(Report& r, const std::vector<std::size_t>& used) const {
  const QuotedTable t(r, "place");
  const auto interval = [](const Saved& s) {
    return interval_of(s.figure, s.figure[0], -endless, 1);
  };
  const auto sure = [&](const Saved& s) {
    const double low = interval(s).low;
    return (std::isnan(low) ? s.figure[0] : low) - std::max(0.0, s.by_chance) > worth;
  };
  const Saved work = saved_work(used);
  bool worth_it = sure(work);
  Finding f =
      derived(concat("Placed by ", policy_, " on ", place_.gpus, " GPUs, the busiest would have ",
                     less(work.figure[0], interval(work)), " to do on unseen ",
                     counted_ ? "steps" : "text", " than with experts in order, mean over layers"),
              {t.basis("in order"), t.basis("planned")});
  if (place_.nodes > 1 && !counted_) {
    const Saved traffic = saved_traffic(used);
    worth_it = worth_it || sure(traffic);
    extend(f, derived(concat(", and ", less(traffic.figure[0], interval(traffic)),
                             " would be sent to other nodes, one copy a node (random routing under "
                             "the same plan: ",
                             less(traffic.by_chance, {no_value, no_value}), ")"),
                      {t.basis("nodes in order"), t.basis("nodes planned")}));
  }
  extend(f, ".");
  if (!worth_it) {
    extend(f, concat(" It is not worth it: beyond what the slots alone do, less than ",
                     percent(worth), " is sure to be gained."));
  }
  if (std::isnan(interval(work).low))
    extend(f, counted_ ? " The trace only counts: how sure this is, is not known."
                       : " Fewer than 16 sequences: how sure this is, is not known.");
  r.findings.push_back(std::move(f));
}

void PlaceMetric::report(Report& r) const {
  std::vector<std::size_t> used;
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    const State& s = layer_[l];
    const auto any = [](const PlaceLoads& half) {
      return std::any_of(half.load.begin(), half.load.end(), [](double n) { return n > 0; });
    };
    if (any(s.half[0]) && any(s.half[1]))
      used.push_back(l);
  }
  if (used.empty()) {
    r.warnings.push_back(concat("a placement is planned on every second ",
                                counted_ ? "step" : "sequence",
                                " and judged on the others: there are too few for that"));
    return;
  }
  table(r, used);
  verdict(r, used);
}

}  // namespace moe
