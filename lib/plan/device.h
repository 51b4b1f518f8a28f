// What a machine can do at most, for the bounds of a plan: by name (devices.def, each with its
// source), or in figures of one's own. All rates are peaks of data sheets unless they were measured
// (moe bench machine), and every plan says which.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace moe::plan {

struct Device {
  std::string name, source;
  // bytes; bytes/s; FLOP/s of dense products whose operands have 16, 8 and 4 bits. 0 = not known,
  // and nothing is said of what would need it
  double memory = 0, bandwidth = 0, flops16 = 0, flops8 = 0, flops4 = 0;
  // bytes/s each way between devices of a node, and to other nodes; 0 = none
  double link = 0, net = 0;
  int node = 1;  // devices of a node

  // of products with operands of so many bits; those that the device has no products of run as
  // the next wider
  double flops(int bits) const;
};

const std::vector<Device>& devices();  // DEVICE lines of devices.def

// "h100", "h100:memory=94GB", "cpu:bandwidth=80GB/s,flops=2T", or figures alone:
// "memory=80GB,bandwidth=3.35TB/s,flops=989T". Keys: memory, bandwidth, flops, flops8, flops4,
// link, net, node. Throws Error(usage) for a name or a key that is none.
Device device_of(std::string_view text);

// "3.35TB/s", "450GB/s", "989T": a size with or without "/s". Throws Error(usage) naming `what`.
double parse_rate(std::string_view text, std::string_view what);

}  // namespace moe::plan
