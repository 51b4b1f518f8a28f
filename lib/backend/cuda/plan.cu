#include "lib/backend/cuda/plan.h"

#include <thrust/system/cuda/execution_policy.h>

#include "lib/backend/cuda/plan_device.h"

namespace moe::gpu {
namespace {

struct Pool {  // Thrust's temporary memory, from the device's own pool
  using value_type = char;
  Device* device;
  char* allocate(std::ptrdiff_t bytes) {
    return static_cast<char*>(device->allocate(std::size_t(bytes)));
  }
  void deallocate(char* p, std::size_t bytes) {
    device->release(p, bytes);
  }
};

}  // namespace

void sort_on_device(Device& device, const int* kept, Index n, int experts, int* key, int* choice,
                    int* offset) {
  Pool pool{&device};
  sort_choices(thrust::cuda::par_nosync(pool).on(device.stream()), kept, n, experts, key, choice,
               offset);
  check(cudaPeekAtLastError(), "plan");
}

}  // namespace moe::gpu
