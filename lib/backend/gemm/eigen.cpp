// Products by Eigen, where oneDNN is missing.
#include <Eigen/Core>

#include "lib/backend/gemm.h"
#include "lib/core/text.h"

namespace moe {
namespace {

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Step = Eigen::OuterStride<>;

template <class A, class B, class C>
void multiply(const A& a, const B& b, float beta, C& c) {
  if (beta == 0)
    c.setZero();
  else if (beta != 1)
    c *= beta;
  c.noalias() += a * b;
}

}  // namespace

void gemm(Index m, Index n, Index k, Operand a, Operand b, float beta, float* c, Index c_step) {
  if (detail::gemm_trivial(m, n, k, beta, c, c_step))
    return;
  const bool ta = a.op == Op::transposed;
  const bool tb = b.op == Op::transposed;
  const Eigen::Map<const Rows, 0, Step> ma(a.data, ta ? k : m, ta ? m : k, Step(a.step));
  const Eigen::Map<const Rows, 0, Step> mb(b.data, tb ? n : k, tb ? k : n, Step(b.step));
  Eigen::Map<Rows, 0, Step> mc(c, m, n, Step(c_step));
  if (ta && tb)
    return multiply(ma.transpose(), mb.transpose(), beta, mc);
  if (ta)
    return multiply(ma.transpose(), mb, beta, mc);
  if (tb)
    return multiply(ma, mb.transpose(), beta, mc);
  multiply(ma, mb, beta, mc);
}

std::string_view gemm_library() {
  static const std::string name =
      concat("Eigen ", EIGEN_WORLD_VERSION, ".", EIGEN_MAJOR_VERSION, ".", EIGEN_MINOR_VERSION);
  return name;
}

}  // namespace moe
