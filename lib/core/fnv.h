// FNV-1a in 64 bits (Fowler, Noll and Vo): names become streams of random numbers, and texts fall
// into splits by it, so its values are part of checkpoints and datasets and never change.
#pragma once
#include <cstdint>
#include <string_view>

namespace moe {

class Fnv1a {
 public:
  void add(std::uint64_t value) {
    hash_ = (hash_ ^ value) * 0x100000001b3u;
  }
  std::uint64_t value() const {
    return hash_;
  }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325u;
};

inline std::uint64_t fnv1a(std::string_view text) {
  Fnv1a hash;
  for (const char c : text)
    hash.add(static_cast<unsigned char>(c));
  return hash.value();
}

}  // namespace moe
