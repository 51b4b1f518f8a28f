// Experts that do the same. The pair matrices were computed once from weights and outputs and stand
// in the trace's header; gate_row_cosine comes from the router rows. Nothing of this needs the
// token rows. redundancy.cpp computes, redundancy_report.cpp says what came out.
#pragma once
#include "analysis/metric/layout.h"

namespace moe {

class RedundancyMetric final : public Metric {
 public:
  RedundancyMetric(Spec& spec, const TraceSource& trace);

  TraceFields needs() const override;
  bool counts_suffice() const override {
    return true;
  }

  std::vector<MetricValue> values() const override;

  void report(Report&) const override;

  struct Kind;  // of pair matrices, and how a report speaks of it

 private:
  const PairMatrix* find(std::string_view name) const;
  struct Pairs {  // of one layer's matrix
    double mean, most_alike;
  };
  static Pairs over_pairs(const Matrix<float>&, bool distance);
  std::vector<double> largest_by_lot() const;
  void add_kind(TableBuilder&, const Kind&, const PairMatrix&) const;
  void summary(Report&) const;
  struct Listed;
  void list(Report&) const;
  struct Found {  // rows of the table of pairs that are of one kind
    const Kind* kind;
    std::size_t first, count;
  };
  void finding(Report&, const Found&) const;
  void map(Report&, const PairMatrix&, Index layer) const;

  Shape shape_;
  double threshold_;
  std::vector<PairMatrix> pairs_;
  std::vector<double> width_;  // (L) H of the router rows
};

}  // namespace moe
