#include "analysis/metric/joint.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace moe {
namespace {
constexpr double nan = std::numeric_limits<double>::quiet_NaN();
}

double entropy_bits(std::span<const std::int64_t> counts) {
  const double n = double(std::accumulate(counts.begin(), counts.end(), std::int64_t{0}));
  double bits = 0;
  for (const std::int64_t c : counts) {
    if (c > 0)
      bits -= double(c) / n * std::log2(double(c) / n);
  }
  return bits;
}

std::vector<std::int64_t> column_sums(const Counts& j) {
  std::vector<std::int64_t> out(std::size_t(j.cols()), 0);
  for (Index r = 0; r < j.rows(); ++r) {
    for (Index c = 0; c < j.cols(); ++c)
      out[c] += j(r, c);
  }
  return out;
}

std::vector<std::int64_t> row_sums(const Counts& j) {
  std::vector<std::int64_t> out;
  for (Index r = 0; r < j.rows(); ++r)
    out.push_back(std::accumulate(j.row(r).begin(), j.row(r).end(), std::int64_t{0}));
  return out;
}

double mutual_information_bits(const Counts& j) {
  const auto rows = row_sums(j);
  const auto cols = column_sums(j);
  const double n = double(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}));
  if (n == 0)
    return nan;
  double bits = 0;
  for (Index r = 0; r < j.rows(); ++r) {
    for (Index c = 0; c < j.cols(); ++c) {
      if (j(r, c) > 0) {
        bits += double(j(r, c)) / n *
                std::log2(double(j(r, c)) * n / (double(rows[r]) * double(cols[c])));
      }
    }
  }
  return bits;
}

namespace {
// Expected contribution of a cell, in bits, whose row and column sum to a and b of n at random: the
// mean of (x/n) log2(x n/(a b)) over the hypergeometric distribution of x, its terms by their
// ratios from the most likely one outwards until they vanish.
double expected_cell_bits(double a, double b, double n) {
  const double least = std::max(0.0, a + b - n);
  const double most = std::min(a, b);
  const double mode = std::clamp(std::floor((a + 1) * (b + 1) / (n + 2)), least, most);
  const auto choose = [](double m, double k) {
    return std::lgamma(m + 1) - std::lgamma(k + 1) - std::lgamma(m - k + 1);
  };
  const double top = std::exp(choose(b, mode) + choose(n - b, a - mode) - choose(n, a));
  const auto bits = [&](double x) {
    return x > 0 ? x / n * std::log2(x * n / (a * b)) : 0.0;
  };
  double sum = top * bits(mode);
  double all = top;
  double p = top;
  for (double x = mode; x < most && p > 1e-18 * top; ++x) {
    p *= (a - x) * (b - x) / ((x + 1) * (n - a - b + x + 1));
    sum += p * bits(x + 1);
    all += p;
  }
  p = top;
  for (double x = mode; x > least && p > 1e-18 * top; --x) {
    p *= x * (n - a - b + x) / ((a - x + 1) * (b - x + 1));
    sum += p * bits(x - 1);
    all += p;
  }
  // of logarithms of large factorials only some digits are right, of their ratios all
  return sum / all;
}
}  // namespace

double adjusted_mutual_information(const Counts& j) {
  const auto rows = row_sums(j);
  const auto cols = column_sums(j);
  const double n = double(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}));
  const auto used = [](const std::vector<std::int64_t>& sums) {
    return std::count_if(sums.begin(), sums.end(), [](auto c) { return c > 0; });
  };
  if (used(rows) < 2 || used(cols) < 2)
    return 0;
  double expected = 0;
  for (const std::int64_t a : rows) {
    for (const std::int64_t b : cols) {
      if (a > 0 && b > 0)
        expected += expected_cell_bits(double(a), double(b), n);
    }
  }
  const double room = (entropy_bits(rows) + entropy_bits(cols)) / 2 - expected;
  // no room: every row and column holds one token
  return room > 1e-12 ? (mutual_information_bits(j) - expected) / room : 1;
}

