// Experts that the modalities of one sequence have in common: what a picture chose beside what the
// text about it chose, in the same sequence and across different ones. Only the difference of the
// two says that a picture's experts tell its own text's; the overlap alone says that experts are
// shared.
#pragma once
#include "analysis/metric/chance.h"
#include "lib/core/matrix.h"

namespace moe {

class SharedSequences {  // of one layer
 public:
  struct Overlap {
    double own = 0;    // mean over the sequences with both of sum_e min(h_a(e), h_b(e))
    double other = 0;  // the same over every two different ones of them; NaN: fewer than two
    double error = 0;  // of the mean `own`, from its scatter over sequences
    double sequences = 0;
  };

  // Of the first `sequences` of a trace.
  SharedSequences(std::size_t sequences, std::size_t labels, int experts)
      : labels_(labels), experts_(std::size_t(experts)), sequences_(sequences) {}

  void add(std::size_t sequence, std::size_t label, std::span<const int> chosen);
  Overlap overlap(std::size_t a, std::size_t b) const;  // NaN where no sequence has both
  // The overlap of two labels under random routing of k choices a token, at the sizes that the
  // sequences have.
  chance::Value overlap_by_chance(std::size_t a, std::size_t b, int k) const;
  // (E,E) mean over the sequences with both of h_a(e) h_b(e'); NaN where there are none
  Matrix<double> together(std::size_t a, std::size_t b) const;
  // (E) mean over the sequences with both of h_a(e)
  std::vector<double> alone(std::size_t a, std::size_t b) const;

 private:
  std::span<const std::uint32_t> counts(std::size_t sequence, std::size_t label) const {
    return {count_.data() + (sequence * labels_ + label) * experts_, experts_};
  }
  std::uint64_t total(std::size_t sequence, std::size_t label) const;
  std::vector<std::size_t> with_both(std::size_t a, std::size_t b) const;
  Matrix<double> shares(const std::vector<std::size_t>& sequences, std::size_t label) const;

  std::size_t labels_, experts_, sequences_;
  std::vector<std::uint32_t> count_;  // (sequences up to the last one seen, labels, E)
};

}  // namespace moe
