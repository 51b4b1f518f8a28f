// Learning rates at known steps: every schedule from warm-up to floor, its defaults, and the rate
// that a group of parameters gets.
#include <catch2/catch.hpp>

#include <cmath>
#include <numbers>

#include "lib/core/error.h"
#include "lib/model/trainer.h"

using namespace moe;

namespace {

constexpr double exact = 1e-14;

void goes_through(const Schedule& schedule, const std::vector<std::pair<Index, double>>& expected) {
  for (const auto& [step, factor] : expected) {
    INFO(schedule.resolved() << " at step " << step);
    CHECK(schedule.factor(step) == Approx(factor).epsilon(exact));
  }
}

}  // namespace

TEST_CASE("cosine warms up to the peak and falls to the floor by half a wave") {
  // 0.1 + 0.9 * (1 + cos(pi n)) / 2 at n = 0, 1/6, 1/4, 1/3, 1/2, 2/3, 3/4, 1
  const double half = std::numbers::sqrt2 / 2;
  const double third = std::numbers::sqrt3 / 2;
  goes_through(Schedule("cosine:warmup=20,floor=0.1", 140), {{0, 0.05},
                                                             {1, 0.1},
                                                             {9, 0.5},
                                                             {19, 1.0},
                                                             {20, 1.0},
                                                             {40, 0.1 + 0.45 * (1 + third)},
                                                             {50, 0.1 + 0.45 * (1 + half)},
                                                             {60, 0.1 + 0.45 * 1.5},
                                                             {80, 0.55},
                                                             {100, 0.1 + 0.45 * 0.5},
                                                             {110, 0.1 + 0.45 * (1 - half)},
                                                             {140, 0.1},
                                                             {1000, 0.1}});
  goes_through(Schedule("cosine:warmup=0,floor=0", 10), {{0, 1.0}, {5, 0.5}, {10, 0.0}});
}

TEST_CASE("wsd warms up, stays, and falls in a straight line at the end") {
  goes_through(Schedule("wsd:warmup=10,decay=0.25,floor=0.2", 200), {{0, 0.1},
                                                                     {4, 0.5},
                                                                     {9, 1.0},
                                                                     {10, 1.0},
                                                                     {100, 1.0},
                                                                     {149, 1.0},
                                                                     {150, 1.0},
                                                                     {160, 0.84},
                                                                     {175, 0.6},
                                                                     {199, 0.216},
                                                                     {200, 0.2},
                                                                     {999, 0.2}});
  // a decay that would begin before the warm-up's end begins there
  goes_through(Schedule("wsd:warmup=50,decay=1,floor=0", 100),
               {{24, 0.5}, {50, 1.0}, {75, 0.5}, {100, 0.0}});
}

TEST_CASE("constant warms up and stays") {
  goes_through(Schedule("constant:warmup=4", 10),
               {{0, 0.25}, {1, 0.5}, {3, 1.0}, {4, 1.0}, {10, 1.0}, {100, 1.0}});
  goes_through(Schedule("constant:warmup=0", 10), {{0, 1.0}, {9, 1.0}});
}

TEST_CASE("what a schedule leaves open has its documented default") {
  // warm-up: a tenth of the horizon, at most 100 steps
  CHECK(Schedule("cosine", 2000).resolved() == "cosine:warmup=100,floor=0.1");
  CHECK(Schedule("cosine", 200).resolved() == "cosine:warmup=20,floor=0.1");
  CHECK(Schedule("wsd", 2000).resolved() == "wsd:warmup=100,floor=0,decay=0.2");
  CHECK(Schedule("constant", 50).resolved() == "constant:warmup=5");
}

TEST_CASE("a schedule refuses what it does not know") {
  CHECK_THROWS_WITH(Schedule("cosin", 10), Catch::Contains("no schedule named 'cosin'"));
  CHECK_THROWS_AS(Schedule("constant:floor=0.1", 10), Error);
  CHECK_THROWS_AS(Schedule("cosine:decay=0.1", 10), Error);
  CHECK_THROWS_AS(Schedule("cosine:warmup=-1", 10), Error);
  CHECK_THROWS_AS(Schedule("wsd:floor=-0.5", 10), Error);
}
