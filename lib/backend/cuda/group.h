// Lanes that work on one row together. A kernel body is written once over a group: a warp of 32 on
// the device, a simulated group in the tests (tests/backend/lanes.h). Every lane of a group calls
// the same collective operations in the same order.
#pragma once
#include "lib/core/view.h"

namespace moe::gpu {

#ifdef __CUDACC__
// Butterflies, so that every lane ends with the same bits: a + b is b + a.
struct Warp {
  static constexpr int width = 32;
  __device__ int lane() const {
    return int(threadIdx.x % 32);
  }
  template <class T>
  __device__ T sum(T v) const {
    for (int other = 16; other > 0; other /= 2)
      v += __shfl_xor_sync(0xffffffffu, v, other);
    return v;
  }
  template <class T>
  __device__ T max(T v) const {
    for (int other = 16; other > 0; other /= 2) {
      const T o = __shfl_xor_sync(0xffffffffu, v, other);
      v = v < o ? o : v;
    }
    return v;
  }
  template <class T>
  __device__ T from(T v, int lane) const {
    return __shfl_sync(0xffffffffu, v, lane);
  }
};
#endif

}  // namespace moe::gpu
