// What GPU this is.
#include "lib/backend/cuda/device.h"
#include "tests/gpu/rows.h"

namespace moe::gpu_check {

std::string device_text() {
  return gpu::Device(0).description();
}

}  // namespace moe::gpu_check
