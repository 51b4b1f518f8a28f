// One sentence for each way of having no device, made from what the driver said, so that it can be
// read and tested where no driver is.
#pragma once
#include <string>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe::gpu {

struct Found {  // versions as CUDA numbers them: 13000 = 13.0; 0 = no driver
  int driver = 0, runtime = 0;
  bool too_old = false;  // the driver for the runtime
  int devices = 0;
};
inline std::string version_text(int v) {
  return concat(v / 1000, ".", v % 1000 / 10);
}

// Throws Error(environment) unless there is a device number `ordinal`.
inline void require_device(const Found& f, int ordinal) {
  if (f.driver == 0) {
    throw Error(Exit::environment, "there is no NVIDIA driver on this machine, so no CUDA device")
        .hint("--device cpu, or install the driver (nvidia-smi then lists the GPU)");
  }
  if (f.too_old) {
    throw Error(Exit::environment,
                concat("the NVIDIA driver is for CUDA ", version_text(f.driver),
                       " and this moe was built with CUDA ", version_text(f.runtime)))
        .hint("a newer driver, or a build with an older toolkit");
  }
  if (f.devices == 0) {
    throw Error(Exit::environment,
                concat("the NVIDIA driver (CUDA ", version_text(f.driver), ") shows no GPU"))
        .hint("nvidia-smi; is CUDA_VISIBLE_DEVICES set?");
  }
  if (ordinal < 0 || ordinal >= f.devices) {
    throw Error(Exit::environment,
                concat("there is no CUDA device ", ordinal, ": this machine shows ", f.devices))
        .hint("--device cuda:device=0");
  }
}

// Of a device that this build holds no code for. `held`: "sm_80, 90".
inline Error no_code_for(const std::string& device, int major, int minor, const std::string& held) {
  return Error(Exit::environment,
               concat("this moe holds device code for ", held, " and none that runs on ", device,
                      " (compute capability ", major, ".", minor, ")"))
      .hint(concat("cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES=", major, minor));
}

}  // namespace moe::gpu
