// The CUDA backend: Operations over a GPU. Everything that nvcc compiles is in this file and in
// plan.cu.
#include "lib/backend/cuda/device.h"
#include "lib/backend/cuda/group.h"
#include "lib/backend/cuda/no_device.h"
#include "lib/backend/cuda/operations.h"
#include "lib/backend/cuda/plan_device.h"

namespace moe {
namespace gpu {
namespace {

constexpr int block = 256;              // threads
constexpr Index most_blocks = 1 << 16;  // a kernel goes on from there

template <class Body>
__global__ void __launch_bounds__(block) each_number(Index n, Body body) {
  for (Index i = Index(blockIdx.x) * block + threadIdx.x; i < n; i += Index(gridDim.x) * block)
    body(i);
}
template <class Body>
__global__ void __launch_bounds__(block) each_row(Index n, Body body) {
  for (Index r = (Index(blockIdx.x) * block + threadIdx.x) / Warp::width; r < n;
       r += Index(gridDim.x) * (block / Warp::width)) {
    body(r, Warp{});
  }
}

class Gpu : public Device {
 public:
  using Device::Device;
  template <class Body>
  void each(const char* name, Index n, const Body& body) {
    if (n <= 0)
      return;
    const auto blocks = unsigned(std::min(most_blocks, (n + block - 1) / block));
    each_number<<<blocks, block, 0, stream()>>>(n, body);
    check(cudaPeekAtLastError(), name);
  }
  template <class Body>
  void rows(const char* name, Index n, const Body& body) {
    if (n <= 0)
      return;
    constexpr Index in_block = block / Warp::width;
    const auto blocks = unsigned(std::min(most_blocks, (n + in_block - 1) / in_block));
    each_row<<<blocks, block, 0, stream()>>>(n, body);
    check(cudaPeekAtLastError(), name);
  }
  void sort_choices(const int* kept, Index n, int experts, int* key, int* choice, int* offset) {
    sort_on_device(*this, kept, n, experts, key, choice, offset);
  }
};

}  // namespace

void require_code(int ordinal) {
  cudaFuncAttributes attributes{};
  const cudaError_t status = cudaFuncGetAttributes(&attributes, each_number<Add>);
  if (status == cudaSuccess)
    return;
  cudaGetLastError();
  cudaDeviceProp p{};
  cudaGetDeviceProperties(&p, ordinal);
  if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction ||
      status == cudaErrorUnsupportedPtxVersion) {
    throw no_code_for(p.name, p.major, p.minor, MOE_CUDA_ARCHITECTURES);
  }
  throw Error(Exit::environment,
              concat("the device code does not load on ", p.name, ": ", cudaGetErrorString(status)))
      .hint("nvidia-smi");
}

}  // namespace gpu

int cuda_devices() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) == cudaSuccess)
    return devices;
  cudaGetLastError();
  return 0;
}

std::unique_ptr<Backend<float>> make_cuda_backend(Spec& spec) {
  const int device = spec.get("device", 0, 0);
  const gpu::Choices c = gpu::choices_of(spec);
  spec.done();
  return std::make_unique<gpu::Operations<gpu::Gpu>>(c, device);
}

}  // namespace moe