double adjusted_rand(const Counts& j) {
  const auto pairs = [](std::span<const std::int64_t> counts) {
    double sum = 0;
    for (const std::int64_t c : counts)
      sum += double(c) * double(c - 1) / 2;
    return sum;
  };
  const auto rows = row_sums(j);
  const double in_rows = pairs(rows);
  const double in_columns = pairs(column_sums(j));
  const std::int64_t n = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
  if (n < 2)
    return 0;
  const double expected = in_rows * in_columns / (double(n) * double(n - 1) / 2);
  const double room = (in_rows + in_columns) / 2 - expected;
  return room > 0 ? (pairs(j.flat()) - expected) / room : 0;
}

double best_guess_share(const Counts& j) {
  std::int64_t best = 0;
  std::int64_t all = 0;
  for (Index r = 0; r < j.rows(); ++r) {
    best += j.cols() ? *std::max_element(j.row(r).begin(), j.row(r).end()) : 0;
    all += std::accumulate(j.row(r).begin(), j.row(r).end(), std::int64_t{0});
  }
  return all ? double(best) / double(all) : nan;
}

double max_lift(const Counts& j) {
  const auto rows = row_sums(j);
  const auto cols = column_sums(j);
  const double n = double(std::accumulate(rows.begin(), rows.end(), std::int64_t{0}));
  double best = n > 0 ? 0 : nan;
  for (Index r = 0; r < j.rows(); ++r) {
    for (Index c = 0; c < j.cols(); ++c) {
      if (rows[r] && cols[c]) {
        best = std::max(best, double(j(r, c)) / double(rows[r]) / (double(cols[c]) / n));
      }
    }
  }
  return best;
}

Matrix<double> total_variation(const Counts& j) {
  const auto rows = row_sums(j);
  Matrix<double> out(j.rows(), j.rows(), nan);
  for (Index a = 0; a < j.rows(); ++a) {
    for (Index b = 0; b < j.rows(); ++b) {
      const double na = double(rows[a]);
      const double nb = double(rows[b]);
      if (na == 0 || nb == 0)
        continue;
      double distance = 0;
      for (Index c = 0; c < j.cols(); ++c)
        distance += std::abs(double(j(a, c)) / na - double(j(b, c)) / nb);
      out(a, b) = distance / 2;
    }
  }
  return out;
}

namespace {

// (rows,columns) each row over its sum; rows without counts are left out.
Matrix<double> row_shares(const Counts& j) {
  const auto rows = row_sums(j);
  Matrix<double> out(Index(std::ranges::count_if(rows, [](auto n) { return n > 0; })), j.cols());
  Index to = 0;
  for (Index r = 0; r < j.rows(); ++r) {
    if (rows[std::size_t(r)] == 0)
      continue;
    for (Index c = 0; c < j.cols(); ++c)
      out(to, c) = double(j(r, c)) / double(rows[std::size_t(r)]);
    ++to;
  }
  return out;
}

double share_entropy_bits(std::span<const double> shares) {
  double out = 0;
  for (const double p : shares)
    out -= p > 0 ? p * std::log2(p) : 0;
  return out;
}

// Entropy of the mean of shares less the mean of their entropies.
double divergence_bits(const Matrix<double>& shares) {
  if (shares.rows() == 0)
    return nan;
  std::vector<double> mean(std::size_t(shares.cols()), 0.0);
  double inside = 0;
  for (Index r = 0; r < shares.rows(); ++r) {
    inside += share_entropy_bits(shares.row(r)) / double(shares.rows());
    for (Index c = 0; c < shares.cols(); ++c)
      mean[std::size_t(c)] += shares(r, c) / double(shares.rows());
  }
  return std::max(0.0, share_entropy_bits(mean) - inside);
}

}  // namespace

