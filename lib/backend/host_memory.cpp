#include "lib/backend/host_memory.h"

#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "lib/core/error.h"

namespace moe {

namespace {
// Sizes are rounded up to one of 16 steps between powers of two: routing gives new sizes at every
// step, and each would otherwise leave a block of its own behind.
std::size_t rounded(std::size_t bytes) {
  const std::size_t step = std::max<std::size_t>(64, std::bit_floor(bytes | 1) / 16);
  return (bytes + step - 1) / step * step;
}

// Blocks from here on are mappings of their own.
constexpr std::size_t large = std::size_t(1) << 22;

void* fresh(std::size_t bytes) {
  void* p = nullptr;
  if (bytes >= large) {
    p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    p = p == MAP_FAILED ? nullptr : p;
  } else {
    p = std::aligned_alloc(64, bytes);
  }
  if (!p) {
    throw Error(Exit::memory, concat("cannot allocate ", bytes, " bytes"))
        .hint("fewer tokens a step, or a smaller model; --dry-run says what is needed");
  }
  return p;
}

}  // namespace

void* HostPool::kept(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  auto& blocks = free_[bytes];
  if (blocks.empty())
    return nullptr;
  void* p = blocks.back();
  blocks.pop_back();
  return p;
}
void* HostPool::allocate(std::size_t bytes) {
  bytes = rounded(bytes);
  void* p = kept(bytes);
  return p ? p : fresh(bytes);
}
void* HostPool::allocate_zeros(std::size_t bytes) {
  const std::size_t all = rounded(bytes);
  void* p = kept(all);
  const bool zeros = !p && all >= large;
  if (!p)
    p = fresh(all);
  if (!zeros)
    std::memset(p, 0, bytes);
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
    for (void* p : blocks) {
      if (bytes >= large)
        ::munmap(p, bytes);
      else
        std::free(p);
    }
  }
  free_.clear();
  ::malloc_trim(0);
}
HostPool::~HostPool() {
  give_back();
}

}  // namespace moe
