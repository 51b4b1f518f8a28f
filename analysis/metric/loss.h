// Where the loss is: by domain, by expert, by the router's confidence, by what capacity dropped, by
// path; and whether it goes with the router's entropy. Needs the log-probability of each true next
// token (moe trace stores it). loss.cpp sums up, loss_report.cpp says what came out.
#pragma once
#include <array>

#include "analysis/metric/bootstrap.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/path_table.h"

namespace moe {

// A mean over tokens with its 95 % interval by sequences: a ratio of sums, of which each sequence
// gives one pair, its variance by linearisation, Student's quantile. Tokens of one sequence come
// one after another.
class SequenceMean {
 public:
  void add(std::int64_t sequence, double over, double under = 1) {
    if (sequence != sequence_)
      close(sequence);
    pending_over_ += over;
    pending_under_ += under;
  }
  double mean() const;   // NaN where nothing was added
  double under() const;  // the tokens, where each counts 1
  // NaN where fewer sequences than Bootstrap::least_sequences have a part in it
  Interval interval() const;

 private:
  void close(std::int64_t next);
  SequenceMean closed() const;

  std::int64_t sequence_ = -1;
  double pending_over_ = 0, pending_under_ = 0;
  double over_ = 0, under_ = 0, over_over_ = 0, over_under_ = 0, under_under_ = 0, sequences_ = 0;
};

class LossMetric final : public Metric {
 public:
  // options: top (10) paths
  LossMetric(Spec&, const TraceSource&, const AnalyzeOptions&);

  TraceFields needs() const override;
  void observe_layer(const Window&, Index layer) override;
  void observe(const Window&) override;
  void finish() override;
  std::vector<MetricValue> values() const override;
  void report(Report&) const override;

  // nats of row t; NaN where the trace does not say what followed
  static double loss_of(const TraceRows&, Index t);

 private:
  static constexpr std::size_t fifths = 5;
  static constexpr std::uint32_t most_in_stretch = 4096;
  static constexpr std::size_t least_in_stretch = 16;
  static constexpr double least_distinct = 16;  // values of the entropy in a stretch
  // that are ranked and whose paths are counted: whole stretches, drawn where there are more
  static constexpr std::uint64_t most_ranked = 65'536;
  static constexpr std::size_t most_sequences = 65'536;
  // sequences of one layer, each as one pair
  struct Between {
    std::vector<double> entropy, loss;
    std::vector<int> domain;
  };
  struct Layer {
    std::vector<SequenceMean> expert;  // (E)
    std::array<SequenceMean, fifths> fifth;
    SequenceMean kept, dropped;  // tokens with all their choices, and with one or more dropped
    SequenceMean within, beyond_position;  // rank correlations of stretches, by their tokens
    double spread = 0, weight = 0;         // of `within` at random: sum of w^2 / (n-1), of w
    double distinct = 0, stretches = 0;    // values of the entropy, stretches that were ranked
    Between between;
    // the stretch being read where it is ranked, and the sequence that it is of
    std::vector<double> entropy, loss, position;
    std::int64_t sequence = -1;
    std::uint32_t stretch = 0;
    bool ranked = false;
    int domain = -1;
    double sequence_entropy = 0, sequence_loss = 0, sequence_tokens = 0;
  };

  bool is_ranked(std::int64_t sequence, std::uint32_t stretch) const;
  void begin(Layer&, std::int64_t sequence, std::uint32_t stretch, int domain) const;
  double entropy_of(const LayerRows&, Index layer, Index t) const;
  // Why ranks by entropy say little; "" = they do not.
  std::string coarse() const;
  static void end_stretch(Layer&);
  static void end_sequence(Layer&);
  void add_path(const Window&, Index t, std::int64_t sequence, double loss);
  void thin_paths();
  // the `top` first, of equals in the order of their experts
  std::vector<std::size_t> paths() const;
  static std::vector<double> between_correlations(const std::vector<Layer>&);
  // The mean of all tokens, and how far that of `tokens` of them strays from it.
  chance::Value of_any(double tokens) const;
  Interval sure(const SequenceMean&) const;

  struct Rows;  // of one column: values, chance values, intervals
  void domains(Report&) const;
  void confidence(Report&) const;
  void correlations(Report&) const;
  void experts(Report&) const;
  void drops(Report&) const;
  void path_table(Report&) const;
  void tell_domains(Report&) const;
  void tell_entropy(Report&) const;
  void tell_experts(Report&) const;
  void tell_drops(Report&) const;

  Shape shape_;
  TraceFields has_;
  std::vector<bool> by_logits_;  // (L) the entropy is computed from them where they are recorded
  std::vector<std::string> domain_name_;
  int top_;
  std::uint64_t every_;  // of so many stretches one is ranked
  std::size_t most_paths_;
  std::vector<Layer> layer_;
  std::vector<SequenceMean> domain_;  // of each label, then of text without one
  SequenceMean all_;
  double squares_ = 0;  // of the loss
  PathTable path_{shape_.experts.size()};
  std::vector<SequenceMean> path_loss_;
  std::vector<std::uint16_t> key_;  // of one token
  bool thinned_ = false;
};

}  // namespace moe
