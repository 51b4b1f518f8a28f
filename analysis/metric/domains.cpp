#include "analysis/metric/domains.h"

#include <algorithm>
#include <cmath>

#include "lib/core/text.h"

namespace moe {

DomainsMetric::DomainsMetric(const TraceSource& trace)
    : LabelledChoices(Shape(trace)), names_(trace.header().domains) {
  std::size_t most = names_.size();
  for (const TraceSequence& s : trace.sequences()) {
    if (s.domain != no_domain)
      most = std::max(most, std::size_t(s.domain) + 1);
  }
  while (names_.size() < most)
    names_.push_back(concat("domain ", names_.size()));
  begin(most);
}

TraceFields DomainsMetric::needs() const {
  return no_fields;
}

void DomainsMetric::observe_layer(const Window& w, Index l) {
  count(w, l, [&](Index t) { return w.domain[std::size_t(t)]; });
}

DomainsMetric::Favourites DomainsMetric::favourites_of(std::size_t d,
                                                       std::span<const LabelCounts> all,
                                                       const std::vector<int>& k) const {
  Favourites out;
  for (std::size_t l = 0; l < all.size(); ++l) {
    const LabelCounts& s = all[l];
    if (!s.tokens[d])
      continue;
    const double fair = double(k[l]) / shape_.experts[l];
    const LabelLift lift(s);
    for (Index e = 0; e < shape_.experts[l]; ++e) {
      const double rate = double(s.chosen(Index(d), e)) / double(s.tokens[d]);
      if (rate > fair)
        out.push_back({l, e, lift(Index(d), e), rate});
    }
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const Favourite& a, const Favourite& b) { return a.lift > b.lift; });
  return out;
}

std::vector<DomainsMetric::ByChance> DomainsMetric::favourites_by_lot() const {
  constexpr int runs = 50;
  std::vector<std::vector<double>> lift(names_.size() * listed);
  std::vector<std::vector<double>> rate(names_.size() * listed);
  std::vector<int> k;
  for (std::size_t l = 0; l < state_.size(); ++l)
    k.push_back(choices(l));
  for (int run = 0; run < runs; ++run) {
    Rng rng(chance::seed, std::uint64_t(run));
    std::vector<LabelCounts> drawn;
    for (std::size_t l = 0; l < state_.size(); ++l) {
      drawn.push_back({chance::draw_joint(state_[l].tokens, shape_.experts[l], k[l], rng),
                       {},
                       state_[l].tokens});
    }
    for (std::size_t d = 0; d < names_.size(); ++d) {
      const Favourites best = favourites_of(d, drawn, k);
      for (std::size_t i = 0; i < std::min(listed, best.size()); ++i) {
        lift[d * listed + i].push_back(best[i].lift);
        rate[d * listed + i].push_back(best[i].rate);
      }
    }
  }
  std::vector<ByChance> out;
  for (std::size_t i = 0; i < lift.size(); ++i)
    out.push_back({chance::of_runs(lift[i]), chance::of_runs(rate[i])});
  return out;
}

std::vector<MetricValue> DomainsMetric::values() const {
  if (state_.empty() || state_[0].tokens.empty())  // the trace knows no domains
    return {};
  std::vector<Matrix<double>> rate, top1, tv;
  std::vector<double> mi, norm, excess, lift, ami;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const Figures f = figures(l, store());
    rate.push_back(rates(state_[l].chosen, state_[l].tokens));
    top1.push_back(first_rates(state_[l]));
    tv.push_back(total_variation(state_[l].chosen));
    mi.push_back(f.mi);
    norm.push_back(f.norm);
    excess.push_back(excess_bits(l));
    lift.push_back(f.lift);
    ami.push_back(f.ami);
  }
  return {per_layer("domain_hit_rate", rate),
          per_layer("domain_hit_rate_top1", top1),
          per_layer("domain_tv", tv),
          per_layer("domain_expert_mi_bits", mi),
          per_layer("domain_expert_mi_norm", norm),
          per_layer("domain_expert_mi_excess_bits", excess),
          per_layer("domain_max_lift", lift),
          per_layer("domain_cluster_ami", ami)};
}

std::unique_ptr<Metric> make_domains_metric(Spec&, const TraceSource& trace,
                                            const AnalyzeOptions&) {
  return std::make_unique<DomainsMetric>(trace);
}

}  // namespace moe
