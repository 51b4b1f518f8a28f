#include "lib/backend/cuda/device.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "lib/backend/cuda/no_device.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe::gpu {

void check(cudaError_t status, const char* doing) {
  if (status == cudaSuccess)
    return;
  cudaGetLastError();  // what can be cleared is
  const bool memory = status == cudaErrorMemoryAllocation;
  const bool ours = status == cudaErrorIllegalAddress || status == cudaErrorInvalidValue ||
                    status == cudaErrorInvalidConfiguration || status == cudaErrorLaunchFailure ||
                    status == cudaErrorMisalignedAddress || status == cudaErrorLaunchOutOfResources;
  throw Error(memory ? Exit::memory
              : ours ? Exit::bug
                     : Exit::environment,
              concat("CUDA failed at ", doing, ": ", cudaGetErrorString(status), " (",
                     cudaGetErrorName(status), ")"))
      .hint(memory ? "fewer tokens a step, or a smaller model"
                   : "moe verify --device cuda runs every operation on known shapes");
}
void check(cublasStatus_t status, const char* doing) {
  if (status == CUBLAS_STATUS_SUCCESS)
    return;
  throw Error(status == CUBLAS_STATUS_ALLOC_FAILED ? Exit::memory : Exit::environment,
              concat("cuBLAS failed at ", doing, ": ", cublasGetStatusString(status)))
      .hint("moe verify --device cuda runs every product on known shapes");
}

namespace {
void find_device(int ordinal) {
  Found f;
  cudaDriverGetVersion(&f.driver);
  cudaRuntimeGetVersion(&f.runtime);
  const cudaError_t status = cudaGetDeviceCount(&f.devices);
  f.too_old = status == cudaErrorInsufficientDriver;
  if (status != cudaSuccess)
    f.devices = 0;
  if (f.driver == 0 || status == cudaSuccess || status == cudaErrorNoDevice || f.too_old)
    return require_device(f, ordinal);
  check(status, "looking for devices");
}
}  // namespace

Device::Device(int ordinal) : ordinal_(ordinal) {
  find_device(ordinal);
  check(cudaSetDevice(ordinal), "choosing the device");
  require_code(ordinal);
  std::size_t left = 0;
  check(cudaMemGetInfo(&left, &total_), "asking for the device's memory");
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  check(cublasCreate(&blas_), "making a cuBLAS handle");
  check(cublasSetStream(blas_, stream_), "giving cuBLAS its stream");
  // of our own: one stream and one workspace give the same bytes every time
  constexpr std::size_t workspace = std::size_t(64) << 20;
  check(cudaMalloc(&workspace_, workspace), "allocating cuBLAS' workspace");
  check(cublasSetWorkspace(blas_, workspace_, workspace), "giving cuBLAS its workspace");
  check(cublasSetMathMode(blas_, CUBLAS_DEFAULT_MATH), "asking cuBLAS for full f32");  // no TF32
  pieces_.resize(16);
  for (Piece& p : pieces_) {
    check(cudaMallocHost(&p.memory, piece_bytes), "allocating pinned memory");
    check(cudaEventCreateWithFlags(&p.read, cudaEventDisableTiming), "making an event");
  }
}
Device::~Device() {
  if (stream_)
    cudaStreamSynchronize(stream_);
  for (Piece& p : pieces_) {
    if (p.read)
      cudaEventDestroy(p.read);
    if (p.memory)
      cudaFreeHost(p.memory);
  }
  if (blas_)
    cublasDestroy(blas_);
  if (workspace_)
    cudaFree(workspace_);
  give_back();
  if (stream_)
    cudaStreamDestroy(stream_);
}

std::string Device::description() const {
  cudaDeviceProp p{};
  check(cudaGetDeviceProperties(&p, ordinal_), "asking for the device's properties");
  return concat(p.name, ", compute capability ", p.major, ".", p.minor, ", ", p.multiProcessorCount,
                " multiprocessors, ", p.totalGlobalMem >> 30, " GiB");
}

// ---- memory ----------------------------------------------------------------------------------

namespace {
// One of 16 steps between powers of two, as on the host: routing gives new sizes at every step.
std::size_t rounded(std::size_t bytes) {
  const std::size_t step = std::max<std::size_t>(512, std::bit_floor(bytes | 1) / 16);
  return (bytes + step - 1) / step * step;
}
}  // namespace

