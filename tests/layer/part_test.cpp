// Sums that an owner of one expert makes are those that whoever has all experts makes.
#include <catch2/catch.hpp>

#include "lib/backend/backend.h"
#include "lib/core/rng.h"

using namespace moe;

namespace {

Array<float> drawn(Backend<float>& b, Index rows, Index cols, std::uint64_t seed) {
  Rng rng(seed);
  Matrix<float> m(rows, cols);
  for (float& v : m.flat())
    v = float(rng.normal());
  return {b, std::as_const(m).view()};
}

}  // namespace

TEST_CASE("a small weight's gradient over many rows is the same alone as beside other experts") {
  const auto backend = make_backend("cpu");
  constexpr Index rows = 1500;  // so many that a dense layer would cut them into chunks
  constexpr Index hidden = 16;
  const Array<float> dy = drawn(*backend, rows + 40, hidden, 1);
  const Array<float> x = drawn(*backend, rows + 40, hidden, 2);
  const auto plan_of = [&](Index first_expert, Index all, int experts) {
    Matrix<int> expert(all, 1);
    for (Index t = 0; t < all; ++t)
      expert(t, 0) = t < first_expert ? 0 : 1;
    const Array<int> kept(*backend, std::as_const(expert).view());
    return backend->plan(kept.view(), experts);
  };
  auto both = Array<float>::zeros(*backend, 2 * hidden, hidden);
  backend->grouped_linear_dw(dy.view(), x.view(), plan_of(rows, rows + 40, 2), both.view());
  auto alone = Array<float>::zeros(*backend, hidden, hidden);
  Plan part = plan_of(rows, rows, 1);
  part.part = true;
  backend->grouped_linear_dw(dy.view().slice(0, rows), x.view().slice(0, rows), part, alone.view());
  CHECK(std::ranges::equal(alone.view().flat(), both.view().slice(0, hidden).flat()));
  auto dense = Array<float>::zeros(*backend, hidden, hidden);
  part.part = false;
  backend->grouped_linear_dw(dy.view().slice(0, rows), x.view().slice(0, rows), part, dense.view());
  CHECK(!std::ranges::equal(dense.view().flat(), both.view().slice(0, hidden).flat()));
}
