// Device memory of the tests: host memory that cannot be touched while no operation runs, so that
// host code which reads or writes it fails at once. New memory holds NaN.
#pragma once
#include <sys/mman.h>

#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "lib/core/error.h"

namespace moe {

class StrictMemory {
 public:
  StrictMemory() {
    void* p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
      throw Error(Exit::memory, "no address space for the tests' device memory");
    memory_ = static_cast<char*>(p);
  }
  ~StrictMemory() {
    munmap(memory_, bytes);
  }
  StrictMemory(const StrictMemory&) = delete;

  void* allocate(std::size_t n) {
    n = rounded(n);
    char* p = nullptr;
    if (auto& old = free_[n]; !old.empty()) {
      p = old.back();
      old.pop_back();
    } else if (used_ + n <= bytes) {
      p = memory_ + std::exchange(used_, used_ + n);
    } else {
      throw Error(Exit::memory, "the tests' device memory is full");
    }
    const Open open(*this);
    std::memset(p, 0xff, n);  // NaN
    return p;
  }
  void release(void* p, std::size_t n) noexcept {
    free_[rounded(n)].push_back(static_cast<char*>(p));
  }
  void to_device(const void* host, void* device, std::size_t n) {
    copy(host, device, n);
  }
  void to_host(const void* device, void* host, std::size_t n) {
    ++waits_;
    copy(device, host, n);
  }
  void wait(const char*) {
    ++waits_;
  }
  void zero(void* p, std::size_t n) {
    const Open open(*this);
    std::memset(p, 0, n);
  }

  // how often a host would have waited for a device
  std::size_t waits() const {
    return waits_;
  }

 protected:
  struct Open {  // the memory can be touched while it lives
    explicit Open(StrictMemory& m) : memory(m) {
      mprotect(memory.memory_, memory.used_, PROT_READ | PROT_WRITE);
    }
    ~Open() {
      mprotect(memory.memory_, memory.used_, PROT_NONE);
    }
    StrictMemory& memory;
  };

 private:
  static constexpr std::size_t bytes = std::size_t(1) << 30;
  static std::size_t rounded(std::size_t n) {
    return (n + 4095) / 4096 * 4096;
  }
  void copy(const void* from, void* to, std::size_t n) {
    const Open open(*this);
    std::memcpy(to, from, n);
  }

  char* memory_ = nullptr;
  std::size_t used_ = 0, waits_ = 0;
  std::map<std::size_t, std::vector<char*>> free_;
};

}  // namespace moe
