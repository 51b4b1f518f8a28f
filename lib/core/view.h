// A matrix that someone else owns: a pointer and two 64-bit sizes, row-major, no gaps. Trivially
// copyable, so a CUDA kernel takes it by value. A three-dimensional weight (E,O,I) is the tall
// matrix (E*O, I); expert e is view.block(e, O).
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#ifdef __CUDACC__
#define MOE_HD __host__ __device__
#else
#define MOE_HD
#endif

namespace moe {

using Index = std::int64_t;

template <class T>
struct View {
  T* data = nullptr;
  Index rows = 0, cols = 0;

  MOE_HD constexpr T& operator()(Index r, Index c) const {
    return data[r * cols + c];
  }
  MOE_HD constexpr Index size() const {
    return rows * cols;
  }
  MOE_HD constexpr bool empty() const {
    return size() == 0;
  }
  MOE_HD constexpr View slice(Index first, Index count) const {
    return {data + first * cols, count, cols};
  }
  MOE_HD constexpr View block(Index i, Index count) const {
    return slice(i * count, count);
  }
  constexpr std::span<T> row(Index r) const {
    return {data + r * cols, std::size_t(cols)};
  }
  constexpr std::span<T> flat() const {
    return {data, std::size_t(size())};
  }
  MOE_HD constexpr operator View<const T>() const requires(!std::is_const_v<T>) {
    return {data, rows, cols};
  }
};

}  // namespace moe