void Device::give_back() {
  for (auto& [bytes, blocks] : free_) {
    for (void* p : blocks)
      cudaFree(p);
  }
  free_.clear();
}
void* Device::fresh(std::size_t bytes) {
  void* p = nullptr;
  cudaError_t status = cudaMalloc(&p, bytes);
  if (status == cudaErrorMemoryAllocation) {  // blocks of other sizes may be what is in the way
    cudaGetLastError();
    wait("making room");
    give_back();
    status = cudaMalloc(&p, bytes);
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t left = 0;
    std::size_t total = 0;
    cudaMemGetInfo(&left, &total);
    throw Error(Exit::memory, concat("cannot allocate ", bytes, " bytes on the device: ", left,
                                     " of ", total, " are free"))
        .hint("fewer tokens a step, or a smaller model");
  }
  check(status, "allocating");
  return p;
}
void* Device::allocate(std::size_t bytes) {
  bytes = rounded(bytes);
  if (auto& blocks = free_[bytes]; !blocks.empty()) {
    void* p = blocks.back();
    blocks.pop_back();
    return p;
  }
  return fresh(bytes);
}
void Device::release(void* p, std::size_t bytes) noexcept {
  free_[rounded(bytes)].push_back(p);
}

void Device::to_device(const void* host, void* device, std::size_t bytes) {
  for (std::size_t done = 0; done < bytes;) {
    const std::size_t n = std::min(piece_bytes, bytes - done);
    Piece& piece = pieces_[next_piece_++ % pieces_.size()];
    check(cudaEventSynchronize(piece.read), "copying to the device");  // long ago, in general
    std::memcpy(piece.memory, static_cast<const char*>(host) + done, n);
    check(cudaMemcpyAsync(static_cast<char*>(device) + done, piece.memory, n,
                          cudaMemcpyHostToDevice, stream_),
          "copying to the device");
    check(cudaEventRecord(piece.read, stream_), "copying to the device");
    done += n;
  }
}
void Device::to_host(const void* device, void* host, std::size_t bytes) {
  if (bytes == 0)
    return;
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_),
        "copying to the host");
  wait("copying to the host");
}
void Device::zero(void* p, std::size_t bytes) {
  if (bytes > 0)
    check(cudaMemsetAsync(p, 0, bytes, stream_), "clearing memory");
}
void Device::wait(const char* doing) {
  check(cudaStreamSynchronize(stream_), doing);
}

// ---- products --------------------------------------------------------------------------------

namespace {
cublasOperation_t op(bool transposed) {
  return transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
}
cudaDataType_t type(bool half) {
  return half ? CUDA_R_16BF : CUDA_R_32F;
}
}  // namespace

void Device::gemm(const Gemm& g, GemmTypes t) {
  const float one = 1;
  check(cublasGemmEx_64(blas_, op(g.transpose_a), op(g.transpose_b), g.m, g.n, g.k, &one, g.a,
                        type(t.half_in), g.lda, g.b, type(t.half_in), g.ldb, &g.beta, g.c,
                        type(t.half_out), g.ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "a product");
}

namespace {
// The arguments of one library call with one group for each product.
struct GroupArguments {
  std::vector<cublasOperation_t> op_a, op_b;
  std::vector<std::int64_t> m, n, k, lda, ldb, ldc;
  std::vector<float> beta;
  std::vector<const void*> address;  // of all a, then all b, then all c

  explicit GroupArguments(std::span<const Gemm> calls) : address(3 * calls.size()) {
    const std::size_t groups = calls.size();
    for (std::size_t i = 0; i < groups; ++i) {
      const Gemm& g = calls[i];
      op_a.push_back(op(g.transpose_a));
      op_b.push_back(op(g.transpose_b));
      m.push_back(g.m);
      n.push_back(g.n);
      k.push_back(g.k);
      lda.push_back(g.lda);
      ldb.push_back(g.ldb);
      ldc.push_back(g.ldc);
      beta.push_back(g.beta);
      address[i] = g.a;
      address[groups + i] = g.b;
      address[2 * groups + i] = g.c;
    }
  }
};
}  // namespace

// The library wants the addresses in device memory.
void Device::gemm_group(std::span<const Gemm> calls, GemmTypes t) {
  const std::size_t n = calls.size();
  const GroupArguments g(calls);
  const std::vector<std::int64_t> ones(n, 1);
  const std::vector<float> alpha(n, 1.0f);
  const std::size_t bytes = g.address.size() * sizeof(void*);
  void* on_device = allocate(bytes);
  to_device(g.address.data(), on_device, bytes);
  auto* a = static_cast<const void* const*>(on_device);
  const cublasStatus_t status = cublasGemmGroupedBatchedEx_64(
      blas_, g.op_a.data(), g.op_b.data(), g.m.data(), g.n.data(), g.k.data(), alpha.data(), a,
      type(t.half_in), g.lda.data(), a + n, type(t.half_in), g.ldb.data(), g.beta.data(),
      const_cast<void* const*>(a + 2 * n), type(t.half_out), g.ldc.data(), std::int64_t(n),
      ones.data(), CUBLAS_COMPUTE_32F);
  release(on_device, bytes);
  check(status, "a grouped product");
}

}  // namespace moe::gpu
