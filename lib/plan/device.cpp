// The table of devices, and what people write in its place.
#include "lib/plan/device.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe::plan {
namespace {

void take(Spec& spec, const char* key, double& value) {
  const std::string text = spec.get(key, "");
  if (!text.empty())
    value = parse_rate(text, concat("--device: ", key));
}

Device named(const std::string& name) {
  std::vector<std::string> names{"cpu"};
  for (const Device& d : devices()) {
    if (d.name == name)
      return d;
    names.push_back(d.name);
  }
  if (name == "cpu" || name == "own")
    return {.name = name, .source = "as given", .node = 1};
  const std::string near = nearest(name, names);
  throw Error(Exit::usage, concat("no device named '", name, "'"))
      .hint(concat(near.empty() ? "" : concat("'", near, "'; "), "there is ", join(names),
                   ", or figures: memory=80GB,bandwidth=3.35TB/s,flops=989T"));
}

}  // namespace

double Device::flops(int bits) const {
  if (bits <= 4 && flops4 > 0)
    return flops4;
  if (bits <= 8 && flops8 > 0)
    return flops8;
  return flops16;
}

const std::vector<Device>& devices() {
  static const std::vector<Device> all{
#define DEVICE(name, memory, bandwidth, f16, f8, f4, link, net, node, source) \
  {name, source, memory, bandwidth, f16, f8, f4, link, net, node},
#include "lib/plan/devices.def"
#undef DEVICE
  };
  return all;
}

double parse_rate(std::string_view text, std::string_view what) {
  if (text.ends_with("/s"))
    text.remove_suffix(2);
  return double(parse_size(text, what));
}

Device device_of(std::string_view text) {
  const auto equals = text.find('=');
  const auto colon = text.find(':');
  Spec spec(equals != text.npos && (colon == text.npos || equals < colon) ? concat("own:", text)
                                                                          : std::string(text));
  Device d = named(spec.name());
  take(spec, "memory", d.memory);
  take(spec, "bandwidth", d.bandwidth);
  take(spec, "flops", d.flops16);
  take(spec, "flops8", d.flops8);
  take(spec, "flops4", d.flops4);
  take(spec, "link", d.link);
  take(spec, "net", d.net);
  d.node = spec.get("node", d.node, 1);
  spec.done();
  if (d.bandwidth <= 0) {
    throw Error(Exit::usage, concat("--device ", std::string(text), " has no bandwidth"))
        .hint("cpu:bandwidth=80GB/s,memory=64GB,flops=2T; moe bench machine measures this machine");
  }
  if (std::string(text) != d.name)
    d.source = concat(d.source, "; as given: ", std::string(text));
  return d;
}

}  // namespace moe::plan
