// Rows of scores are read many numbers at a time: whatever their length, and wherever ties, barred
// experts and zeros stand in them, the numbers are those of the plain loops written here.
#include "lib/router/scores.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "lib/core/rng.h"

using namespace moe;

namespace {

constexpr double never = -std::numeric_limits<double>::infinity();

// All kinds of rows: plain, with ties, with barred experts, with scores far apart.
std::vector<double> drawn(Rng& rng, int n, int kind) {
  std::vector<double> row;
  for (int e = 0; e < n; ++e) {
    double v = rng.normal() * (kind == 3 ? 300 : 1);
    v = kind == 1 ? std::floor(2 * v) : v;
    row.push_back(kind == 2 && rng.uniform() < 0.2 ? never : v);
  }
  row[std::size_t(n) / 2] = 0.5;  // one that is allowed
  return row;
}

std::vector<int> best_by_sorting(const std::vector<double>& key, int k) {
  std::vector<int> order(key.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int a, int b) { return key[a] > key[b]; });
  order.resize(std::size_t(k));
  for (int& e : order)
    e = key[e] == never ? -1 : e;
  return order;
}

void for_rows(const std::function<void(Rng&, const std::vector<double>&)>& check) {
  Rng rng(3);
  for (const int n : {1, 2, 8, 15, 16, 17, 31, 32, 33, 64, 127, 128, 1000}) {
    for (int kind = 0; kind < 4; ++kind) {
      for (int i = 0; i < 5; ++i) {
        const std::vector<double> row = drawn(rng, n, kind);
        INFO(n << " scores of kind " << kind);
        check(rng, row);
      }
    }
  }
}

}  // namespace

TEST_CASE("the best of a row are those of a stable sort") {
  for_rows([](Rng&, const std::vector<double>& row) {
    for (const int k : {1, 2, 8, 30}) {
      if (k > int(row.size()))
        continue;
      std::vector<int> best(std::size_t(k), 0);
      best_of(row, best);
      CHECK(best == best_by_sorting(row, k));
    }
  });
}

TEST_CASE("the softmax of a row and its backward keep the order of their sums") {
  for_rows([](Rng& rng, const std::vector<double>& row) {
    const double top = *std::ranges::max_element(row);
    std::vector<double> p(row.size()), want(row.size());
    double sum = 0;
    for (std::size_t e = 0; e < row.size(); ++e)
      sum += want[e] = std::exp(row[e] - top);
    CHECK(log_sum_exp(row) == top + std::log(sum));
    for (double& v : want)
      v /= sum;
    softmax_row(row, p);
    REQUIRE(p == want);
    std::vector<double> dp(row.size()), dz(row.size(), 1);
    for (double& v : dp)
      v = rng.uniform() < 0.1 ? rng.normal() : 0;
    double mean = 0;
    for (std::size_t e = 0; e < p.size(); ++e)
      mean += dp[e] * p[e];
    for (std::size_t e = 0; e < p.size(); ++e)
      want[e] = 1 + p[e] * (dp[e] - mean);
    softmax_row_backward(p, dp, dz);
    CHECK(dz == want);
  });
}

TEST_CASE("a row with a score that is no number has no probabilities") {
  std::vector<double> row(40, 1.0), p(40);
  row[33] = std::numeric_limits<double>::quiet_NaN();
  softmax_row(row, p);
  for (const double v : p)
    CHECK(std::isnan(v));
}
