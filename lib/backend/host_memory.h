// Memory of the host backends: 64-byte aligned blocks, kept for reuse so that a training step does
// not fault pages in again.
#pragma once
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "lib/backend/backend.h"

namespace moe {

class HostPool {
 public:
  void* allocate(std::size_t bytes);
  // Large new blocks come from the system, which makes their pages zeros when they are touched: a
  // matrix that is never used costs nothing.
  void* allocate_zeros(std::size_t bytes);
  void release(void*, std::size_t bytes) noexcept;
  void give_back();
  ~HostPool();

 private:
  void* kept(std::size_t bytes);  // a block that was released; nullptr where there is none
  std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;  // by size
};

// A backend whose arrays are host memory.
template <class S>
class HostBackend : public Backend<S> {
 public:
  void* allocate(std::size_t bytes) override {
    return pool_.allocate(bytes);
  }
  void* allocate_zeros(std::size_t bytes) override {
    return pool_.allocate_zeros(bytes);
  }
  void release(void* p, std::size_t bytes) noexcept override {
    pool_.release(p, bytes);
  }
  void give_back() override {
    pool_.give_back();
  }
  void to_device(const void* host, void* device, std::size_t bytes) override {
    if (bytes > 0)  // of nothing the places may be null
      std::memcpy(device, host, bytes);
  }
  void to_host(const void* device, void* host, std::size_t bytes) override {
    if (bytes > 0)
      std::memcpy(host, device, bytes);
  }
  void zero(void* p, std::size_t bytes) override {
    if (bytes > 0)
      std::memset(p, 0, bytes);
  }

 private:
  bool delegate(const Call<S>&) override {
    return false;  // definitions run where the numbers lie
  }

  HostPool pool_;
};

}  // namespace moe
