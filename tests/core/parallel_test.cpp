// What a thread does between pieces of its loops: it is done by that thread alone, for as long as
// it was asked for, and changes nothing that the loops compute.
#include "lib/core/parallel.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <stdexcept>
#include <thread>

using namespace moe;

namespace {

// Squares of 0..count in pieces that take a while each.
std::vector<int> squares(Index count) {
  std::vector<int> out(static_cast<std::size_t>(count));
  parallel_for(count, 2, [&](Index first, Index last) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    for (Index i = first; i < last; ++i)
      out[std::size_t(i)] = int(i * i);
  });
  return out;
}

}  // namespace

TEST_CASE("between pieces the calling thread does what it was asked for, whatever the threads") {
  const int before = threads();
  for (const int n : {1, 3}) {
    set_threads(n);
    const auto plain = squares(41);
    const auto self = std::this_thread::get_id();
    int looks = 0;
    int elsewhere = 0;
    {
      const BetweenPieces look([&] {
        ++looks;
        elsewhere += std::this_thread::get_id() != self;
      });
      CHECK(squares(41) == plain);
    }
    CHECK(looks > 0);
    CHECK(elsewhere == 0);
    const int then = looks;
    CHECK(squares(41) == plain);
    CHECK(looks == then);
  }
  set_threads(before);
}

TEST_CASE("what is thrown between pieces ends the loop") {
  const int before = threads();
  for (const int n : {1, 3}) {
    set_threads(n);
    const BetweenPieces look([] { throw std::runtime_error("a message is too long"); });
    CHECK_THROWS_WITH(squares(41), "a message is too long");
  }
  set_threads(before);
}
