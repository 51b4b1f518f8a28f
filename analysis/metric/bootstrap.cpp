#include "analysis/metric/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"
#include "lib/core/load.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr std::uint64_t seed = 0xB0075;  // fixed: the same trace has the same intervals
constexpr std::int64_t most_bytes = std::int64_t{256} << 20;
constexpr double endless = std::numeric_limits<double>::infinity();

std::vector<std::uint32_t> thresholds() {  // 65536 P(X <= n) of Poisson(1), n = 0..7
  std::vector<std::uint32_t> out;
  double p = std::exp(-1.0);
  double sum = 0;
  for (int n = 0; n < 8; ++n) {
    sum += p;
    p /= n + 1;
    out.push_back(std::uint32_t(std::lround(sum * 65536)));
  }
  return out;
}

double balancedness(std::span<const std::int64_t> counts, int ranks) {
  std::vector<double> load(std::size_t(ranks), 0);
  double all = 0;
  for (std::size_t e = 0; e < counts.size(); ++e) {
    load[e * std::size_t(ranks) / counts.size()] += double(counts[e]);
    all += double(counts[e]);
  }
  return all / ranks / *std::max_element(load.begin(), load.end());
}

}  // namespace

void poisson_weights(std::uint64_t stream, std::uint64_t sequence, std::span<std::uint32_t> out) {
  static const std::vector<std::uint32_t> steps = thresholds();
  if (out.empty())
    return;
  Rng rng(seed, stream, sequence << 20);  // four replicas a draw
  std::uint64_t bits = 0;
  out[0] = 1;
  for (std::size_t r = 1; r < out.size(); ++r) {
    if (r % 4 == 1)
      bits = rng.next();
    std::uint32_t n = 0;
    for (const std::uint32_t s : steps)
      n += std::uint32_t(bits & 0xFFFF) >= s;
    out[r] = n;
    bits >>= 16;
  }
}

Interval interval_of(std::span<const double> values, double at, double least, double most) {
  std::vector<double> v;
  for (std::size_t r = 1; r < values.size(); ++r) {
    if (std::isfinite(values[r]))
      v.push_back(values[r]);
  }
  if (v.size() < 20 || !std::isfinite(at))
    return {no_value, no_value};
  const double mean = std::accumulate(v.begin(), v.end(), 0.0) / double(v.size());
  std::sort(v.begin(), v.end());
  const auto quantile = [&](double q) {
    const double place = q * double(v.size() - 1);
    const std::size_t i = std::min(v.size() - 2, std::size_t(place));
    return v[i] + (place - double(i)) * (v[i + 1] - v[i]);
  };
  return {std::max(std::min(least, at), at + std::min(0.0, quantile(0.025) - mean)),
          std::min(std::max(most, at), at + std::max(0.0, quantile(0.975) - mean))};
}

Bootstrap::Bootstrap(const TraceSource& trace, const AnalyzeOptions& o)
    : width_(std::size_t(o.bootstrap) + 1),
      sequences_(trace.sequences().size()),
      stream_(o.bootstrap_stream) {
  const Shape shape(trace);
  experts_ = shape.experts;
  number_ = shape.number;
  entropy_ = trace.fields().entropy;
  if (!experts_.empty())
    ranks_ = usual_ranks(shape);
  std::size_t domains = 0;
  for (const TraceSequence& s : trace.sequences()) {
    if (s.domain != no_domain)
      domains = std::max(domains, std::size_t(s.domain) + 1);
  }
  const auto bytes = [&](std::size_t slots) {
    return double(std::accumulate(experts_.begin(), experts_.end(), 0.0)) *
           double(width_ * slots * sizeof(std::uint32_t));
  };
  const double most = double(std::min(o.memory, most_bytes));
  if (domains > 1 && bytes(domains + 1) <= most)
    slots_ = domains + 1;  // slot 0: no domain
  too_large_ = bytes(slots_) > most;
  if (too_large_ || sequences_ < least_sequences)
    return;
  layer_.resize(experts_.size());
  for (std::size_t l = 0; l < layer_.size(); ++l) {
    State& s = layer_[l];
    s.replica.assign(slots_ * std::size_t(experts_[l]) * width_, 0);
    s.pending.assign(std::size_t(experts_[l]), 0);
    s.over.assign(ratio_count * width_, 0);
    s.under.assign(ratio_count * width_, 0);
    s.weight.assign(width_, 0);
  }
}

TraceFields Bootstrap::needs() const {
  TraceFields f = no_fields;
  f.entropy = entropy_ && !layer_.empty();
  return f;
}

