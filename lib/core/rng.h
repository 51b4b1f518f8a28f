// Random numbers that are the same on every machine and at any position: Philox4x32-10 (Salmon et
// al. 2011), a counter turned into bits. The whole state is (seed, stream, counter), so saving and
// resuming is three numbers, and a GPU can draw number n without drawing the n before it. std
// distributions differ between libraries and are not used.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>

#include "lib/core/view.h"

namespace moe {

// Ten Philox rounds: 128 bits of counter under 64 bits of key.
MOE_HD inline void philox(std::uint32_t c[4], std::uint32_t k0, std::uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * c[2];
    const std::uint32_t n0 = std::uint32_t(b >> 32) ^ c[1] ^ k0;
    const std::uint32_t n2 = std::uint32_t(a >> 32) ^ c[3] ^ k1;
    c[1] = std::uint32_t(b);
    c[3] = std::uint32_t(a);
    c[0] = n0;
    c[2] = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

class Rng {
 public:
  explicit Rng(std::uint64_t seed, std::uint64_t stream = 0, std::uint64_t counter = 0)
      : seed_(seed), stream_(stream), counter_(counter) {}

  std::uint64_t next() {
    return at(counter_++);
  }
  double uniform() {
    return double(next() >> 11) * 0x1p-53;
  }  // [0,1)
  // Box-Muller, one value per two draws: position stays predictable
  double normal() {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }
  Index below(Index n) {
    return Index(uniform() * double(n));
  }  // 0..n-1, for n < 2^53
  // an independent stream of the same seed
  Rng stream(std::uint64_t name) const {
    return Rng(seed_, mixed(name + 1), 0);
  }

  std::uint64_t seed() const {
    return seed_;
  }
  std::uint64_t stream_id() const {
    return stream_;
  }
  std::uint64_t counter() const {
    return counter_;
  }

 private:
  std::uint64_t at(std::uint64_t n) const {
    std::uint32_t c[4] = {std::uint32_t(n), std::uint32_t(n >> 32), std::uint32_t(stream_),
                          std::uint32_t(stream_ >> 32)};
    philox(c, std::uint32_t(seed_), std::uint32_t(seed_ >> 32));
    return (std::uint64_t{c[1]} << 32) | c[0];
  }
  std::uint64_t mixed(std::uint64_t name) const {
    return (stream_ ^ (name * 0x9E3779B97F4A7C15u)) * 0xD1342543DE82EF95u + name;
  }

  std::uint64_t seed_, stream_, counter_;
};

}  // namespace moe
