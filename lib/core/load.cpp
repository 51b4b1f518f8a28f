// The load figures, each as its definition reads: plain loops in double.
#include "lib/core/load.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace moe {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

std::int64_t total(std::span<const std::int64_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

LoadFigures nothing(int experts) {
  LoadFigures f;
  f.experts = f.dead = experts;
  f.cv = f.cv_sample = f.max_over_mean = f.maxvio = f.avgvio = f.minvio = f.max_over_min = nan;
  f.entropy = f.entropy_norm = f.effective = f.jain = f.gini = nan;
  f.dead_fraction = 1;
  return f;
}

double gini(std::span<const std::int64_t> counts, double n) {
  std::vector<std::int64_t> rising(counts.begin(), counts.end());
  std::sort(rising.begin(), rising.end());
  const double experts = double(rising.size());
  double sum = 0;
  for (std::size_t i = 0; i < rising.size(); ++i)
    sum += (2.0 * double(i + 1) - experts - 1) * double(rising[i]);
  return sum / (experts * n);
}

void set_extremes(LoadFigures& f, std::span<const std::int64_t> counts, double mean) {
  const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
  f.max_over_mean = double(*most) / mean;
  f.maxvio = f.max_over_mean - 1;
  f.minvio = 1 - double(*least) / mean;
  f.max_over_min =
      *least > 0 ? double(*most) / double(*least) : std::numeric_limits<double>::infinity();
}

}  // namespace

LoadFigures load_figures(std::span<const std::int64_t> counts) {
  const std::int64_t assignments = total(counts);
  const double experts = double(counts.size());
  const double n = double(assignments);
  const double mean = n / experts;
  if (assignments <= 0)
    return nothing(int(counts.size()));
  LoadFigures f;
  f.assignments = assignments;
  f.experts = int(counts.size());
  double squares = 0;
  double deviation = 0;
  double around = 0;
  for (const std::int64_t c : counts) {
    const double count = double(c);
    const double share = count / n;
    f.dead += c == 0;
    squares += count * count;
    around += (count - mean) * (count - mean);
    deviation += std::abs(count / mean - 1);
    if (c > 0)
      f.entropy -= share * std::log(share);
  }
  set_extremes(f, counts, mean);
  f.cv = std::sqrt(around / experts) / mean;
  f.cv_sample = counts.size() > 1 ? std::sqrt(around / (experts - 1)) / mean : nan;
  f.avgvio = deviation / experts;
  f.entropy_norm = counts.size() > 1 ? f.entropy / std::log(experts) : 1;
  f.effective = std::exp(f.entropy) / experts;
  f.jain = n * n / (experts * squares);
  f.gini = gini(counts, n);
  f.dead_fraction = f.dead / experts;
  return f;
}

double load_topn_coverage(std::span<const std::int64_t> counts, int n) {
  std::vector<std::int64_t> falling(counts.begin(), counts.end());
  std::sort(falling.rbegin(), falling.rend());
  const std::size_t used = std::min(falling.size(), std::size_t(std::max(n, 0)));
  return double(total(std::span(falling).first(used))) / double(total(counts));
}

double capacity_drop_rate(std::span<const std::int64_t> counts, double factor) {
  const double n = double(total(counts));
  const double capacity = std::ceil(n / double(counts.size()) * factor - 1e-9);
  double over = 0;
  for (const std::int64_t c : counts)
    over += std::max(0.0, double(c) - capacity);
  return over / n;
}

double tile_padding_waste(std::span<const std::int64_t> counts, int tile) {
  std::int64_t padded = 0;
  for (const std::int64_t c : counts)
    padded += (c + tile - 1) / tile * tile;
  return 1 - double(total(counts)) / double(padded);
}

}  // namespace moe
