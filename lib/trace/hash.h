// XXH3 (64 bit): the hash of what is checked at every commit. The corpus is identified by SHA-256
// (lib/files/sha256.h).
#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace moe {

class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  Xxh3(const Xxh3&) = delete;
  Xxh3& operator=(const Xxh3&) = delete;
  void update(std::span<const std::uint8_t>);
  std::uint64_t value() const;

 private:
  void* state_;
};

}  // namespace moe
