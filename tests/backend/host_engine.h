// An engine for gpu::Operations on the host, so that the bodies, index arithmetic and BLAS calls of
// the CUDA backend run where no GPU is. It is as strict as a device: its memory cannot be touched
// while no operation runs, library calls check their leading dimensions, new memory holds NaN, and
// rows are computed by a group of several lanes.
#pragma once
#include <sys/mman.h>

#include <functional>
#include <map>
#include <numeric>
#include <span>
#include <utility>

#define THRUST_DEVICE_SYSTEM THRUST_DEVICE_SYSTEM_OMP
#include <thrust/system/cpp/execution_policy.h>
#include <thrust/system/omp/execution_policy.h>

#include "lib/backend/cuda/operations.h"
#include "lib/backend/cuda/plan.h"
#include "tests/backend/lanes.h"

namespace moe {

class HostEngine {
 public:
  HostEngine() {
    void* p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
      throw Error(Exit::memory, "no address space for the tests' device memory");
    memory_ = static_cast<char*>(p);
  }
  ~HostEngine() {
    munmap(memory_, bytes);
  }
  HostEngine(const HostEngine&) = delete;

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
  // how often a host would have waited for a device
  std::size_t waits() const {
    return waits_;
  }

 private:
  static constexpr std::size_t bytes = std::size_t(1) << 30;
  struct Open {  // the memory is there while it lives
    explicit Open(HostEngine& e) : engine(e) {
      mprotect(engine.memory_, engine.used_, PROT_READ | PROT_WRITE);
    }
    ~Open() {
      mprotect(engine.memory_, engine.used_, PROT_NONE);
    }
    HostEngine& engine;
  };
  static std::size_t rounded(std::size_t n) {
    return (n + 4095) / 4096 * 4096;
  }
  void copy(const void* from, void* to, std::size_t n) {
    const Open open(*this);
    std::memcpy(to, from, n);
  }
  static double number(const void* p, Index i, bool half) {
    return half ? double(bf16_to_float(static_cast<const std::uint16_t*>(p)[i]))
                : double(static_cast<const float*>(p)[i]);
  }
  // As cublasGemmEx defines it.
  void multiply(const gpu::Gemm& g, gpu::GemmTypes t) {
    const bool wrong = g.m <= 0 || g.n <= 0 || g.k <= 0 || g.lda < (g.transpose_a ? g.k : g.m) ||
                       g.ldb < (g.transpose_b ? g.n : g.k) || g.ldc < g.m;
    if (wrong) {
      throw Error(Exit::bug, concat("a BLAS call no library would take: m=", g.m, " n=", g.n,
                                    " k=", g.k, " ld=", g.lda, ",", g.ldb, ",", g.ldc));
    }
    // (m,k) and (n,k), k innermost
    std::vector<double> a(std::size_t(g.m * g.k));
    std::vector<double> b(std::size_t(g.n * g.k));
    for (Index l = 0; l < g.k; ++l) {
      for (Index i = 0; i < g.m; ++i) {
        a[std::size_t(i * g.k + l)] =
            number(g.a, g.transpose_a ? l + i * g.lda : i + l * g.lda, t.half_in);
      }
      for (Index j = 0; j < g.n; ++j) {
        b[std::size_t(j * g.k + l)] =
            number(g.b, g.transpose_b ? j + l * g.ldb : l + j * g.ldb, t.half_in);
      }
    }
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

  char* memory_ = nullptr;
  std::size_t used_ = 0, waits_ = 0, gemms_ = 0;
  std::map<std::size_t, std::vector<char*>> free_;
  Lanes<3> lanes_;
};

using HostCuda = gpu::Operations<HostEngine>;

}  // namespace moe
