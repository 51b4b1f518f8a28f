// What a module of lib/comm/modules exports: one function, which makes its transport. Modules are
// opened while the program runs, so that it can do without the libraries that they need.
#pragma once
#include <string>

#include "lib/core/comm.h"

namespace moe {

inline constexpr const char* open_module_name = "moe_open_transport";
// Null where there is none. Never throws.
using OpenModule = Transport*();

// A rank's device among those of all ranks.
struct DevicePlace {
  int rank = 0, size = 1;
  int ordinal = 0;         // of the device on its host
  void* stream = nullptr;  // in which its work is done (cudaStream_t)
  double patience = 0;     // seconds for the others to come
};
// What a module exports that moves bytes between devices. None of it throws: where it cannot, it
// returns false or null, and `why` says what is wrong.
struct DeviceModule {
  // Two ranks with the same one share a device.
  bool (*identity)(int ordinal, std::string& out, std::string& why);
  // What all ranks of a run must open with; one of them makes it.
  bool (*make_key)(std::string& key, std::string& why);
  Transport* (*open)(const DevicePlace&, const std::string& key, std::string& why);
};
inline constexpr const char* device_module_name = "moe_device_module";
using GetDeviceModule = const DeviceModule*();

}  // namespace moe
