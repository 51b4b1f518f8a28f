// Which experts take which modality (text, image, video, audio): the counts of domains with a label
// a row, and what only modalities have: pictures and text of one sequence, places in a picture,
// experts that rest while one modality comes. modality.cpp counts, modality_report.cpp says what
// came out.
#pragma once
#include <array>

#include "analysis/metric/labelled_choices.h"
#include "analysis/metric/path_table.h"
#include "analysis/metric/shared_sequences.h"

namespace moe {

constexpr double dedicated_share = 0.9;  // of modalities that weigh the same

class ModalityMetric final : public Metric, private LabelledChoices {
 public:
  ModalityMetric(const TraceSource&, const AnalyzeOptions&);

  TraceFields needs() const override;
  void observe_layer(const Window&, Index l) override;
  void observe(const Window&) override;
  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  struct Sums {  // of one layer, by modality
    std::vector<double> entropy, entropies;
    std::vector<std::int64_t> dropped, choices;
  };
  // What follows from the counts (D,E) of one layer alone, so that random counts give the same.
  struct Spread {
    double balanced = 0;         // bits
    Matrix<double> js, tv;       // (D,D)
    std::vector<double> figure;  // (D, of_counts)
  };
  enum OfCounts { dedicated, load_entropy, load_cv, busiest, resting, of_counts };
  static Spread spread_of(const Counts&);
  static std::vector<double> in_a_row(const Spread&);
  static Spread from_row(const std::vector<double>&, Index labels);
  struct ByChance {
    Spread mean, deviation;
  };
  ByChance spread_by_chance(std::size_t l) const;
  // sum over experts of the most frequent modality's first choices, over all of them
  double predictability(std::size_t l) const;
  chance::Value predictability_by_chance(std::size_t l) const;

  struct Places {                      // of one modality that is no text
    std::vector<Counts> chosen;        // (L): (places, E); empty = no row seen
    std::vector<std::int64_t> tokens;  // (places)
  };
  double place_bits(std::size_t l, std::size_t m) const;  // NaN: none
  chance::Value place_bits_by_chance(std::size_t l, std::size_t m) const;

  static constexpr std::array<std::size_t, 2> path_counts{1, 10};
  std::array<double, 2> path_coverage(std::size_t m) const;
  std::array<double, 2> path_coverage_by_chance(std::size_t m) const;

  int label(const Window&, Index t) const;  // -1 = not known
  bool seen(std::size_t m) const {
    return tokens_[m] > 0;
  }
  std::vector<std::size_t> seen_modalities() const;
  std::size_t kinds_seen() const;
  std::vector<std::int64_t> layer_tokens(std::size_t l) const;  // of those seen
  void count_places(const Window&);
  void count_paths(const Window&);

  double router_entropy(std::size_t l, std::size_t m) const;  // nats; NaN: none was recorded
  double drop_rate(std::size_t l, std::size_t m) const;
  MetricValue coactivation() const;
  std::vector<MetricValue> values_of_rows() const;
  std::vector<MetricValue> values_of_counts() const;
  std::vector<MetricValue> values_of_sequences() const;
  std::vector<MetricValue> values_by_sample() const;

  // tables and findings of the report
  struct Each;
  Each each_row() const;
  void add_figures_of_rows(Each&, std::size_t l) const;
  struct Together;
  Together together_rows(std::size_t a, std::size_t b) const;
  bool one_each(std::size_t l) const;  // every expert takes a single modality
  struct Pairs;
  Pairs pair_rows() const;
  void add_overlaps(Pairs&, std::size_t l, std::size_t a, std::size_t b) const;
  std::string commonest_path(std::size_t m) const;  // "3→0→1"
  void summary(Report&) const;
  void each_modality(Report&) const;
  void maps(Report&) const;
  void every_cell(Report&) const;
  void pairs(Report&) const;
  void together(Report&) const;
  void paths(Report&) const;
  void apart_finding(Report&) const;
  void dedicated_finding(Report&) const;
  void resting_finding(Report&) const;
  void fusion_finding(Report&) const;

  const TraceSource& trace_;
  std::vector<std::string> names_;          // (D)
  std::vector<Sums> sums_;                  // (L)
  std::vector<SharedSequences> shared_;     // (L)
  std::vector<SharedSequences> firsts_;     // (L) of first choices alone
  std::vector<std::int64_t> tokens_;        // (D) valid rows
  std::vector<Places> places_;              // (D)
  std::vector<std::uint32_t> rows_before_;  // (sequences, D) rows that came already
  std::size_t most_places_, most_paths_;
  std::vector<PathTable> paths_;          // (D)
  std::vector<std::int64_t> travellers_;  // (D) rows with a first choice in every layer
  bool every_figure_;                     // also those that are too large for a report
};

}  // namespace moe
