// The backend that overrides no operation: all run by their definitions, in float and in double.
#pragma once
#include "lib/backend/host_memory.h"

namespace moe {

template <class S>
class Reference : public HostBackend<S> {
 public:
  std::string name() const override {
    return sizeof(S) == 8 ? "reference:f64" : "reference";
  }
};

}  // namespace moe
