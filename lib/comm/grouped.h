// One exchange as a device library takes it: sends and receives between pairs that are asked for
// one after the other and begun together, so that none waits for another. A list, made on the host,
// which can be looked at where no device is.
#pragma once
#include <vector>

#include "lib/core/comm.h"

namespace moe {

struct DeviceTransfer {
  enum class Kind { send, receive, copy } kind;  // copy: inside this rank's device
  int peer;
  std::size_t bytes;
  const std::byte* from;  // of send and copy
  std::byte* to;          // of receive and copy
  bool operator==(const DeviceTransfer&) const = default;
};

// What this rank asks for: nothing of no bytes, each rank beginning with another one. Throws
// Error(bug) where the lists do not fit each other.
std::vector<DeviceTransfer> grouped_transfers(int rank, std::span<const ConstBytes> send,
                                              std::span<const Bytes> receive);

}  // namespace moe
