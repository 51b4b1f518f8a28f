// Which experts take which domain. Chosen = among a token's K experts; lift = how much more often
// than on the whole trace. domains.cpp counts, domains_report.cpp says what came out.
#pragma once
#include "analysis/metric/labelled_choices.h"

namespace moe {

class DomainsMetric final : public Metric, private LabelledChoices {
 public:
  explicit DomainsMetric(const TraceSource& trace);

  TraceFields needs() const override;

  void observe_layer(const Window& w, Index l) override;

  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  static constexpr std::size_t listed = 5;  // experts of a domain
  struct Favourite {  // an expert that takes more than a fair share of a domain
    std::size_t layer;
    Index expert;
    double lift, rate;
  };
  using Favourites = std::vector<Favourite>;
  // Those of domain d where the layers' counts are `all` and a token has k[l] choices, the largest
  // lift first.
  Favourites favourites_of(std::size_t d, std::span<const LabelCounts> all,
                           const std::vector<int>& k) const;
  struct ByChance {
    chance::Value lift, rate;
  };
  // of the first, second, .. of each domain's listed experts when all layers are drawn at random:
  // (D, listed)
  std::vector<ByChance> favourites_by_lot() const;

  Values layer_values() const;
  void summary(Report&) const;
  void finding(Report&) const;
  static void favourite(Report&, std::size_t row);
  void maps(Report&) const;
  void every_cell(Report&) const;
  void favourites(Report&) const;
  void distances(Report&) const;

  std::vector<std::string> names_;
};

}  // namespace moe
