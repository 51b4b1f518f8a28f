// Memory of a backend, and arrays in it. On the host backends the numbers can be touched directly;
// a device backend copies.
#pragma once
#include <cstddef>
#include <utility>

#include "lib/core/matrix.h"

namespace moe {

class Memory {
 public:
  virtual ~Memory() = default;
  // 64-byte aligned; throws Error(memory) naming the size
  virtual void* allocate(std::size_t bytes) = 0;
  // the same, of zeros
  virtual void* allocate_zeros(std::size_t bytes) {
    void* p = allocate(bytes);
    zero(p, bytes);
    return p;
  }
  virtual void release(void*, std::size_t bytes) noexcept = 0;
  virtual void to_device(const void* host, void* device, std::size_t bytes) = 0;
  virtual void to_host(const void* device, void* host, std::size_t bytes) = 0;
  virtual void zero(void*, std::size_t bytes) = 0;
  // memory that was released and is kept for reuse goes back to the system
  virtual void give_back() {}
  // returns when all that was asked for is done; a host is done when a call returns
  virtual void wait() {}
};

// A matrix in a backend's memory that owns its numbers. Not initialised unless made by zeros() or
// from a host view.
template <class T>
class Array {
 public:
  Array() = default;
  Array(Memory& memory, Index rows, Index cols) : memory_(&memory), view_{nullptr, rows, cols} {
    if (view_.size() > 0)
      view_.data = static_cast<T*>(memory.allocate(bytes()));
  }
  Array(Memory& memory, View<const T> host) : Array(memory, host.rows, host.cols) {
    set(host);
  }
  static Array zeros(Memory& memory, Index rows, Index cols) {
    Array a;
    a.memory_ = &memory;
    a.view_ = {nullptr, rows, cols};
    if (a.view_.size() > 0)
      a.view_.data = static_cast<T*>(memory.allocate_zeros(a.bytes()));
    return a;
  }
  Array(Array&& o) noexcept
      : memory_(std::exchange(o.memory_, nullptr)), view_(std::exchange(o.view_, {})) {}
  Array& operator=(Array&& o) noexcept {
    std::swap(memory_, o.memory_);
    std::swap(view_, o.view_);
    return *this;
  }
  ~Array() {
    if (memory_ && view_.data)
      memory_->release(view_.data, bytes());
  }

  View<T> view() {
    return view_;
  }
  View<const T> view() const {
    return view_;
  }
  Index rows() const {
    return view_.rows;
  }
  Index cols() const {
    return view_.cols;
  }
  bool empty() const {
    return view_.empty();
  }
  std::size_t bytes() const {
    return std::size_t(view_.size()) * sizeof(T);
  }
  void clear() {
    if (view_.data)
      memory_->zero(view_.data, bytes());
  }
  void set(View<const T> host) {
    if (view_.data)
      memory_->to_device(host.data, view_.data, bytes());
  }
  Matrix<T> to_host() const {
    Matrix<T> m = Matrix<T>::unset(view_.rows, view_.cols);
    if (view_.data)
      memory_->to_host(view_.data, m.data(), bytes());
    return m;
  }

 private:
  Memory* memory_ = nullptr;
  View<T> view_;
};

}  // namespace moe
