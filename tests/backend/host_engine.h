// An engine for gpu::Operations on the host, so that the bodies, index arithmetic and BLAS calls of
// the CUDA backend run where no GPU is. It is as strict as a device: its memory cannot be touched
// while no operation runs, library calls check their leading dimensions, new memory holds NaN, and
// rows are computed by a group of several lanes.
#pragma once
#include <functional>
#include <numeric>
#include <span>
#include <utility>

#define THRUST_DEVICE_SYSTEM THRUST_DEVICE_SYSTEM_OMP
#include <thrust/system/cpp/execution_policy.h>
#include <thrust/system/omp/execution_policy.h>

#include "lib/backend/cuda/operations.h"
#include "lib/backend/cuda/plan.h"
#include "tests/backend/lanes.h"
#include "tests/backend/strict_memory.h"

namespace moe {

class HostEngine : public StrictMemory {
 public:
  template <class Body>
  void each(const char*, Index n, const Body& body) {
    static_assert(std::is_trivially_copyable_v<Body>);
    const Open open(*this);
    for (Index i = n; i-- > 0;)
      body(i);  // no order may matter
  }
  template <class Body>
  void rows(const char*, Index n, const Body& body) {
    static_assert(std::is_trivially_copyable_v<Body>);
    const Open open(*this);
    lanes_.run(body, n);
  }
  void gemm(const gpu::Gemm& g, gpu::GemmTypes t) {
    const Open open(*this);
    ++gemms_;
    multiply(g, t);
  }
  void gemm_group(std::span<const gpu::Gemm> all, gpu::GemmTypes t) {
    if (t.half_in != t.half_out)
      throw Error(Exit::bug, "cuBLAS has no grouped product of mixed types");
    for (const gpu::Gemm& g : all)
      gemm(g, t);
  }
  void sort_choices(const int* kept, Index n, int experts, int* key, int* choice, int* offset) {
    const Open open(*this);
    gpu::sort_choices(thrust::cpp::par, kept, n, experts, key, choice, offset);
  }
  std::size_t weight_budget() const {
    return 4096;
  }  // small: copies come and go
  std::size_t gemms() const {
    return gemms_;
  }  // library products so far

 private:
  static double number(const void* p, Index i, bool half) {
    return half ? double(bf16_to_float(static_cast<const std::uint16_t*>(p)[i]))
                : double(static_cast<const float*>(p)[i]);
  }
  static void refuse_wrong(const gpu::Gemm& g) {
    const bool wrong = g.m <= 0 || g.n <= 0 || g.k <= 0 || g.lda < (g.transpose_a ? g.k : g.m) ||
                       g.ldb < (g.transpose_b ? g.n : g.k) || g.ldc < g.m;
    if (wrong) {
      throw Error(Exit::bug, concat("a BLAS call no library would take: m=", g.m, " n=", g.n,
                                    " k=", g.k, " ld=", g.lda, ",", g.ldb, ",", g.ldc));
    }
  }
  // (rows,k), k innermost, of a matrix whose number (i,l) is at i + l*ld, or transposed
  static std::vector<double> packed(const void* from, Index rows, Index k, Index ld,
                                    bool transposed, bool half) {
    std::vector<double> out(std::size_t(rows * k));
    for (Index i = 0; i < rows; ++i) {
      for (Index l = 0; l < k; ++l)
        out[std::size_t(i * k + l)] = number(from, transposed ? l + i * ld : i + l * ld, half);
    }
    return out;
  }
  // As cublasGemmEx defines it.
  void multiply(const gpu::Gemm& g, gpu::GemmTypes t) {
    refuse_wrong(g);
    const std::vector<double> a = packed(g.a, g.m, g.k, g.lda, g.transpose_a, t.half_in);
    const std::vector<double> b = packed(g.b, g.n, g.k, g.ldb, !g.transpose_b, t.half_in);
    for (Index j = 0; j < g.n; ++j) {
      for (Index i = 0; i < g.m; ++i) {
        const Index at = i + j * g.ldc;
        const double before = g.beta == 0 ? 0 : double(g.beta) * number(g.c, at, t.half_out);
        const double sum =
            std::inner_product(&a[std::size_t(i * g.k)], &a[std::size_t(i * g.k)] + g.k,
                               &b[std::size_t(j * g.k)], before);
        if (t.half_out)
          static_cast<std::uint16_t*>(g.c)[at] = float_to_bf16(float(sum));
        else
          static_cast<float*>(g.c)[at] = float(sum);
      }
    }
  }

  std::size_t gemms_ = 0;
  RowLanes<3> lanes_;
};

using HostCuda = gpu::Operations<HostEngine>;

}  // namespace moe
