// Our values beside those of a file: the largest error and where, the first disagreement, and what
// the file expects that nobody has compared.
#pragma once
#include <set>

#include "lib/core/matrix.h"
#include "lib/golden/golden_layer.h"
#include "lib/trace/golden.h"

namespace moe {

class Comparison {
 public:
  Comparison(const GoldenFile& file, double tolerance) : file_(file), tolerance_(tolerance) {}

  // Each compares with "expected/NAME" where the file has it. Equal within tolerance * max(1, max
  // |expected|) of the tensor.
  void reals(const std::string& name, std::span<const double> ours) {
    reals(name, ours, tolerance_);
  }
  void reals(const std::string& name, std::span<const double> ours, double tolerance);
  void real(const std::string& name, double ours) {
    reals(name, {&ours, 1});
  }
  void integers(const std::string& name, std::span<const std::int64_t> ours);
  // padded with -1 to `width` columns
  void ids(const std::string& name, const Matrix<int>& ours, Index width);
  void weights(const std::string& name, const Matrix<double>& ours, Index width);  // padded with 0
  template <class S>
  void tensor(const std::string& name, View<const S> ours) {
    const std::vector<double> wide(ours.data, ours.data + ours.size());
    reals(name, wide);
  }

  const GoldenError& worst() const {
    return worst_;
  }
  const std::string& disagreement() const {
    return first_;
  }  // "" = none
  // expected datasets that nobody compared
  std::vector<std::string> left() const;

 private:
  void disagree(const std::string& sentence) {
    if (first_.empty())
      first_ = sentence;
  }
  const GoldenFile& file_;
  double tolerance_;
  GoldenError worst_;
  std::string first_;
  std::set<std::string> seen_;
};

}  // namespace moe
