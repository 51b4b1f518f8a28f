// Stands in for the CUDA backend where it is not built, so that nothing else asks whether it is.
#include "lib/backend/backend.h"
#include "lib/core/error.h"

namespace moe {

std::unique_ptr<Backend<float>> make_cuda_backend(Spec&) {
  throw Error(Exit::environment, "this moe was built without the CUDA backend")
      .hint("cmake --preset cuda && cmake --build --preset cuda, with the CUDA toolkit 13");
}

int cuda_devices() {
  return 0;
}

}  // namespace moe