void Bootstrap::observe_layer(const Window& w, Index l) {
  if (layer_.empty())
    return;
  State& s = layer_[l];
  for (const Index t : w.valid) {
    const std::int64_t q = w.rows.sequence[t];
    if (q != s.sequence) {
      close(s);
      s.sequence = q;
      s.domain = w.domain[t];
      s.last_first = -1;
    }
    token(s, w, l, t);
  }
}

void Bootstrap::token(State& s, const Window& w, Index l, Index t) const {
  const auto chosen = w.layer[l].of(t);
  const std::size_t experts = s.pending.size();
  std::uint64_t seen = 0;  // of at most 8 ranks
  for (const int e : chosen) {
    if (s.pending[e]++ == 0)
      s.touched.push_back(e);
    seen |= std::uint64_t{1} << (std::size_t(e) * std::size_t(ranks_) / experts);
  }
  s.pending_over[dedup] += __builtin_popcountll(seen);
  s.pending_under[dedup] += double(chosen.size());
  const int first = w.layer[l].first(t);
  const std::uint32_t position = w.rows.position[t];
  if (s.last_first >= 0 && first >= 0 && position == s.last_position + 1) {
    s.pending_over[repeat] += first == s.last_first;
    s.pending_under[repeat] += 1;
  }
  s.last_first = first;
  s.last_position = position;
  const auto& entropies = w.rows.layer[l].entropy;
  if (entropies.empty() || std::isnan(entropies[t]))
    return;
  s.pending_over[entropy] += entropies[t];
  s.pending_under[entropy] += 1;
}

// The sequence that ended goes into every replica as often as its weight there says.
void Bootstrap::close(State& s) const {
  if (s.sequence < 0)
    return;
  poisson_weights(stream_, std::uint64_t(s.sequence), s.weight);
  const std::size_t slot = slots_ > 1 && s.domain >= 0 ? std::size_t(s.domain) + 1 : 0;
  const std::size_t experts = s.pending.size();
  for (const int e : s.touched) {
    std::uint32_t* to = s.replica.data() + (slot * experts + std::size_t(e)) * width_;
    const auto n = std::uint32_t(s.pending[e]);
    for (std::size_t r = 0; r < width_; ++r)
      to[r] += n * s.weight[r];
    s.pending[e] = 0;
  }
  s.touched.clear();
  for (std::size_t i = 0; i < ratio_count; ++i) {
    if (s.pending_under[i] == 0)
      continue;
    for (std::size_t r = 0; r < width_; ++r) {
      s.over[i * width_ + r] += s.pending_over[i] * s.weight[r];
      s.under[i * width_ + r] += s.pending_under[i] * s.weight[r];
    }
    s.pending_over[i] = s.pending_under[i] = 0;
  }
}

namespace {

struct CountFigure {  // a figure of the counts of one replica
  const char* id;
  double most;  // of its range
  double (*of)(const LoadFigures&);
};
constexpr CountFigure count_figures[] = {{"load_cv", endless,
                                          [](const LoadFigures& f) {
                                            return f.cv;
                                          }},
                                         {"load_maxvio_global", endless,
                                          [](const LoadFigures& f) {
                                            return f.maxvio;
                                          }},
                                         {"load_dead_fraction", 1,
                                          [](const LoadFigures& f) {
                                            return f.dead_fraction;
                                          }},
                                         {"load_entropy_norm", 1,
                                          [](const LoadFigures& f) {
                                            return f.entropy_norm;
                                          }},
                                         {"load_effective_experts", 1,
                                          [](const LoadFigures& f) {
                                            return f.effective;
                                          }},
                                         {"load_gini", 1, [](const LoadFigures& f) {
                                            return f.gini;
                                          }}};

}  // namespace

void Bootstrap::counts_of(const State& s, std::size_t r, std::vector<std::int64_t>& all,
                          Counts& by_domain) const {
  const std::size_t experts = all.size();
  std::fill(all.begin(), all.end(), 0);
  for (std::size_t d = 0; d < slots_; ++d) {
    for (std::size_t e = 0; e < experts; ++e) {
      const std::int64_t n = s.replica[(d * experts + e) * width_ + r];
      all[e] += n;
      if (d > 0)
        by_domain(Index(d - 1), Index(e)) = n;
    }
  }
}

