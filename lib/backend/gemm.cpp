#include "lib/backend/gemm.h"

#include <algorithm>

namespace moe::detail {

void scale(Index m, Index n, float beta, float* c, Index c_step) {
  for (Index r = 0; r < m && n > 0; ++r) {
    std::transform(c + r * c_step, c + r * c_step + n, c + r * c_step,
                   [beta](float v) { return beta == 0 ? 0 : beta * v; });
  }
}

bool gemm_trivial(Index m, Index n, Index k, float beta, float* c, Index c_step) {
  if (m > 0 && n > 0 && k > 0)
    return false;
  scale(m, n, beta, c, c_step);
  return true;
}

}  // namespace moe::detail
