// The balanced assignment of BASE against every assignment there is, on sizes where they can be
// listed.
#include <catch2/catch.hpp>

#include "lib/core/matrix.h"
#include "lib/core/rng.h"
#include "lib/router/assignment.h"

using namespace moe;

namespace {

// The best sum over all assignments of tokens t.. with `room[e]` places left and `spare` experts
// that may take one more.
double best_sum(const Matrix<double>& value, Index t, std::vector<int>& load, Index floor,
                Index extra) {
  if (t == value.rows())
    return 0;
  double best = -1e300;
  for (Index e = 0; e < value.cols(); ++e) {
    int& n = load[std::size_t(e)];
    const bool takes_extra = n == floor;
    if (n > floor || (takes_extra && extra == 0))
      continue;
    ++n;
    best = std::max(best, value(t, e) + best_sum(value, t + 1, load, floor, extra - takes_extra));
    --n;
  }
  return best;
}

}  // namespace

TEST_CASE("the balanced assignment is even and as good as any") {
  Rng rng(3);
  for (int round = 0; round < 60; ++round) {
    const Index tokens = 1 + rng.below(8);
    const Index experts = 1 + rng.below(4);
    Matrix<double> value(tokens, experts);
    // and with ties
    for (double& v : value.flat())
      v = round % 3 ? rng.normal() : double(rng.below(3));
    const std::vector<int> of = balanced_assignment(std::as_const(value).view());
    std::vector<int> load(std::size_t(experts), 0);
    double sum = 0;
    for (Index t = 0; t < tokens; ++t) {
      REQUIRE((of[std::size_t(t)] >= 0 && of[std::size_t(t)] < experts));
      ++load[std::size_t(of[std::size_t(t)])];
      sum += value(t, of[std::size_t(t)]);
    }
    for (const int n : load)
      CHECK((n == tokens / experts || n == tokens / experts + 1));
    CHECK(std::ranges::count(load, int(tokens / experts) + 1) == (tokens % experts));
    std::vector<int> none(std::size_t(experts), 0);
    CHECK(sum == Approx(best_sum(value, 0, none, tokens / experts, tokens % experts)).margin(1e-9));
  }
}

TEST_CASE("the balanced assignment of many tokens ends") {
  Rng rng(4);
  Matrix<double> value(1003, 16);
  for (double& v : value.flat())
    v = rng.normal() * 5;
  const std::vector<int> of = balanced_assignment(std::as_const(value).view());
  for (int e = 0; e < 16; ++e)
    CHECK((std::ranges::count(of, e) == 62 || std::ranges::count(of, e) == 63));
}