void Bootstrap::counted(const State& s, std::size_t l, std::vector<Replicated>& out) const {
  std::vector<std::int64_t> all(std::size_t(experts_[l]), 0);
  Counts by_domain(Index(slots_ - 1), experts_[l]);
  std::vector<Replicated> each;
  for (std::size_t r = 0; r < width_; ++r) {
    counts_of(s, r, all, by_domain);
    std::size_t next = 0;
    const auto put = [&](const char* id, double parameter, double most, double v) {
      if (r == 0)
        each.push_back({id, parameter, Index(l), {}, 0, most});
      each[next++].values.push_back(v);
    };
    const LoadFigures f = load_figures(all);
    for (const CountFigure& one : count_figures)
      put(one.id, no_value, one.most, one.of(f));
    put("ep_balancedness", no_value, 1, f.assignments ? balancedness(all, ranks_) : no_value);
    for (const double factor : usual_capacity_factors)
      put("capacity_drop_rate", factor, 1, capacity_drop_rate(all, factor));
    if (slots_ > 1)
      put("domain_expert_mi_bits", no_value, endless, mutual_information_bits(by_domain));
  }
  std::move(each.begin(), each.end(), std::back_inserter(out));
}

std::vector<Replicated> Bootstrap::of_layer(std::size_t l) const {
  State s = layer_[l];
  close(s);
  std::vector<Replicated> out;
  counted(s, l, out);
  const auto ratio = [&](const char* id, Ratio which, double scale, double most) {
    Replicated one{id, no_value, Index(l), {}, 0, most};
    for (std::size_t r = 0; r < width_; ++r)
      one.values.push_back(s.over[which * width_ + r] / s.under[which * width_ + r] / scale);
    if (std::isfinite(one.values[0]))
      out.push_back(std::move(one));
  };
  if (experts_[l] > 1)
    ratio("router_entropy_norm", entropy, std::log(double(experts_[l])), 1);
  ratio("router_entropy", entropy, 1, endless);
  ratio("repeat_first", repeat, 1, 1);
  ratio("a2a_dedup_factor", dedup, 1, 1);
  return out;
}

std::vector<Replicated> Bootstrap::results() const {
  std::vector<std::vector<Replicated>> each(layer_.size());
  parallel_for(Index(layer_.size()), 1, [&](Index from, Index to) {
    for (Index l = from; l < to; ++l)
      each[l] = of_layer(std::size_t(l));
  });
  std::vector<Replicated> out;
  for (auto& of : each)
    std::move(of.begin(), of.end(), std::back_inserter(out));
  return out;
}

namespace {

bool by_layer(const Table& t, const std::vector<std::int64_t>& number) {
  const auto* keys =
      t.columns.empty() ? nullptr : std::get_if<std::vector<std::int64_t>>(&t.columns[0].cells);
  return keys && t.columns[0].name == "layer" && *keys == number;
}

// Only where the replicated figure is the very one of the table: other parameters give other
// figures.
void attach(Column& c, const std::vector<Replicated>& all) {
  const auto* cells = std::get_if<std::vector<double>>(&c.cells);
  if (!cells || c.metric.empty())
    return;
  for (const Replicated& r : all) {
    if (r.id != c.metric ||
        (!std::isnan(r.parameter) && !c.name.ends_with(" " + number_text(r.parameter)))) {
      continue;
    }
    const double v = (*cells)[r.layer];
    if (!(std::abs(v - r.values[0]) <= 1e-6 * std::max(1.0, std::abs(v))))
      continue;
    if (c.low.empty()) {
      c.low.assign(cells->size(), no_value);
      c.high.assign(cells->size(), no_value);
    }
    const Interval i = interval_of(r.values, v, r.least, r.most);
    c.low[r.layer] = i.low;
    c.high[r.layer] = i.high;
  }
}

}  // namespace

void Bootstrap::report(Report& r) const {
  if (too_large_) {
    return r.warnings.push_back(
        concat("95 % intervals are left out: the replicas would take more than ",
               figure(double(most_bytes) / double(1 << 20), 0), " MiB"));
  }
  if (layer_.empty()) {
    if (sequences_ > 0) {
      r.facts.emplace_back("intervals",
                           concat("none: they resample sequences, and there are fewer than ",
                                  least_sequences, " (", sequences_, ")"));
    }
    return;
  }
  const auto all = results();
  for (Table& t : r.tables) {
    if (by_layer(t, number_)) {
      for (Column& c : t.columns)
        attach(c, all);
    }
  }
  r.facts.emplace_back(
      "intervals",
      concat("95 %, ", width_ - 1, " Poisson bootstrap replicas over ", sequences_, " sequences"));
}

}  // namespace moe
