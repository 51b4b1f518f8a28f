// bf16 on the processor: rounding as the definition of dtype.h has it, products of every shape and
// transposition against sums in double, and what is said where there are none.
#include <catch2/catch.hpp>

#include <cmath>
#include <limits>

#include "lib/backend/cpu_half.h"
#include "lib/backend/cpu_loops.h"
#include "lib/core/rng.h"
#include "tests/skip.h"

namespace moe {
namespace {

std::vector<Half> some_halves(Index count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<Half> out;
  for (Index i = 0; i < count; ++i)
    out.push_back(float_to_bf16(float(2 * rng.uniform() - 1)));
  return out;
}

// The largest difference from the product computed in double.
double worst(Index m, Index n, Index k, Op op_a, Op op_b, float beta) {
  const Index pad = 3;
  const Index step_a = (op_a == Op::plain ? k : m) + pad;
  const Index step_b = (op_b == Op::plain ? n : k) + pad;
  const Index step_c = n + pad;
  const auto a = some_halves((op_a == Op::plain ? m : k) * step_a, 1);
  const auto b = some_halves((op_b == Op::plain ? k : n) * step_b, 2);
  std::vector<float> c(std::size_t(m * step_c), 0.5f);
  gemm(m, n, k, HalfOperand{a.data(), step_a, op_a}, HalfOperand{b.data(), step_b, op_b}, beta,
       c.data(), step_c);
  double off = 0;
  for (Index i = 0; i < m; ++i) {
    for (Index j = 0; j < n; ++j) {
      double sum = beta * 0.5;
      for (Index l = 0; l < k; ++l) {
        sum += double(bf16_to_float(
                   a[std::size_t(op_a == Op::plain ? i * step_a + l : l * step_a + i)])) *
               double(bf16_to_float(
                   b[std::size_t(op_b == Op::plain ? l * step_b + j : j * step_b + l)]));
      }
      const double d = std::abs(double(c[std::size_t(i * step_c + j)]) - sum);
      off = d <= off ? off : d;  // a NaN stays
    }
  }
  // what lies beyond the rows is left alone
  for (Index i = 0; i < m; ++i)
    CHECK(c[std::size_t(i * step_c + n)] == 0.5f);
  return off;
}

}  // namespace

TEST_CASE("floats are rounded to bf16 as everywhere, many at once") {
  std::vector<float> x = {0.0f,         -0.0f,       1.0f,
                          1.00390625f,  1.01171875f, 3.4e38f,
                          -3.4e38f,     1e-40f,      std::numeric_limits<float>::infinity(),
                          std::nanf("")};
  for (std::uint64_t i = 0; i < 100'000; ++i)
    x.push_back(std::bit_cast<float>(std::uint32_t(i * 2654435761u)));
  std::vector<std::uint16_t> y(x.size());
  loops::to_half(x.data(), y.data(), Index(x.size()));
  Index different = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    different += y[i] != float_to_bf16(x[i]);
  CHECK(different == 0);
}

TEST_CASE("bf16 products of any shape") {
  if (const std::string none = no_half_products(); !none.empty())
    return test::skip("no bf16 products: " + none);
  for (const Op a : {Op::plain, Op::transposed}) {
    for (const Op b : {Op::plain, Op::transposed}) {
      for (const auto& [m, n, k] : {std::tuple{1, 1, 1},
                                    {1, 70, 33},
                                    {5, 1, 64},
                                    {33, 17, 70},
                                    {64, 48, 256},
                                    {3, 5, 1},
                                    {2, 3, 0}}) {
        for (const float beta : {0.0f, 1.0f, 0.25f}) {
          INFO(m << " x " << n << " x " << k << " " << char(a) << char(b) << " beta " << beta);
          CHECK(worst(m, n, k, a, b, beta) <= 1e-4);
        }
      }
    }
  }
}

TEST_CASE("where there are no bf16 products the backend computes in f32 and says so") {
  CHECK(Cpu("no bf16 products: this processor has none").notice() ==
        "no bf16 products: this processor has none");
  CHECK(make_backend("cpu")->notice().empty());
  const auto asked = make_backend("cpu:dtype=bf16");
  const bool here = no_half_products().empty();
  CHECK(asked->notice().empty() == here);
  CHECK(asked->name() == (here ? "cpu:dtype=bf16" : "cpu"));
  CHECK((asked->rounding() > 0) == here);
  CHECK_THROWS_WITH(make_backend("cpu:dtype=f16"), Catch::Contains("dtype=f16"));
}

}  // namespace moe
