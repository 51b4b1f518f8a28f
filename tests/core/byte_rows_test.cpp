// Activations rounded to 8 bits, against the definition in double.
#include "lib/core/byte_rows.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/matrix.h"
#include "lib/core/rng.h"

namespace moe {
namespace {

Matrix<float> drawn(Index rows, Index cols, float by) {
  Rng rng(5);
  Matrix<float> x(rows, cols);
  for (float& v : x.flat())
    v = float(rng.normal()) * by;
  return x;
}

void check_block(std::span<const float> x, const ByteRow& row, Index b) {
  double top = 0;
  for (int i = 0; i < byte_block; ++i)
    top = std::max(top, std::abs(double(x[std::size_t(i)])));
  const double d = top / 127;
  CHECK(double(row.scale[b]) == Approx(d).epsilon(1e-6));
  int sum = 0;
  int low = 0;
  for (int i = 0; i < byte_block; ++i) {
    const int q = row.number[byte_block * b + i];
    CHECK(std::abs(q) <= 127);
    CHECK(std::abs(double(x[std::size_t(i)]) - d * q) <= d / 2 * (1 + 0x1p-14));
    sum += q;
    low += i < 16 ? q : 0;
  }
  CHECK(row.sum[b] == sum);
  CHECK(row.scaled_half[2 * b] == row.scale[b] * float(low));
  CHECK(row.scaled_half[2 * b + 1] == row.scale[b] * float(sum - low));
  CHECK(row.scaled_sum[b] == row.scale[b] * float(sum));
  CHECK(row.pair_scale[b] == (b % 2 == 0 ? row.scale[b] : row.scale[b] / 16));
  for (int i = 0; i < 8; ++i) {
    CHECK(row.nibble_scale[8 * b + i] == (i < 4 ? row.scale[b] : row.scale[b] / 16));
    CHECK(row.nibble_offset[8 * b + i] == (i < 4 ? -sum : -16 * sum));
  }
}

}  // namespace

TEST_CASE("activations are rounded to 8 bits by blocks as defined") {
  for (const float by : {1.0f, 1e-20f, 1e30f}) {
    const Matrix<float> x = drawn(3, 96, by);
    const ByteRows bytes(x.view());
    Matrix<float> out(3, 96);
    rounded_to_bytes(x.view(), out.view());
    for (Index t = 0; t < 3; ++t) {
      const ByteRow row = bytes.row(t);
      for (Index b = 0; b < 3; ++b)
        check_block(x.row(t).subspan(std::size_t(32 * b), 32), row, b);
      for (Index i = 0; i < 96; ++i)
        CHECK(out(t, i) == row.scale[i / 32] * float(row.number[i]));
    }
  }
}

TEST_CASE("blocks of zeros, of almost zeros and of what is not finite") {
  Matrix<float> x(1, 128);
  x(0, 40) = 1e-38f;
  x(0, 70) = NAN;
  x(0, 96) = 3.4e38f;
  x(0, 97) = -3.4e38f;
  const ByteRows bytes(x.view());
  const ByteRow row = bytes.row(0);
  for (Index i = 0; i < 96; ++i)
    CHECK(row.number[i] == 0);
  CHECK(row.scale[0] == 0);
  CHECK(row.scale[1] == 0);
  CHECK(std::isnan(row.scale[2]));
  CHECK(std::isnan(row.scaled_half[4]));
  CHECK(row.number[96] == 127);
  CHECK(row.number[97] == -127);
  CHECK(std::isfinite(row.scale[3]));
  CHECK_THROWS_AS(ByteRows(View<const float>{x.data(), 1, 40}), Error);
}

}  // namespace moe
