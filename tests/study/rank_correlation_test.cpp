// Rank correlations against hand-made ones, what groups must not make, and how often intervals
// hold.
#include <catch2/catch.hpp>
#include <cmath>

#include "analysis/statistics/rank_correlation.h"
#include "lib/core/rng.h"

using namespace moe;
using namespace moe::statistics;

TEST_CASE("ranks share the middle of their places, and correlations are those of ranks") {
  CHECK(ranks_of(std::vector<double>{5, 1, 5}) == std::vector<double>{1.5, 0, 1.5});
  CHECK(rank_correlation(std::vector<double>{1, 2, 3}, std::vector<double>{1, 10, 1000}) ==
        Approx(1));
  CHECK(rank_correlation(std::vector<double>{1, 2, 3}, std::vector<double>{3, 2, 1}) == Approx(-1));
  // 1 - 6 sum d^2 / (n (n^2 - 1)) with d = 1, -1, 0, 0, 0
  CHECK(rank_correlation(std::vector<double>{1, 2, 3, 4, 5}, std::vector<double>{2, 1, 3, 4, 5}) ==
        Approx(0.9));
  CHECK(std::isnan(rank_correlation(std::vector<double>{1, 1}, std::vector<double>{1, 2})));
  CHECK(std::isnan(rank_correlation(std::vector<double>{1}, std::vector<double>{1})));
}

TEST_CASE("a partial rank correlation keeps what a third figure does not explain") {
  Rng rng(5);
  std::vector<double> a, b, c, z;
  for (int i = 0; i < 2000; ++i) {
    z.push_back(rng.normal());
    a.push_back(z.back() + rng.normal());
    b.push_back(z.back() + rng.normal());
    c.push_back(a.back() + rng.normal());
  }
  CHECK(rank_correlation(a, b) > 0.4);
  CHECK(std::abs(partial_rank_correlation(a, b, z)) < 0.08);  // ranks are not quite lines
  CHECK(partial_rank_correlation(a, c, z) > 0.4);
  CHECK(partial_rank_correlation(a, b, std::vector<double>(a.size(), 1)) ==
        Approx(rank_correlation(a, b)));
  CHECK(std::isnan(partial_rank_correlation(a, b, a)));
}

TEST_CASE("what sets groups apart makes no correlation within them") {
  Rng rng(6);
  std::vector<double> a, b;
  std::vector<int> group;
  for (int i = 0; i < 600; ++i) {
    group.push_back(i % 3);
    a.push_back(10.0 * (i % 3) + rng.uniform());
    b.push_back(20.0 * (i % 3) + rng.uniform());
  }
  CHECK(rank_correlation(a, b) > 0.8);
  const Correlated within = rank_correlation_within(a, b, group);
  CHECK(std::abs(within.value) < 0.12);
  CHECK(within.pairs == 598);
  CHECK(within.low < 0);
  CHECK(within.high > 0);
  a[7] = NAN;
  CHECK(rank_correlation_within(a, b, group).pairs == 597);
  const Correlated none = rank_correlation_within({}, {}, {});
  CHECK(std::isnan(none.value));
  CHECK(std::isnan(none.low));
}

TEST_CASE("intervals of rank correlations hold the true one about as often as they say") {
  for (const double strength : {0.0, 0.7}) {
    // Spearman's of a bivariate normal: 6/pi asin(r/2)
    const double r = strength / std::sqrt(1 + strength * strength);
    const double truth = 6 / std::acos(-1.0) * std::asin(r / 2);
    int held = 0;
    constexpr int runs = 1000;
    for (int run = 0; run < runs; ++run) {
      Rng rng(std::uint64_t(run), 11);
      std::vector<double> a, b;
      for (int i = 0; i < 32; ++i) {
        a.push_back(rng.normal());
        b.push_back(strength * a.back() + rng.normal());
      }
      const Correlated c = rank_correlation_within(a, b, std::vector<int>(32, 0));
      held += c.low <= truth && c.high >= truth;
    }
    INFO(strength << ": " << held << " of " << runs);
    CHECK(held > runs * 0.92);
    CHECK(held < runs * 0.98);
  }
}
