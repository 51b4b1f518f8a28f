#include "lib/comm/devices.h"

#include <dlfcn.h>

#include <set>

#include "lib/comm/launcher.h"
#include "lib/comm/module.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr const char* file = "moe_nccl.so";

const DeviceModule& open_module(const std::filesystem::path& path) {
  void* module = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!module) {
    throw Error(Exit::environment, concat("cannot open '", path.string(), "': ", ::dlerror()))
        .hint("is the NCCL that moe was built with still installed?");
  }
  const auto get = reinterpret_cast<GetDeviceModule*>(::dlsym(module, device_module_name));
  const DeviceModule* found = get ? get() : nullptr;
  if (!found)
    throw Error(Exit::environment, concat("'", path.string(), "' is no module for devices"));
  return *found;
}

[[noreturn]] void refuse(const char* doing, const std::string& why) {
  throw Error(Exit::environment, concat("NCCL failed at ", doing, ": ", why))
      .hint("NCCL_DEBUG=INFO says more; without --ep no rows cross between GPUs");
}

}  // namespace

DevicesOfRanks open_devices(Comm& comm, int ordinal, void* stream) {
  const std::filesystem::path path = module_file(file);
  if (comm.any({"module of devices"}, path.empty()))
    return {nullptr,
            concat("this moe has no ", file, " on every host (the package moe-nccl has it)")};
  const DeviceModule& module = open_module(path);
  std::string mine, key, why;
  if (!module.identity(ordinal, mine, why))
    refuse("looking at the GPU", why);
  std::set<std::string> devices;
  for (const auto& of_rank : comm.gather<char>({"devices"}, std::span<const char>(mine)))
    devices.emplace(of_rank.begin(), of_rank.end());
  if (int(devices.size()) < comm.size()) {
    return {nullptr,
            concat(comm.size(), " ranks have ", devices.size(), " GPUs, and NCCL wants one each")};
  }
  if (comm.first() && !module.make_key(key, why))
    refuse("making a key for the ranks", why);
  key = comm.from_first({"key of devices"}, key);
  Transport* transport = module.open({.rank = comm.rank(),
                                      .size = comm.size(),
                                      .ordinal = ordinal,
                                      .stream = stream,
                                      .patience = comm.patience()},
                                     key, why);
  if (!transport)
    refuse("meeting the other ranks", why);
  return {std::shared_ptr<Transport>(transport), {}};
}

}  // namespace moe
