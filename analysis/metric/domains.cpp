// Which experts take which domain. Chosen = among a token's K experts; lift = how much more often
// than on the whole trace.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/metric/chance.h"
#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"

namespace moe {
namespace {

class Domains final : public Metric {
 public:
  explicit Domains(const TraceSource& trace) : shape_(trace), names_(trace.header().domains) {
    std::size_t most = names_.size();
    for (const TraceSequence& s : trace.sequences()) {
      if (s.domain != no_domain)
        most = std::max(most, std::size_t(s.domain) + 1);
    }
    while (names_.size() < most)
      names_.push_back("domain " + std::to_string(names_.size()));
    for (const int e : shape_.experts) {
      state_.push_back(
          {Counts(Index(most), e), Counts(Index(most), e), std::vector<std::int64_t>(most, 0)});
    }
  }

  TraceFields needs() const override {
    return no_fields;
  }

  void observe_layer(const Window& w, Index l) override {
    State& s = state_[std::size_t(l)];
    const LayerChoices& c = w.layer[std::size_t(l)];
    for (const Index t : w.valid) {
      const int d = w.domain[std::size_t(t)];
      if (d < 0)
        continue;
      ++s.tokens[std::size_t(d)];
      for (const int e : c.of(t))
        ++s.chosen(d, e);
      if (c.first(t) >= 0)
        ++s.first(d, c.first(t));
    }
  }

  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  struct State {
    Counts chosen, first;              // (D,E)
    std::vector<std::int64_t> tokens;  // (D)
  };
  struct Figures {
    double mi, norm, lift, entropy, ami;
    chance::Value null_mi;
    double excess() const {
      return mi - null_mi.mean;
    }
  };

  bool labelled() const {
    for (const State& s : state_) {
      for (const std::int64_t n : s.tokens) {
        if (n)
          return true;
      }
    }
    return false;
  }
  static Matrix<double> rates(const Counts& c, const std::vector<std::int64_t>& tokens) {
    Matrix<double> out(c.rows(), c.cols(), no_value);
    for (Index d = 0; d < c.rows(); ++d) {
      for (Index e = 0; e < c.cols(); ++e) {
        if (tokens[std::size_t(d)])
          out(d, e) = double(c(d, e)) / double(tokens[std::size_t(d)]);
      }
    }
    return out;
  }
  int choices(std::size_t l) const {  // of a token, on average
    const auto n = row_sums(state_[l].chosen);
    const double tokens = std::accumulate(state_[l].tokens.begin(), state_[l].tokens.end(), 0.0);
    return whole_choices(std::accumulate(n.begin(), n.end(), 0.0) / tokens, shape_.experts[l]);
  }
  Figures figures(std::size_t l) const {
    const State& s = state_[l];
    const double mi = mutual_information_bits(s.chosen);
    const double h = entropy_bits(row_sums(s.chosen));
    return {mi,
            h > 0 ? mi / h : 0,
            max_lift(s.chosen),
            h,
            adjusted_mutual_information(s.first),
            chance::Labels(shape_.experts[l], choices(l)).mi_bits(s.tokens)};
  }
  double excess_bits(std::size_t l) const {  // by the closed form of the definition
    const State& s = state_[l];
    const auto per_domain = row_sums(s.chosen);
    double n = 0;
    double tokens = 0;
    double seen = 0;
    for (std::size_t d = 0; d < per_domain.size(); ++d) {
      n += double(per_domain[d]);
      tokens += double(s.tokens[d]);
      seen += per_domain[d] > 0;
    }
    return mutual_information_bits(s.chosen) -
           chance::mi_bits(seen, shape_.experts[l], n / tokens, n);
  }
  // of every cell; the sums are made once a layer, for with many experts they cost as much as all
  // cells
  struct Lift {
    explicit Lift(const State& s)
        : chosen(s.chosen),
          rows(row_sums(s.chosen)),
          cols(column_sums(s.chosen)),
          n(double(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}))) {}
    double operator()(Index d, Index e) const {
      return double(chosen(d, e)) / double(rows[std::size_t(d)]) /
             (double(cols[std::size_t(e)]) / n);
    }
    const Counts& chosen;
    std::vector<std::int64_t> rows, cols;
    double n;
  };
  bool tells_apart(std::size_t l) const {  // four deviations above chance count
    const Figures f = figures(l);
    return f.excess() > 4 * f.null_mi.spread;
  }
  // Lift and hit rate of the first, second, .. of each domain's listed experts when all layers are
  // drawn by lot: (D, listed, 2).
  std::vector<chance::Value> favourites_by_lot() const {
    constexpr int runs = 50;
    const std::size_t domains = names_.size();
    std::vector<std::vector<double>> seen(2 * domains * listed);
    std::vector<int> k;
    for (std::size_t l = 0; l < state_.size(); ++l)
      k.push_back(choices(l));
    for (int run = 0; run < runs; ++run) {
      Rng rng(chance::seed, std::uint64_t(run));
      std::vector<std::vector<std::pair<double, double>>> best(domains);  // lift, hit rate
      for (std::size_t l = 0; l < state_.size(); ++l) {
        const State s{chance::draw_joint(state_[l].tokens, shape_.experts[l], k[l], rng),
                      {},
                      state_[l].tokens};
        const Lift lift(s);
        const double fair = double(k[l]) / shape_.experts[l];
        for (std::size_t d = 0; d < domains; ++d) {
          for (Index e = 0; e < shape_.experts[l]; ++e) {
            if (const double rate = double(s.chosen(Index(d), e)) / double(s.tokens[d]);
                rate > fair) {
              best[d].emplace_back(lift(Index(d), e), rate);
            }
          }
        }
      }
      for (std::size_t d = 0; d < domains; ++d) {
        const std::size_t n = std::min(listed, best[d].size());
        std::stable_sort(best[d].begin(), best[d].end(),
                         [](const auto& a, const auto& b) { return a.first > b.first; });
        for (std::size_t i = 0; i < n; ++i) {
          seen[2 * (d * listed + i)].push_back(best[d][i].first);
          seen[2 * (d * listed + i) + 1].push_back(best[d][i].second);
        }
      }
    }
    std::vector<chance::Value> out;
    for (const auto& of : seen)
      out.push_back(chance::of_runs(of));
    return out;
  }
  static constexpr std::size_t listed = 5;  // experts of a domain
  void summary(Report&) const;
  void maps(Report&) const;
  void favourites(Report&) const;
  void distances(Report&) const;

