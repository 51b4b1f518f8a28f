#include "analysis/metric/shared_sequences.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moe {
namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN();

// Sum over all x of `a` and y of `b` of min(x, y).
double sum_of_least(std::vector<double> a, std::vector<double> b) {
  std::ranges::sort(a);
  std::ranges::sort(b);
  double below = 0;  // sum of the y that are no larger than x
  std::size_t count = 0;
  double out = 0;
  for (const double x : a) {
    while (count < b.size() && b[count] <= x)
      below += b[count++];
    out += below + x * double(b.size() - count);
  }
  return out;
}

std::vector<double> column(const Matrix<double>& m, Index c) {
  std::vector<double> out;
  for (Index r = 0; r < m.rows(); ++r)
    out.push_back(m(r, c));
  return out;
}

double least_sum(std::span<const double> a, std::span<const double> b) {
  double out = 0;
  for (std::size_t e = 0; e < a.size(); ++e)
    out += std::min(a[e], b[e]);
  return out;
}

}  // namespace

void SharedSequences::add(std::size_t sequence, std::size_t label, std::span<const int> chosen) {
  if (sequence >= sequences_)
    return;
  const std::size_t row = labels_ * experts_;
  if (count_.size() < (sequence + 1) * row)
    count_.resize((sequence + 1) * row);
  for (const int e : chosen)
    ++count_[sequence * row + label * experts_ + std::size_t(e)];
}

std::uint64_t SharedSequences::total(std::size_t sequence, std::size_t label) const {
  const auto c = counts(sequence, label);
  return std::accumulate(c.begin(), c.end(), std::uint64_t{0});
}

std::vector<std::size_t> SharedSequences::with_both(std::size_t a, std::size_t b) const {
  std::vector<std::size_t> out;
  for (std::size_t s = 0; s < count_.size() / (labels_ * experts_); ++s) {
    if (total(s, a) > 0 && total(s, b) > 0)
      out.push_back(s);
  }
  return out;
}

Matrix<double> SharedSequences::shares(const std::vector<std::size_t>& sequences,
                                       std::size_t label) const {
  Matrix<double> out(Index(sequences.size()), Index(experts_));
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    const auto c = counts(sequences[i], label);
    const double all = double(total(sequences[i], label));
    for (std::size_t e = 0; e < experts_; ++e)
      out(Index(i), Index(e)) = double(c[e]) / all;
  }
  return out;
}

SharedSequences::Overlap SharedSequences::overlap(std::size_t a, std::size_t b) const {
  const auto both = with_both(a, b);
  const double n = double(both.size());
  if (both.empty())
    return {none, none, none, 0};
  const Matrix<double> ha = shares(both, a);
  const Matrix<double> hb = shares(both, b);
  double sum = 0;
  double squares = 0;
  for (Index s = 0; s < ha.rows(); ++s) {
    const double one = least_sum(ha.row(s), hb.row(s));
    sum += one;
    squares += one * one;
  }
  Overlap out{sum / n, none, none, n};
  if (both.size() < 2)
    return out;
  out.error = std::sqrt(std::max(0.0, squares - sum * sum / n) / (n - 1) / n);
  double every = 0;
  for (Index e = 0; e < ha.cols(); ++e)
    every += sum_of_least(column(ha, e), column(hb, e));
  out.other = (every - sum) / (n * (n - 1));
  return out;
}

chance::Value SharedSequences::overlap_by_chance(std::size_t a, std::size_t b, int k) const {
  constexpr std::size_t runs = 400;  // the mean strays by a few thousandths then
  const auto both = with_both(a, b);
  std::vector<double> each;
  Rng rng(chance::seed);
  for (std::size_t i = 0; i < runs && !both.empty(); ++i) {
    const std::size_t sequence = both[i % both.size()];
    std::vector<double> share[2];
    for (const std::size_t side : {0u, 1u}) {
      const auto tokens = std::int64_t(total(sequence, side == 0 ? a : b)) / k;
      const auto counts =
          chance::draw_counts(int(experts_), k, std::max<std::int64_t>(1, tokens), rng);
      const double all = std::accumulate(counts.begin(), counts.end(), 0.0);
      for (const std::int64_t c : counts)
        share[side].push_back(double(c) / all);
    }
    each.push_back(least_sum(share[0], share[1]));
  }
  const chance::Value one = chance::of_runs(each);
  return {one.mean, one.spread / std::sqrt(double(std::max<std::size_t>(1, both.size())))};
}

Matrix<double> SharedSequences::together(std::size_t a, std::size_t b) const {
  const auto both = with_both(a, b);
  const auto e = Index(experts_);
  Matrix<double> out(e, e, both.empty() ? none : 0.0);
  const Matrix<double> ha = shares(both, a);
  const Matrix<double> hb = shares(both, b);
  for (Index s = 0; s < ha.rows(); ++s) {
    for (Index i = 0; i < e; ++i) {
      for (Index j = 0; j < e && ha(s, i) > 0; ++j)
        out(i, j) += ha(s, i) * hb(s, j) / double(both.size());
    }
  }
  return out;
}

std::vector<double> SharedSequences::alone(std::size_t a, std::size_t b) const {
  const auto both = with_both(a, b);
  std::vector<double> out(experts_, both.empty() ? none : 0.0);
  const Matrix<double> ha = shares(both, a);
  for (Index s = 0; s < ha.rows(); ++s) {
    for (std::size_t e = 0; e < experts_; ++e)
      out[e] += ha(s, Index(e)) / double(both.size());
  }
  return out;
}

}  // namespace moe
