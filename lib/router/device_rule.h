// A router whose whole rule a device can follow without the host.
#pragma once
#include <optional>

#include "lib/core/top_k.h"

namespace moe {

class DeviceRule {
 public:
  virtual ~DeviceRule() = default;
  // The rule at the present temperature; empty = with these options the host must decide.
  virtual std::optional<TopK> top_k() const = 0;
};

}  // namespace moe
