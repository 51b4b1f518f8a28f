// One GPU: its memory pool, its stream and its BLAS handle. Everything runs on one stream, so a
// block that was released can be handed out again at once: what still reads it runs before what
// will write it.
#pragma once
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <map>
#include <span>
#include <string>
#include <vector>

#include "lib/backend/cuda/gemm_call.h"

namespace moe::gpu {

void check(cudaError_t, const char* doing);  // throws Error(memory | environment | bug)
void check(cublasStatus_t, const char* doing);

class Device {
 public:
  // Throws Error(environment) where there is no driver, an old one, no such device, or no code for
  // its kind.
  explicit Device(int ordinal);
  ~Device();
  Device(const Device&) = delete;

  void* allocate(std::size_t bytes);
  void release(void*, std::size_t bytes) noexcept;
  // returns when `host` may change; the copy may still be under way
  void to_device(const void* host, void* device, std::size_t bytes);
  void to_host(const void* device, void* host, std::size_t bytes);  // waits
  void zero(void*, std::size_t bytes);
  void wait(const char* doing);

  void gemm(const Gemm&, GemmTypes);
  void gemm_group(std::span<const Gemm>, GemmTypes);

  cudaStream_t stream() const {
    return stream_;
  }
  std::size_t weight_budget() const {
    return total_ / 4;
  }
  // "NVIDIA H200, compute capability 9.0, 132 multiprocessors, 140 GiB"
  std::string description() const;

 private:
  void* fresh(std::size_t bytes);
  void give_back();  // free blocks to the driver

  int ordinal_;
  std::size_t total_ = 0;
  cudaStream_t stream_ = nullptr;
  cublasHandle_t blas_ = nullptr;
  void* workspace_ = nullptr;
  std::map<std::size_t, std::vector<void*>> free_;  // by size
  // Pinned pieces that host data passes through, so that the host need not wait for the stream.
  static constexpr std::size_t piece_bytes = std::size_t(1) << 20;
  struct Piece {
    void* memory = nullptr;
    cudaEvent_t read = nullptr;
  };
  std::vector<Piece> pieces_;
  std::size_t next_piece_ = 0;
};

// throws Error(environment) where this build holds no code for the device; defined beside the
// kernels
void require_code(int ordinal);

}  // namespace moe::gpu
