#include "lib/backend/host_memory.h"

#include <malloc.h>

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "lib/core/error.h"

namespace moe {

namespace {
// Sizes are rounded up to one of 16 steps between powers of two: routing gives new sizes at every
// step, and each would otherwise leave a block of its own behind.
std::size_t rounded(std::size_t bytes) {
  const std::size_t step = std::max<std::size_t>(64, std::bit_floor(bytes | 1) / 16);
  return (bytes + step - 1) / step * step;
}
}  // namespace

void* HostPool::allocate(std::size_t bytes) {
  bytes = rounded(bytes);
  {
    const std::lock_guard lock(mutex_);
    if (auto& blocks = free_[bytes]; !blocks.empty()) {
      void* p = blocks.back();
      blocks.pop_back();
      return p;
    }
  }
  void* p = std::aligned_alloc(64, bytes);
  if (!p) {
    throw Error(Exit::memory, concat("cannot allocate ", bytes, " bytes"))
        .hint("fewer tokens a step, or a smaller model; --dry-run says what is needed");
  }
  return p;
}
void HostPool::release(void* p, std::size_t bytes) noexcept {
  bytes = rounded(bytes);
  const std::lock_guard lock(mutex_);
  free_[bytes].push_back(p);
}
void HostPool::give_back() {
  const std::lock_guard lock(mutex_);
  for (auto& [bytes, blocks] : free_) {
    for (void* p : blocks)
      std::free(p);
  }
  free_.clear();
  ::malloc_trim(0);
}
HostPool::~HostPool() {
  give_back();
}

}  // namespace moe
