// How sure a difference of two losses on the same text is: by sequences, which are independent.
#include <catch2/catch.hpp>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/run/evaluation.h"

using namespace moe;

namespace {

// Losses by sequence, of so many tokens each.
DomainLoss losses(const std::vector<double>& by_token, Index tokens) {
  DomainLoss out{"a"};
  for (const double loss : by_token) {
    out.sequence_nats.push_back(loss * double(tokens));
    out.sequence_tokens.push_back(tokens);
    out.nats += loss * double(tokens);
    out.tokens += tokens;
  }
  return out;
}

}  // namespace

TEST_CASE("the error of a difference is that of the mean over sequences") {
  const std::vector<double> one = {3, 2, 4, 3, 2, 4, 3, 3};
  std::vector<double> other = one;
  for (std::size_t q = 0; q < other.size(); ++q)
    other[q] += q % 2 ? 0.3 : 0.1;
  // 0.2 on average, 0.1 away from it each: sqrt(8 / 7) 0.1 / sqrt(8)
  const double error = error_of_difference(losses(one, 16), losses(other, 16));
  CHECK(error == Approx(0.1 / std::sqrt(7.0)));
  CHECK(error_of_difference(losses(one, 16), losses(one, 16)) == 0);
}

TEST_CASE("too few sequences give no error, and other sequences are a bug") {
  const std::vector<double> few(least_sequences - 1, 2.0);
  CHECK(std::isnan(error_of_difference(losses(few, 4), losses(few, 4))));
  const std::vector<double> enough(least_sequences, 2.0);
  CHECK_THROWS_AS(error_of_difference(losses(enough, 4), losses(enough, 5)), Error);
  CHECK(std::isnan(error_of_difference({"none"}, {"none"})));
}

TEST_CASE("of a hundred differences by chance about five lie beyond twice their error") {
  int beyond = 0;
  for (std::uint64_t run = 0; run < 400; ++run) {
    Rng rng(run);
    std::vector<double> one, other;
    for (int q = 0; q < 30; ++q) {
      one.push_back(3 + rng.normal());
      other.push_back(one.back() + 0.1 * rng.normal());
    }
    const DomainLoss a = losses(one, 8);
    const DomainLoss b = losses(other, 8);
    beyond += std::abs(b.loss() - a.loss()) > 2 * error_of_difference(a, b);
  }
  CHECK(beyond < 40);
  CHECK(beyond > 5);
}