  Shape shape_;
  std::vector<std::string> names_;
  std::vector<State> state_;
};

std::vector<MetricValue> Domains::values() const {
  if (!labelled())
    return {};
  std::vector<Matrix<double>> rate, top1, tv;
  std::vector<double> mi, norm, excess, lift, ami;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const Figures f = figures(l);
    rate.push_back(rates(state_[l].chosen, state_[l].tokens));
    top1.push_back(rates(state_[l].first, state_[l].tokens));
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

void Domains::summary(Report& r) const {
  std::vector<double> mi, norm, excess, lift, ami;
  Nulls null, null_norm, null_excess, null_lift;
  Memo memo;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const Figures f = figures(l);
    mi.push_back(f.mi);
    null.add(f.null_mi);
    norm.push_back(f.norm);
    null_norm.add(f.entropy > 0
                      ? chance::Value{f.null_mi.mean / f.entropy, f.null_mi.spread / f.entropy}
                      : chance::Value{0, 0});
    excess.push_back(excess_bits(l));
    null_excess.add({f.null_mi.mean - (f.mi - excess.back()), f.null_mi.spread});
    lift.push_back(f.lift);
    ami.push_back(f.ami);
    null_lift.add(memo.get({double(shape_.experts[l]), double(choices(l))}, [&] {
      return chance::simulate_joint(
          state_[l].tokens, shape_.experts[l], choices(l), 1,
          [](const Counts& c) { return std::vector<double>{max_lift(c)}; });
    })[0]);
  }
  r.tables.push_back(
      {"domains",
       "How much the domain tells about the expert",
       "Mutual information is what knowing a token's domain tells about its expert: 0 bits if "
       "experts ignore the domain, at most the "
       "domains' own entropy. A finite sample of random routing gives a little more than 0: the "
       "chance value, already taken off in the excess.",
       Chart::lines,
       {column({"layer", "", "absolute layer number", ""}, shape_.number),
        column({"information", "bits", "mutual information of domain and expert",
                "domain_expert_mi_bits", 4},
               mi, null),
        column({"above chance", "bits", "information less (D-1)(E-K)/(2 N ln 2); may be below 0",
                "domain_expert_mi_excess_bits", 4},
               excess, null_excess),
        column({"of the domain", "share", "information over the entropy of the domains",
                "domain_expert_mi_norm", 4},
               norm, null_norm),
        column({"largest lift", "x",
                "the strongest preference: share of an expert in one domain over its share in all",
                "domain_max_lift", 2},
               lift, null_lift),
        column({"same partition", "",
                "adjusted mutual information of first choice and domain: 1 = experts and domains "
                "cut the text alike",
                "domain_cluster_ami", 4},
               ami, std::vector<double>(ami.size(), 0))},
       section::specialisation,
       false,
       {}});
  const std::size_t best =
      std::size_t(std::max_element(excess.begin(), excess.end()) - excess.begin());
  r.findings.push_back(
      tells_apart(best)
          ? "Experts tell the domains apart most in layer " + std::to_string(shape_.number[best]) +
                ": " + figure(mi[best], 3) + " bits (" + percent(norm[best]) +
                " of what there is to know; random routing: " + figure(null.value[best], 4) +
                " bits)."
          : "Experts do not tell the domains apart: " + figure(mi[best], 4) +
                " bits at most, random routing gives " + figure(null.value[best], 4) + ".");
}

