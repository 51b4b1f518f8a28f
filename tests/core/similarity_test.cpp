// How alike experts are: permuted neurons, scaled outputs, unrelated directions, and the matching
// against all permutations.
#include "lib/core/similarity.h"

#include <catch2/catch.hpp>
#include <numeric>

#include "lib/core/rng.h"

using namespace moe;

namespace {

Matrix<double> random(Index rows, Index cols, Rng& rng) {
  Matrix<double> m(rows, cols);
  for (double& v : m.flat())
    v = rng.normal();
  return m;
}

}  // namespace

TEST_CASE("the best matching is the best of all permutations") {
  Rng rng(1);
  for (const int n : {0, 1, 2, 3, 5, 6}) {
    for (int run = 0; run < 10; ++run) {
      Matrix<double> value = random(n, n, rng);
      if (run % 2) {
        for (double& v : value.flat())
          v = std::round(v);  // ties
      }
      const auto found = best_matching(value.view());
      std::vector<int> order(static_cast<std::size_t>(n));
      std::iota(order.begin(), order.end(), 0);
      const auto sum = [&](const std::vector<int>& rows) {
        double s = 0;
        for (int c = 0; c < n; ++c)
          s += value(rows[std::size_t(c)], c);
        return s;
      };
      CHECK(std::is_permutation(found.begin(), found.end(), order.begin(), order.end()));
      double best = n ? -1e9 : 0;
      do
        best = std::max(best, sum(order));
      while (std::next_permutation(order.begin(), order.end()));
      CHECK(sum(found) == Approx(best).margin(1e-12));
    }
  }
}

TEST_CASE(
    "an expert with its neurons in another order is unlike by weights and the same when matched") {
  Rng rng(2);
  const Index width = 5;
  const Index hidden = 4;
  Matrix<double> gate = random(3 * width, hidden, rng);
  Matrix<double> up = random(3 * width, hidden, rng);
  Matrix<double> down = random(3 * hidden, width, rng);
  for (Index n = 0; n < width; ++n) {
    for (Index h = 0; h < hidden; ++h) {  // expert 1 = expert 0, neurons turned by two
      gate(width + n, h) = gate((n + 2) % width, h);
      up(width + n, h) = up((n + 2) % width, h);
      down(hidden + h, n) = down(h, (n + 2) % width);
    }
  }
  const ExpertMatrices<double> w{3, gate.view(), up.view(), down.view()};
  CHECK(expert_matched_cosine(w)(0, 1) == Approx(1));
  CHECK(expert_neuron_mean_cosine(w)(1, 0) == Approx(1));
  const WeightCosines of_weights = expert_weight_cosines(w);
  CHECK(of_weights.all(0, 1) < 0.9);
  CHECK(of_weights.up(0, 0) == Approx(1));
  CHECK(expert_matched_cosine(w)(0, 2) < 0.9);
  CHECK(expert_matched_cosine(w)(0, 2) > of_weights.all(0, 2));
  const ExpertMatrices<double> ungated{3, {}, up.view(), down.view()};
  CHECK(expert_weight_cosines(ungated).all(2, 2) == Approx(1));
}

TEST_CASE(
    "outputs: a scaled copy is the same, an opposite one the far end, an expert that says nothing "
    "no NaN") {
  Rng rng(3);
  const Index tokens = 40;
  const Index hidden = 6;
  const Index experts = 4;
  Matrix<double> y(tokens * experts, hidden);
  for (Index t = 0; t < tokens; ++t) {
    for (Index h = 0; h < hidden; ++h) {
      const double v = 0.5 + rng.normal();
      // expert 3: zero
      y(t * experts, h) = v;
      y(t * experts + 1, h) = 3 * v;
      y(t * experts + 2, h) = -v;
    }
  }
  const View<const double> all = std::as_const(y).view();
  const auto cosine = expert_output_cosine(all, experts);
  const auto cka = expert_output_cka(all, experts);
  const auto angle = expert_mean_output_angle(all, experts);
  CHECK(cosine(0, 1) == Approx(1));
  CHECK(cosine(0, 2) == Approx(-1));
  CHECK(cosine(3, 0) == 0);
  CHECK(cka(0, 1) == Approx(1));
  CHECK(cka(0, 2) == Approx(1));
  CHECK(cka(0, 3) == 0);
  CHECK(angle(0, 1) == Approx(0).margin(1e-7));
  CHECK(angle(0, 2) == Approx(1));
  CHECK(angle(0, 3) == Approx(0.5));
  Matrix<int> chosen(tokens, 2, -1);
  for (Index t = 0; t < tokens; ++t)
    chosen(t, 0) = 0;
  const auto ttm = expert_ttm_distance(all, experts, std::as_const(chosen).view());
  CHECK(ttm(0, 1) == Approx(0).margin(1e-12));
  CHECK(ttm(0, 2) == Approx(2));
  CHECK(ttm(0, 0) == 0);
  CHECK(ttm(1, 2) == 0);  // neither was chosen
  const Matrix<double> none(0, hidden);
  CHECK(expert_output_cosine(none.view(), 4)(0, 0) == 0);
  CHECK(expert_output_cka(none.view(), 4)(0, 0) == 0);
}
