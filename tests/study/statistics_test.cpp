// What few repetitions can say: tails against tables, intervals against simulation.
#include "analysis/statistics/paired.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "lib/core/rng.h"

using namespace moe;
using namespace moe::statistics;

TEST_CASE("tails of Student's t are those of the tables") {
  CHECK(student_tail(12.706, 1) == Approx(0.05).epsilon(1e-4));
  CHECK(student_tail(4.3027, 2) == Approx(0.05).epsilon(1e-4));
  CHECK(student_tail(3.1824, 3) == Approx(0.05).epsilon(1e-4));
  CHECK(student_tail(2.7764, 4) == Approx(0.05).epsilon(1e-4));
  CHECK(student_tail(3.2498, 9) == Approx(0.01).epsilon(1e-4));
  CHECK(student_tail(2.0423, 30) == Approx(0.05).epsilon(1e-4));
  CHECK(student_tail(0, 5) == 1);
  CHECK(student_quantile(0.05, 2) == Approx(4.3027).epsilon(1e-4));
  CHECK(student_quantile(0.01, 9) == Approx(3.2498).epsilon(1e-4));
  CHECK(normal_below(1.959964) == Approx(0.975).epsilon(1e-6));
}

TEST_CASE("intervals hold the true mean in 95 of 100 experiments, however few the repetitions") {
  constexpr int experiments = 1500;
  for (const int n : {2, 3, 5, 8}) {
    int held = 0;
    Rng rng(std::uint64_t(n) * 1000);
    for (int i = 0; i < experiments; ++i) {
      std::vector<double> values;
      for (int r = 0; r < n; ++r)
        values.push_back(7 + rng.normal());
      const Estimate e = estimate(values);
      held += e.low <= 7 && 7 <= e.high ? 1 : 0;
    }
    INFO(n << " repetitions");
    // three deviations of a binomial share below 0.95
    CHECK(double(held) / experiments > 0.95 - 3 * std::sqrt(0.95 * 0.05 / experiments));
  }
}

TEST_CASE("Wilson's interval is that of the formula, and stays within 0 to 1") {
  const auto [low, high] = wilson(50, 100);
  CHECK(low == Approx(0.40383).epsilon(1e-4));
  CHECK(high == Approx(0.59617).epsilon(1e-4));
  CHECK(wilson(0, 10).first == 0);
  CHECK(wilson(0, 10).second == Approx(0.27753).epsilon(1e-4));
  CHECK(wilson(10, 10).second == 1);
}

TEST_CASE("an interval is exact where all repetitions agree, and none where there is one") {
  const Estimate exact = estimate(std::vector<double>{2.5, 2.5, 2.5}, 2);
  CHECK(exact.low == 2.5);
  CHECK(exact.high == 2.5);
  CHECK(exact.p == 0);
  const Estimate one = estimate(std::vector<double>{2.5});
  CHECK(one.value == 2.5);
  CHECK(std::isnan(one.low));
  CHECK(std::isnan(estimate(std::vector<double>{1, INFINITY}).low));
}

TEST_CASE("Holm's correction is that of its paper's example") {
  const auto c = holm(std::vector<double>{0.01, 0.04, 0.03, NAN, 0.005});
  CHECK(c[4].p == Approx(0.02));
  CHECK(c[0].p == Approx(0.03));
  CHECK(c[2].p == Approx(0.06));
  CHECK(c[1].p == Approx(0.06));
  CHECK(std::isnan(c[3].p));
  CHECK(c[4].level == Approx(1 - 0.05 / 4));
  CHECK(c[0].level == Approx(1 - 0.05 / 3));
  // the first that is not rejected ends the steps
  CHECK(c[2].level == Approx(1 - 0.05 / 2));
  CHECK(c[1].level == Approx(1 - 0.05 / 2));
}

TEST_CASE("repetitions needed make the interval as narrow as was asked for") {
  // t(0.05; 15) 1 / sqrt(16) = 0.533, t(0.05; 16) 1 / sqrt(17) = 0.514
  CHECK(repetitions_needed(1, 0.53, 0.95) == 17);
  CHECK(repetitions_needed(1, 0.001, 0.95) == 0);
  CHECK(repetitions_needed(0, 0.1, 0.95) == 2);
}

TEST_CASE("a ratio of sums has the interval of its pieces") {
  std::vector<double> over, under;
  Rng rng(5);
  for (int i = 0; i < 60; ++i) {
    under.push_back(20 + double(rng.below(20)));
    over.push_back(under.back() * (0.3 + 0.2 * rng.normal()));
  }
  const Estimate e = ratio_estimate(over, under);
  CHECK(e.low < 0.3);
  CHECK(e.high > 0.3);
  CHECK(e.high - e.low < 0.2);
  CHECK(e.high - e.low > 0.06);
}

TEST_CASE("means that are not paired have Welch's interval") {
  const Estimate e = unpaired(std::vector<double>{1, 2, 3}, std::vector<double>{4, 6, 8});
  CHECK(e.value == Approx(4));
  // error sqrt(1/3 + 4/3), 2.94 degrees of freedom, rounded down to 2
  CHECK(e.high - e.value == Approx(4.3027 * std::sqrt(5.0 / 3)).epsilon(1e-4));
}

TEST_CASE("of a hundred differences by chance about five lie outside their intervals") {
  int outside = 0;
  for (std::uint64_t run = 0; run < 400; ++run) {
    Rng rng(run);
    std::vector<double> nats;
    for (int q = 0; q < 30; ++q)
      nats.push_back(8 * 0.1 * rng.normal());
    const Estimate e = ratio_estimate(nats, std::vector<double>(nats.size(), 8.0));
    outside += e.low > 0 || e.high < 0 ? 1 : 0;
  }
  CHECK(outside < 32);
  CHECK(outside > 5);
  const Estimate same = ratio_estimate(std::vector<double>{0, 0, 0}, std::vector<double>{4, 5, 6});
  CHECK(same.low == 0);
  CHECK(same.high == 0);
  CHECK(same.p == 1);
}
