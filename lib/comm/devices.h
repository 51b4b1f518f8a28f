// Devices of ranks, one each, that move bytes between them by a library of their own (NCCL), in a
// module that is opened only where a run has such devices.
#pragma once
#include <memory>
#include <string>

#include "lib/core/comm.h"

namespace moe {

struct DevicesOfRanks {
  std::shared_ptr<Transport> transport;  // of addresses on the devices; null: through the host
  std::string why_not;                   // where it is null, for the user
};

// All ranks call this, each with its device and the stream in which its work is done. No transport
// where a rank has no module, or two ranks share a device. Throws Error(environment) where the
// module cannot be opened, has no device, or others do not come.
DevicesOfRanks open_devices(Comm&, int ordinal, void* stream);

}  // namespace moe
