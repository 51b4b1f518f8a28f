// Tensor: sizes that cannot be, views that must fit, conversions to f32 of every type.
#include <cmath>
#include <limits>

#include "lib/core/tensor.h"
#include "tests/checkpoint/help.h"

using namespace moe;
using namespace moe::test;

TEST_CASE("sizes are checked before anything is allocated") {
  Index n = 0;
  CHECK((checked_size({}, n) && n == 1));
  CHECK((checked_size({3, 0, 5}, n) && n == 0));
  CHECK_FALSE(checked_size({-1}, n));
  CHECK_FALSE(checked_size({Index(1) << 32, Index(1) << 31}, n));
  CHECK((checked_bytes(DType::f32, {3, 5}, n) && n == 60));
  CHECK((checked_bytes(DType::f4, {3, 2}, n) && n == 3));
  CHECK_FALSE(checked_bytes(DType::f4, {3}, n));
  CHECK((checked_bytes(DType::f6_e2m3, {4}, n) && n == 3));
  CHECK_FALSE(checked_bytes(DType::f64, {Index(1) << 60}, n));
  CHECK(outcome([] { Tensor(DType::f32, {1, 1, 1, 1, 1}); }).code == Exit::input);
#ifndef __SANITIZE_ADDRESS__  // which ends the program instead of throwing
  CHECK(outcome([] { Tensor(DType::f32, {Index(1) << 45}); }).code == Exit::memory);
#endif
}

TEST_CASE("a tensor is seen as rows of its last dimension") {
  Tensor t(DType::f32, {2, 3, 4});
  CHECK((t.rows() == 6 && t.cols() == 4 && t.size() == 24 && t.owned()));
  t.mutable_view<float>()(5, 3) = 7;
  CHECK(t.view<float>()(5, 3) == 7);
  CHECK(t.to_float()(5, 3) == 7);
  CHECK(outcome([&] { (void)t.view<double>(); }).code == Exit::bug);
  CHECK(outcome([&] {
          Matrix<float> m(7, 4);
          t.to_float(0, m.view());
        }).code == Exit::bug);
  CHECK(Tensor(DType::f32, {}).rows() == 1);
  CHECK(Tensor(DType::f32, {0, 4}).rows() == 0);
  CHECK(Tensor(DType::f32, {5, 0}).rows() == 5);
  const auto bytes = std::make_shared<const std::byte>(std::byte{1});
  Tensor mapped(DType::u8, {1}, bytes);
  CHECK(outcome([&] { (void)mapped.mutable_bytes(); }).code == Exit::bug);
  CHECK(mapped.copy().owned());
}

TEST_CASE("float rounds to 16 bits and back") {
  const std::vector<float> v{0,     -0.0f,      1,     -2.5f,
                             65504, 1e-7f,      3e38f, std::numeric_limits<float>::infinity(),
                             NAN,   1.00390625f};
  for (const DType t : {DType::f64, DType::f32}) {
    const Matrix<float> back = Tensor::from_float(t, {10}, v).to_float();
    for (int i = 0; i < 10; ++i)
      CHECK((back(0, i) == v[i] || (std::isnan(v[i]) && std::isnan(back(0, i)))));
  }
  const Matrix<float> b = Tensor::from_float(DType::bf16, {10}, v).to_float();
  CHECK((b(0, 3) == -2.5f && std::isnan(b(0, 8)) && b(0, 9) == 1.0f));  // a tie goes to even
  const Matrix<float> h = Tensor::from_float(DType::f16, {10}, v).to_float();
  CHECK((h(0, 4) == 65504 && std::isinf(h(0, 6)) && std::isnan(h(0, 8)) &&
         h(0, 5) == std::ldexp(2.0f, -24)));
}

TEST_CASE("8-bit floats: ends of their ranges") {
  const auto value = [](DType t, int v) {
    return f8_to_float(t, std::uint8_t(v));
  };
  CHECK((value(DType::f8_e4m3, 0x7e) == 448 &&
         value(DType::f8_e4m3, 0x01) == std::ldexp(1.0f, -9) &&
         std::isnan(value(DType::f8_e4m3, 0xff))));
  CHECK((value(DType::f8_e4m3, 0x38) == 1 && value(DType::f8_e4m3, 0xb8) == -1 &&
         std::signbit(value(DType::f8_e4m3, 0x80))));
  CHECK((value(DType::f8_e5m2, 0x7b) == 57344 &&
         value(DType::f8_e5m2, 0x01) == std::ldexp(1.0f, -16) &&
         std::isinf(value(DType::f8_e5m2, 0x7c))));
  CHECK((std::isnan(value(DType::f8_e5m2, 0x7d)) && value(DType::f8_e5m2, 0xfc) < 0));
  CHECK((value(DType::f8_e4m3fnuz, 0x7f) == 240 &&
         value(DType::f8_e4m3fnuz, 0x01) == std::ldexp(1.0f, -10) &&
         std::isnan(value(DType::f8_e4m3fnuz, 0x80))));
  CHECK((value(DType::f8_e5m2fnuz, 0x7f) == 57344 &&
         value(DType::f8_e5m2fnuz, 0x01) == std::ldexp(1.0f, -17)));
  CHECK((value(DType::f8_e8m0, 127) == 1 && value(DType::f8_e8m0, 0) == std::ldexp(1.0f, -127) &&
         std::isnan(value(DType::f8_e8m0, 255))));
}
