// Which experts take which domain. Chosen = among a token's K experts; lift = how much more often
// than on the whole trace. domains.cpp counts, domains_report.cpp says what came out.
#pragma once
#include <numeric>

#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/verdict.h"

namespace moe {

class DomainsMetric final : public Metric {
 public:
  explicit DomainsMetric(const TraceSource& trace);

  TraceFields needs() const override;

  void observe_layer(const Window& w, Index l) override;

  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  struct State {
    Counts chosen, first;              // (D,E)
    std::vector<std::int64_t> tokens;  // (D)
    bool ranked = true;                // first choices are known
  };
  struct Figures {
    double mi, norm, lift, entropy, ami;
    chance::Value null_mi;
    double excess() const {
      return mi - null_mi.mean;
    }
  };

  bool labelled() const;
  static Matrix<double> rates(const Counts& c, const std::vector<std::int64_t>& tokens);
  static Matrix<double> first_rates(const State&);
  int choices(std::size_t l) const;
  Figures figures(std::size_t l) const;
  double excess_bits(std::size_t l) const;
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
  Standing tells_apart(std::size_t l) const;
  static constexpr std::size_t listed = 5;  // experts of a domain
  struct Favourite {  // an expert that takes more than a fair share of a domain
    std::size_t layer;
    Index expert;
    double lift, rate;
  };
  using Favourites = std::vector<Favourite>;
  // Those of domain d where the layers' counts are `all` and a token has k[l] choices, the largest
  // lift first.
  Favourites favourites_of(std::size_t d, std::span<const State> all,
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

  Shape shape_;
  std::vector<std::string> names_;
  std::vector<State> state_;
};

}  // namespace moe
