// The sort of plan.h on a GPU; compiled apart, for Thrust takes nvcc longer than all other kernels
// together.
#pragma once
#include "lib/backend/cuda/device.h"

namespace moe::gpu {

void sort_on_device(Device&, const int* kept, Index n, int experts, int* key, int* choice,
                    int* offset);

}  // namespace moe::gpu
