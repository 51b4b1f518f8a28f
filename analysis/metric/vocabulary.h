// Which experts take which token ids, counted in all choices and in first choices; and what one
// expert takes alone. vocabulary.cpp counts, vocabulary_report.cpp says what came out.
#pragma once
#include <algorithm>
#include <unordered_map>

#include "analysis/metric/layout.h"
#include "analysis/metric/pieces.h"

namespace moe {

class VocabularyMetric final : public Metric {
 public:
  VocabularyMetric(Spec& spec, const TraceSource& trace, const AnalyzeOptions& options);

  TraceFields needs() const override;

  void observe_layer(const Window& w, Index l) override;

  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

 private:
  struct Id {  // one token id in one layer
    std::uint32_t id = 0;
    std::int64_t seen = 0;
    std::vector<std::uint32_t> chosen, first;  // (E)

    std::size_t favourite() const {
      return std::size_t(std::max_element(chosen.begin(), chosen.end()) - chosen.begin());
    }
    double specialisation() const {
      return double(chosen[favourite()]) / double(seen);
    }
  };
  struct State {
    // where ids below 65,536 are in `ids`, + 1; 0 = not seen yet
    std::vector<std::uint32_t> low;
    std::unordered_map<std::uint32_t, std::size_t> row;     // where the others are
    std::vector<Id> ids;                                    // in order of first sight
    std::size_t at(std::uint32_t id, std::size_t experts);  // its place in `ids`, made where new
    // the counts of an id lie anywhere: those of a token to come are brought near
    void fetch(std::uint32_t id) const;
    std::int64_t tokens = 0, assignments = 0;
    bool ranked = true;  // first choices are known
  };
  struct Figures {
    double unweighted = no_value, weighted = no_value, frequent = 0, mi = no_value,
           uncertainty = no_value, context_std = 0;
    std::vector<double> expert;  // (E) vocab_spec_expert
    std::vector<double> alone;   // (E) load_exclusive_coverage
  };
  Figures figures(std::size_t l) const;
  void of_frequent(const State&, Figures&) const;
  // P(one expert is the first choice in at least `alone` of so many occurrences)
  double first_tail(std::int64_t count, double experts) const;
  struct Chances {
    chance::Value unweighted{0, 0}, weighted{0, 0}, frequent{0, 0}, mi, uncertainty,
        context_std{0, 0};
    double alone = 0;            // load_exclusive_coverage of one expert
    std::vector<double> expert;  // (E) vocab_spec_expert
  };
  using Often = std::map<std::int64_t, std::int64_t>;  // occurrences -> ids with so many
  void chance_of_shares(const State&, double experts, const Often&, chance::Labels&,
                        Chances&) const;
  static std::vector<double> chance_by_expert(std::size_t experts, const Often&, chance::Labels&);
  Chances chances(std::size_t l) const;

  struct Judged {  // one layer: its figures and what random routing gives
    Index layer;
    Figures figures;
    Chances chances;
  };
  static Values layer_values(const std::vector<Judged>&);
  bool any() const;
  void summary(Report&, const std::vector<std::int64_t>& number, const Values&) const;
  void more(Report&, const std::vector<std::int64_t>& number, const Values&) const;
  void finding(Report&) const;
  void alone(Report&) const;
  bool has_frequent_ids() const;
  void top_tokens(Report&, const std::vector<Judged>&) const;
  void coverage(Report&, const std::vector<Judged>&) const;
  using Ranked = std::vector<std::pair<double, std::uint32_t>>;  // id by count or share
  void keep_top(Ranked&) const;
  void rank(const State&, std::size_t expert, Ranked& most, Ranked& own) const;
  std::string listed(const Ranked&, bool shares) const;

  Shape shape_;
  int min_count_, top_;
  double alone_;
  Pieces pieces_;
  std::vector<Index> counted_;
  std::vector<State> state_;
};

}  // namespace moe
