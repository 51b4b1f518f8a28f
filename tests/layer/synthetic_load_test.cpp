// The skew that was asked for is the skew that comes out: distinct experts for each token, counts
// within a few of T k p.
#include <catch2/catch.hpp>

#include <cmath>

#include "lib/balance/balancer.h"
#include "lib/router/router.h"

using namespace moe;

namespace {
std::vector<std::int64_t> counts(const char* spec, int experts, Index tokens) {
  const auto router = make_router(spec, experts);
  Batch batch;
  batch.token.assign(std::size_t(tokens), 0);
  batch.start = {0, tokens};
  const Routing r = router->route({.scores = {}, .batch = batch});
  for (Index t = 0; t < tokens; ++t) {
    for (Index j = 1; j < r.choices(); ++j)
      REQUIRE(r.expert(t, j) > r.expert(t, j - 1));
  }
  return count_experts(r.expert, experts);
}
}  // namespace

TEST_CASE("synthetic loads are as skewed as asked") {
  constexpr Index tokens = 3000;
  const auto hot = counts("synthetic_load:k=2,hot=0.4", 8, tokens);
  CHECK(std::abs(double(hot[0]) - 0.4 * 2 * tokens) < 8);
  for (int e = 1; e < 8; ++e)
    CHECK(std::abs(double(hot[std::size_t(e)]) - 0.6 / 7 * 2 * tokens) < 8);
  const auto zipf = counts("synthetic_load:k=1,zipf=1.5", 16, tokens);
  double all = 0;
  for (int e = 0; e < 16; ++e)
    all += std::pow(e + 1, -1.5);
  for (int e = 0; e < 16; ++e)
    CHECK(std::abs(double(zipf[std::size_t(e)]) - tokens * std::pow(e + 1, -1.5) / all) < 8);
  const auto even = counts("synthetic_load:k=3,zipf=0", 7, 700);
  for (const auto n : even)
    CHECK(std::abs(double(n) - 300) < 4);
  const auto capped =
      counts("synthetic_load:k=2,zipf=6", 4, tokens);  // no token takes an expert twice
  CHECK(capped[0] == tokens);
  CHECK(counts("synthetic_load:k=5,zipf=1", 5, 40) == std::vector<std::int64_t>(5, 40));
}

TEST_CASE("a skew that cannot be is refused") {
  CHECK_THROWS_WITH(make_router("synthetic_load:k=2,hot=0.6", 8), Catch::Contains("hot=0.6"));
  CHECK_THROWS_WITH(make_router("synthetic_load:k=2,hot=0.1,zipf=1", 8),
                    Catch::Contains("two kinds of skew"));
  CHECK_THROWS_WITH(make_router("synthetic_load:k=9", 8),
                    Catch::Contains("more than the 8 experts"));
}
