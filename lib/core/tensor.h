// A tensor whose element type is known at run time: what checkpoints hold. Its bytes are owned
// (64-byte aligned) or lie in something that somebody keeps alive, such as a mapped file; copying a
// Tensor copies a pointer. Kernels see view<T>().
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lib/core/dtype.h"
#include "lib/core/matrix.h"

namespace moe {

using Dims = std::vector<Index>;  // outermost first; empty = a single number
inline constexpr int max_rank = 4;

std::string text_of(const Dims&);  // "[32, 64]"
// product of the sizes; false if one is negative or it does not fit 63 bits
bool checked_size(const Dims&, Index& size);
// as stored; false also where packed elements do not end on a byte
bool checked_bytes(DType, const Dims&, Index& bytes);

class Tensor {
 public:
  Tensor() = default;
  Tensor(DType, Dims);  // owned, zero-filled; throws Error(memory) naming the size
  // Read-only bytes of another owner, at any alignment; `bytes` keeps the owner alive (an aliasing
  // shared_ptr).
  Tensor(DType, Dims, std::shared_ptr<const std::byte> bytes);
  template <class T>
  static Tensor copy_of(View<const T> v) {  // (rows, cols)
    Tensor t(dtype_of<T>, {v.rows, v.cols});
    t.fill_bytes(std::as_bytes(v.flat()));
    return t;
  }
  // Rounds f32 values to f64, f32, bf16 or f16 (nearest even).
  static Tensor from_float(DType, Dims, std::span<const float>);

  DType dtype() const {
    return dtype_;
  }
  const Dims& dims() const {
    return dims_;
  }
  // elements
  Index size() const {
    return size_;
  }
  // all sizes but the last
  Index rows() const {
    return cols() ? size_ / cols() : dims_.size() > 1 ? dims_[0] : 1;
  }
  Index cols() const {
    return dims_.empty() ? 1 : dims_.back();
  }
  bool owned() const {
    return writable_ != nullptr;
  }
  std::span<const std::byte> bytes() const {
    return {bytes_.get(), std::size_t(byte_count_)};
  }
  std::span<std::byte> mutable_bytes();  // throws Error(bug) where not owned

  // The elements as T, which must be the element type (or an unsigned integer of its width) and
  // aligned; else Error(bug).
  template <class T>
  View<const T> view() const {
    check_type(dtype_of<T>, alignof(T));
    return {reinterpret_cast<const T*>(bytes_.get()), rows(), cols()};
  }
  template <class T>
  View<T> mutable_view() {
    check_type(dtype_of<T>, alignof(T));
    return {reinterpret_cast<T*>(mutable_bytes().data()), rows(), cols()};
  }
  bool aligned() const;  // at a multiple of the element's width
  Tensor copy() const;   // owned

  // Rows first .. first+out.rows as f32 (out.cols = cols). Any type but c64, f4 and f6; throws
  // Error(input) for those.
  void to_float(Index first, View<float> out) const;
  Matrix<float> to_float() const;

 private:
  void fill_bytes(std::span<const std::byte>);
  void check_type(DType wanted, std::size_t alignment) const;

  DType dtype_ = DType::f32;
  Dims dims_{0};
  Index size_ = 0, byte_count_ = 0;
  std::shared_ptr<const std::byte> bytes_;
  std::byte* writable_ = nullptr;
};

}  // namespace moe
