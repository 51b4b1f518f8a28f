// Deflate streams of literals alone, read back by two libraries.
#include "lib/trace/literals.h"

#include <libdeflate.h>
#include <zlib.h>

#include <catch2/catch.hpp>

#include "lib/core/rng.h"

namespace moe {
namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes packed(const Bytes& in, std::size_t planes = 1) {
  Bytes out(literals_bound(in.size(), planes));
  out.resize(deflate_literals(in, planes, out.data()));
  return out;
}

Bytes by_zlib(const Bytes& stream, std::size_t n) {
  Bytes out(n + 1);
  uLongf size = out.size();
  REQUIRE(uncompress(out.data(), &size, stream.data(), stream.size()) == Z_OK);
  out.resize(size);
  return out;
}

Bytes by_libdeflate(const Bytes& stream, std::size_t n) {
  Bytes out(n + 1);
  libdeflate_decompressor* const d = libdeflate_alloc_decompressor();
  std::size_t size = 0;
  const auto result =
      libdeflate_zlib_decompress(d, stream.data(), stream.size(), out.data(), out.size(), &size);
  libdeflate_free_decompressor(d);
  REQUIRE(result == LIBDEFLATE_SUCCESS);
  out.resize(size);
  return out;
}

std::size_t with_matches(const Bytes& in) {
  Bytes out(2 * in.size() + 64);
  uLongf size = out.size();
  REQUIRE(compress2(out.data(), &size, in.data(), in.size(), 9) == Z_OK);
  return size;
}

void check(const Bytes& in, std::size_t planes = 1) {
  const Bytes stream = packed(in, planes);
  CHECK(stream.size() <= literals_bound(in.size(), planes));
  CHECK(by_zlib(stream, in.size()) == in);
  CHECK(by_libdeflate(stream, in.size()) == in);
}

// Bytes below `values`, evenly.
Bytes even(std::size_t n, std::uint64_t values) {
  Rng rng(n + values);
  Bytes out(n);
  for (std::uint8_t& b : out)
    b = std::uint8_t(rng.below(Index(values)));
  return out;
}

// Byte i so often as Fibonacci's number i: the deepest tree that a total can have.
Bytes fibonacci() {
  Bytes out;
  std::size_t a = 1;
  std::size_t b = 1;
  for (std::uint8_t i = 0; i < 24; ++i) {
    out.insert(out.end(), a, i);
    a = std::exchange(b, a + b);
  }
  return out;
}

}  // namespace

TEST_CASE("streams of literals are read by zlib and libdeflate") {
  check({});
  check({7});
  check({7, 7, 7, 7, 7});
  check({0, 255});
  for (const std::uint64_t values : {1u, 2u, 3u, 64u, 200u, 256u}) {
    for (const std::size_t n : {1u, 2u, 511u, 4096u, 32768u, 1000003u})
      check(even(n, values));
  }
  check(fibonacci());
}

TEST_CASE("planes of equal bytes are runs of any length") {
  for (std::size_t n = 1; n < 600; ++n) {
    for (const int byte : {0, 143, 144, 255}) {
      Bytes in = even(n, 64);
      in.insert(in.end(), n, std::uint8_t(byte));
      check(in, 2);
    }
  }
  Bytes zeros(32768, 0);
  CHECK(packed(zeros).size() < 250);
  Bytes four(4096 * 4, 3);
  check(four, 4);
}

TEST_CASE("even numbers take as many bits as they have") {
  const std::size_t n = 32768;
  CHECK(packed(even(n, 64)).size() < n * 6 / 8 + 200);
  CHECK(packed(even(n, 256)).size() < n + 400);
}

TEST_CASE("what has no matches is seen, and what has them too") {
  CHECK(has_few_matches(even(32768, 64), 1));
  CHECK(has_few_matches(even(32768, 256), 1));
  Bytes twice = even(2048, 64);
  for (int i = 0; i < 4; ++i)
    twice.insert(twice.end(), twice.begin(), twice.end());
  CHECK_FALSE(has_few_matches(twice, 1));
  CHECK(has_few_matches(Bytes(32768, 0), 1));  // a run
  CHECK_FALSE(has_few_matches(even(100, 64), 1));
}

TEST_CASE("where literals are chosen they are no longer than the best matches by much") {
  // two of eight experts, as small models have them: every pair of tokens was there before
  Rng rng(1);
  Bytes in;
  for (int t = 0; t < 4096; ++t) {
    const auto a = std::uint8_t(rng.below(8));
    const auto b = std::uint8_t(rng.below(7));
    in.push_back(a);
    in.push_back(std::uint8_t(b + (b >= a)));
  }
  REQUIRE(has_few_matches(in, 1));
  CHECK(double(packed(in).size()) < 1.05 * double(with_matches(in)));
}

}  // namespace moe