void Domains::maps(Report& r) const {
  std::vector<std::int64_t> layer, expert;
  std::vector<std::string> domain;
  std::vector<double> rate, top1, null, null1, lifts;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const Matrix<double> all = rates(state_[l].chosen, state_[l].tokens);
    const Matrix<double> first = rates(state_[l].first, state_[l].tokens);
    const Lift lift(state_[l]);
    for (Index d = 0; d < all.rows(); ++d) {
      for (Index e = 0; e < all.cols(); ++e) {
        if (!state_[l].tokens[std::size_t(d)])
          continue;
        layer.push_back(shape_.number[l]);
        domain.push_back(names_[std::size_t(d)]);
        expert.push_back(e);
        rate.push_back(all(d, e));
        top1.push_back(first(d, e));
        lifts.push_back(lift(d, e));
        null.push_back(double(shape_.top_k[l]) / shape_.experts[l]);
        null1.push_back(1.0 / shape_.experts[l]);
      }
    }
  }
  for (const Index l : shown_layers(shape_.layers())) {
    Table t{"domain_map_" + std::to_string(shape_.number[std::size_t(l)]),
            "Layer " + std::to_string(shape_.number[std::size_t(l)]) +
                ": which expert takes which domain",
            "Share of a domain's tokens that have the expert among their choices. Without "
            "specialisation every row looks the same; random routing is K/E everywhere.",
            Chart::heatmap,
            {},
            section::specialisation,
            false,
            {}};
    std::vector<std::string> rows;
    std::vector<std::int64_t> cols;
    std::vector<double> cells, chances;
    for (std::size_t i = 0; i < layer.size(); ++i) {
      if (layer[i] == shape_.number[std::size_t(l)]) {
        rows.push_back(domain[i]);
        cols.push_back(expert[i]);
        cells.push_back(rate[i]);
        chances.push_back(null[i]);
      }
    }
    t.columns = {column({"domain", "", "label of the text", ""}, rows),
                 column({"expert", "", "expert id", ""}, cols),
                 column({"hit rate", "share", "tokens of the domain that chose the expert",
                         "domain_hit_rate"},
                        cells, chances)};
    r.tables.push_back(std::move(t));
  }
  r.tables.push_back(
      {"domain_hit_rate",
       "Every domain and expert",
       "Hit rate: share of the domain's tokens that chose the expert (random: K/E). Lift: that "
       "expert's share of the domain over its share of all domains (random: 1).",
       Chart::none,
       {column({"layer", "", "absolute layer number", ""}, layer),
        column({"domain", "", "label of the text", ""}, domain),
        column({"expert", "", "expert id", ""}, expert),
        column({"hit rate", "share", "tokens of the domain with the expert among their choices",
                "domain_hit_rate"},
               rate, null),
        column({"first choice", "share", "tokens of the domain whose first choice it is",
                "domain_hit_rate_top1"},
               top1, null1),
        column({"lift", "x", "share of the domain's assignments over the share of all assignments",
                "", 2},
               lifts, std::vector<double>(lifts.size(), 1))},
       section::specialisation,
       true,
       {}});
}

