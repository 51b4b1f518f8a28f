// How often the tokens of each label chose each expert, and what that says of the label. Domains
// label a sequence, modalities a row; the counts and the formulas are the same.
#pragma once
#include <numeric>

#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/verdict.h"

namespace moe {

struct LabelCounts {                 // of one layer; D labels
  Counts chosen, first;              // (D,E)
  std::vector<std::int64_t> tokens;  // (D)
  bool ranked = true;                // first choices are known

  double all_tokens() const {
    return std::accumulate(tokens.begin(), tokens.end(), 0.0);
  }
};

// Share of an expert among the choices of one label over its share of all choices, for every cell:
// the sums are made once a layer, for with many experts they cost as much as all cells.
struct LabelLift {
  explicit LabelLift(const LabelCounts& s)
      : chosen(s.chosen),
        rows(row_sums(s.chosen)),
        cols(column_sums(s.chosen)),
        n(double(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}))) {}
  double operator()(Index d, Index e) const {
    return double(chosen(d, e)) / double(rows[std::size_t(d)]) / (double(cols[std::size_t(e)]) / n);
  }
  const Counts& chosen;
  std::vector<std::int64_t> rows, cols;
  double n;
};

class LabelledChoices {
 protected:
  struct Figures {
    double mi, norm, lift, entropy, ami;
    chance::Value null_mi;
    double excess() const {
      return mi - null_mi.mean;
    }
  };

  explicit LabelledChoices(Shape shape) : shape_(std::move(shape)) {}
  void begin(std::size_t labels);  // before the first row

  // label(t): of row t of the window, -1 = none
  template <class Label>
  void count(const Window& w, Index l, Label label) {
    LabelCounts& s = state_[std::size_t(l)];
    const LayerChoices& c = w.layer[std::size_t(l)];
    s.ranked = c.ranked;
    for (const Index t : w.valid) {
      const int d = label(t);
      if (d < 0)
        continue;
      ++s.tokens[std::size_t(d)];
      for (const int e : c.of(t))
        ++s.chosen(d, e);
      if (c.first(t) >= 0)
        ++s.first(d, c.first(t));
    }
  }

  bool labelled() const;  // some row was
  // (D,E) counts over the tokens of the label; NaN where it has none
  static Matrix<double> rates(const Counts&, const std::vector<std::int64_t>& tokens);
  static Matrix<double> first_rates(const LabelCounts&);
  int choices(std::size_t l) const;  // of a token, on average
  Figures figures(std::size_t l, ChanceStore&) const;
  double excess_bits(std::size_t l) const;  // by the closed form of the definition
  // whether experts know more of the label than random routing does
  Standing tells_apart(std::size_t l, ChanceStore&) const;

  Shape shape_;
  std::vector<LabelCounts> state_;  // (L)
};

}  // namespace moe
