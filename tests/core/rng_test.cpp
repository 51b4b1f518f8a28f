#include <catch2/catch.hpp>
#include <map>
#include <vector>

#include "lib/core/dtype.h"
#include "lib/core/fnv.h"
#include "lib/core/rng.h"
#include "lib/core/shuffle.h"

using namespace moe;

TEST_CASE("philox gives the published words") {
  // Salmon et al., Random123 known-answer vectors for philox4x32-10
  std::uint32_t zero[4] = {0, 0, 0, 0};
  philox(zero, 0, 0);
  CHECK(zero[0] == 0x6627e8d5u);
  CHECK(zero[1] == 0xe169c58du);
  CHECK(zero[2] == 0xbc57ac4cu);
  CHECK(zero[3] == 0x9b00dbd8u);
}

TEST_CASE("a generator continues from its three numbers") {
  Rng a(7, 3);
  for (int i = 0; i < 10; ++i)
    a.next();
  Rng b(a.seed(), a.stream_id(), a.counter());
  CHECK(a.next() == b.next());
  CHECK(Rng(7).stream(1).next() != Rng(7).stream(2).next());
  double sum = 0;
  double square = 0;
  for (int i = 0; i < 20000; ++i) {
    const double v = a.normal();
    sum += v;
    square += v * v;
  }
  CHECK(std::abs(sum / 20000) < 0.03);
  CHECK(std::abs(square / 20000 - 1) < 0.05);
}

TEST_CASE("16-bit floats round to nearest even and keep what they hold") {
  for (int h = 0; h < 65536; ++h) {
    const auto bits = std::uint16_t(h);
    const float b = bf16_to_float(bits);
    const float f = f16_to_float(bits);
    if (b == b)
      REQUIRE(float_to_bf16(b) == bits);
    if (f == f)
      REQUIRE(float_to_f16(f) == bits);
  }
  CHECK(float_to_f16(65520.0f) == 0x7c00);
  CHECK(float_to_f16(65519.0f) == 0x7bff);
  CHECK(float_to_bf16(1.00390625f) == 0x3f80);  // a tie goes to even
}

TEST_CASE("names have the hashes of the published test values") {  // of its authors' test suite
  CHECK(fnv1a("") == 0xcbf29ce484222325u);
  CHECK(fnv1a("a") == 0xaf63dc4c8601ec8cu);
  CHECK(fnv1a("foobar") == 0x85944171f73967e8u);
  CHECK(fnv1a("\xff") != fnv1a("\x7f"));
}

TEST_CASE("a shuffle draws each order as often, and what it draws for a seed never changes") {
  std::vector<int> order{0, 1, 2, 3, 4, 5, 6, 7};
  Rng fixed(1, 2);
  shuffle(order, fixed);
  CHECK(order == std::vector<int>{3, 7, 6, 0, 1, 2, 5, 4});
  CHECK(fixed.counter() == 7);
  std::vector<int> deck{0, 1, 2, 3, 4, 5, 6, 7};
  draw_to(deck, 0, fixed);
  draw_to(deck, 1, fixed);
  CHECK(deck == std::vector<int>{4, 5, 2, 3, 0, 1, 6, 7});
  CHECK(fixed.counter() == 9);
  std::map<std::vector<int>, int> seen;
  Rng rng(3);
  for (int i = 0; i < 6000; ++i) {
    std::vector<int> three{0, 1, 2};
    shuffle(three, rng);
    ++seen[three];
  }
  CHECK(seen.size() == 6);
  for (const auto& [three, count] : seen)
    CHECK(std::abs(count - 1000) < 150);  // five standard deviations
}
