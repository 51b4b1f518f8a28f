// Products by plain loops, for builds that may need nothing but a compiler (moe_gpu_check): right,
// and slow.
#include <vector>

#include "lib/backend/gemm.h"

namespace moe {

void gemm(Index m, Index n, Index k, Operand a, Operand b, float beta, float* c, Index c_step) {
  if (detail::gemm_trivial(m, n, k, beta, c, c_step))
    return;
  std::vector<double> sum(std::size_t(n), 0.0);
  for (Index i = 0; i < m; ++i) {
    for (Index j = 0; j < n; ++j)
      sum[j] = beta == 0 ? 0 : double(beta) * double(c[i * c_step + j]);
    for (Index l = 0; l < k; ++l) {
      const double v =
          double(a.op == Op::transposed ? a.data[l * a.step + i] : a.data[i * a.step + l]);
      for (Index j = 0; j < n; ++j) {
        sum[j] +=
            v * double(b.op == Op::transposed ? b.data[j * b.step + l] : b.data[l * b.step + j]);
      }
    }
    for (Index j = 0; j < n; ++j)
      c[i * c_step + j] = float(sum[j]);
  }
}

std::string_view gemm_library() {
  return "plain loops";
}

}  // namespace moe