void Domains::favourites(Report& r) const {
  struct Best {
    std::size_t layer;
    Index expert;
    double lift, rate;
  };
  std::vector<std::string> domain, said;
  std::vector<std::int64_t> layer, expert;
  std::vector<double> lifts, hit;
  Nulls null_lift, null_hit;
  const auto lot = favourites_by_lot();
  for (std::size_t d = 0; d < names_.size(); ++d) {
    std::vector<Best> all;
    for (std::size_t l = 0; l < state_.size(); ++l) {
      if (!state_[l].tokens[d])
        continue;
      const double fair = double(shape_.top_k[l]) / shape_.experts[l];
      const Lift lift(state_[l]);
      for (Index e = 0; e < shape_.experts[l]; ++e) {
        const double rate = double(state_[l].chosen(Index(d), e)) / double(state_[l].tokens[d]);
        if (rate > fair)
          all.push_back({l, e, lift(Index(d), e), rate});
      }
    }
    std::stable_sort(all.begin(), all.end(),
                     [](const Best& a, const Best& b) { return a.lift > b.lift; });
    if (!all.empty() && tells_apart(all[0].layer)) {
      said.push_back(names_[d] + ": expert " + std::to_string(all[0].expert) + " of layer " +
                     std::to_string(shape_.number[all[0].layer]) + " (" + percent(all[0].rate) +
                     " of its tokens, " + figure(all[0].lift, 1) + "x its usual share)");
    }
    for (std::size_t i = 0; i < std::min(listed, all.size()); ++i) {
      domain.push_back(names_[d]);
      layer.push_back(shape_.number[all[i].layer]);
      expert.push_back(all[i].expert);
      lifts.push_back(all[i].lift);
      hit.push_back(all[i].rate);
      null_lift.add(lot[2 * (d * listed + i)]);
      null_hit.add(lot[2 * (d * listed + i) + 1]);
    }
  }
  r.tables.push_back(
      {"domain_experts",
       "Each domain's own experts",
       "For every domain the experts with the largest lift among those that take more than a fair "
       "share of its tokens. Lift 1 is no preference; the chance value is what the first, second, "
       "... of as many experts would show under random routing.",
       Chart::none,
       {column({"domain", "", "label of the text", ""}, domain),
        column({"layer", "", "absolute layer number", ""}, layer),
        column({"expert", "", "expert id", ""}, expert),
        column({"lift", "x", "share of the domain's assignments over the share of all assignments",
                "", 2},
               lifts, null_lift),
        column(
            {"hit rate", "share", "tokens of the domain that chose the expert", "domain_hit_rate"},
            hit, null_hit)},
       section::specialisation,
       false,
       {}});
  for (const std::string& s : said)
    r.findings.push_back("Who took " + s + ".");
}

void Domains::distances(Report& r) const {
  std::vector<std::int64_t> layer;
  std::vector<std::string> one, other;
  std::vector<double> tv, null;
  for (std::size_t l = 0; l < state_.size(); ++l) {
    const Matrix<double> all = total_variation(state_[l].chosen);
    for (Index a = 0; a < all.rows(); ++a) {
      for (Index b = a + 1; b < all.rows(); ++b) {
        if (std::isnan(all(a, b)))
          continue;
        const double t = 2 / (1 / double(state_[l].tokens[std::size_t(a)]) +
                              1 / double(state_[l].tokens[std::size_t(b)]));
        const double e = shape_.experts[l];
        const double k = shape_.top_k[l];
        layer.push_back(shape_.number[l]);
        one.push_back(names_[std::size_t(a)]);
        other.push_back(names_[std::size_t(b)]);
        tv.push_back(all(a, b));
        null.push_back(chance::total_variation(e, k, t));
      }
    }
  }
  if (tv.empty())
    return;
  r.tables.push_back(
      {"domain_distance",
       "How differently two domains are routed",
       "Total variation of the two domains' expert shares: 0 = routed alike, 1 = no expert in "
       "common. Random routing gives the small chance value.",
       Chart::none,
       {column({"layer", "", "absolute layer number", ""}, layer),
        column({"domain", "", "label", ""}, one), column({"other", "", "label", ""}, other),
        column({"distance", "", "half the sum of the differences of expert shares", "domain_tv"},
               tv, null)},
       section::specialisation,
       true,
       {}});
}

void Domains::report(Report& r) const {
  if (!labelled()) {
    return r.warnings.push_back(
        "no sequence carries a domain label: domain specialisation is left out");
  }
  if (std::all_of(state_.begin(), state_.end(), [](const State& s) {
        return column_sums(s.chosen) == std::vector<std::int64_t>(std::size_t(s.chosen.cols()), 0);
      })) {
    return;  // no token chose anybody: there is nothing to tell apart
  }
  summary(r);
  favourites(r);
  maps(r);
  distances(r);
}

}  // namespace

std::unique_ptr<Metric> make_domains_metric(Spec&, const TraceSource& trace,
                                            const AnalyzeOptions&) {
  return std::make_unique<Domains>(trace);
}

}  // namespace moe