Matrix<double> balanced_shares(const Counts& j) {
  const auto rows = row_sums(j);
  Matrix<double> out(j.rows(), j.cols(), nan);
  for (Index c = 0; c < j.cols(); ++c) {
    double all = 0;
    for (Index r = 0; r < j.rows(); ++r) {
      if (rows[std::size_t(r)] > 0)
        all += double(j(r, c)) / double(rows[std::size_t(r)]);
    }
    for (Index r = 0; r < j.rows(); ++r) {
      if (rows[std::size_t(r)] > 0 && all > 0)
        out(r, c) = double(j(r, c)) / double(rows[std::size_t(r)]) / all;
    }
  }
  return out;
}

double balanced_information_bits(const Counts& j) {
  return divergence_bits(row_shares(j));
}

Matrix<double> jensen_shannon_bits(const Counts& j) {
  const auto rows = row_sums(j);
  Matrix<double> out(j.rows(), j.rows(), nan);
  for (Index a = 0; a < j.rows(); ++a) {
    for (Index b = 0; b < j.rows(); ++b) {
      if (rows[std::size_t(a)] == 0 || rows[std::size_t(b)] == 0)
        continue;
      Counts two(2, j.cols());
      std::ranges::copy(j.row(a), two.row(0).begin());
      std::ranges::copy(j.row(b), two.row(1).begin());
      out(a, b) = a == b ? 0 : divergence_bits(row_shares(two));
    }
  }
  return out;
}

Matrix<double> coactivation_conditional(const Counts& pairs) {
  Matrix<double> out(pairs.rows(), pairs.cols());
  for (Index i = 0; i < pairs.rows(); ++i) {
    for (Index j = 0; j < pairs.cols(); ++j)
      out(i, j) = pairs(i, i) ? double(pairs(i, j)) / double(pairs(i, i)) : 0;
  }
  return out;
}

Matrix<double> coactivation_npmi(const Counts& pairs, std::int64_t tokens) {
  Matrix<double> out(pairs.rows(), pairs.cols());
  const double t = double(tokens);
  for (Index i = 0; i < pairs.rows(); ++i) {
    for (Index j = 0; j < pairs.cols(); ++j) {
      const double both = double(pairs(i, j));
      if (i == j || (pairs(i, j) == tokens && both > 0))
        continue;
      out(i, j) = both == 0 ? -1
                            : std::log(both * t / (double(pairs(i, i)) * double(pairs(j, j)))) /
                                  -std::log(both / t);
    }
  }
  return out;
}

double coactivation_max_lift(const Counts& pairs, std::int64_t tokens) {
  double best = 0;
  for (Index i = 0; i < pairs.rows(); ++i) {
    for (Index j = 0; j < pairs.cols(); ++j) {
      if (i != j && pairs(i, i) && pairs(j, j)) {
        best = std::max(best, double(pairs(i, j)) * double(tokens) /
                                  (double(pairs(i, i)) * double(pairs(j, j))));
      }
    }
  }
  return best;
}

double pair_r2(View<const float> x, View<const float> y) {
  double n = 0;
  double sx = 0;
  double sy = 0;
  double sxx = 0;
  double syy = 0;
  double sxy = 0;
  for (Index i = 0; i < x.rows; ++i) {
    for (Index j = i + 1; j < x.cols; ++j) {
      n += 1;
      sx += x(i, j);
      sy += y(i, j);
    }
  }
  if (n < 3)
    return nan;
  for (Index i = 0; i < x.rows; ++i) {
    for (Index j = i + 1; j < x.cols; ++j) {
      const double dx = x(i, j) - sx / n;
      const double dy = y(i, j) - sy / n;
      sxx += dx * dx;
      syy += dy * dy;
      sxy += dx * dy;
    }
  }
  return sxx > 0 && syy > 0 ? sxy * sxy / (sxx * syy) : nan;
}

}  // namespace moe
