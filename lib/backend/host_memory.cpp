#include "lib/backend/host_memory.h"

#include <cstdlib>

#include "lib/core/error.h"

namespace moe {

void* HostPool::allocate(std::size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  {
    const std::lock_guard lock(mutex_);
    if (auto& blocks = free_[bytes]; !blocks.empty()) {
      void* p = blocks.back();
      blocks.pop_back();
      return p;
    }
  }
  void* p = std::aligned_alloc(64, bytes);
  if (!p) throw Error(Exit::memory, concat("cannot allocate ", bytes, " bytes")).hint("fewer tokens a step, or a smaller model; --dry-run says what is needed");
  return p;
}
void HostPool::release(void* p, std::size_t bytes) noexcept {
  bytes = (bytes + 63) / 64 * 64;
  const std::lock_guard lock(mutex_);
  free_[bytes].push_back(p);
}
HostPool::~HostPool() {
  for (auto& [bytes, blocks] : free_)
    for (void* p : blocks) std::free(p);
}

}  // namespace moe
