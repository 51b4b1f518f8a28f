// Clusters and layouts from their texts.
#include "lib/plan/cluster.h"

#include <array>

#include "lib/core/error.h"
#include "lib/core/registry.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"

namespace moe::plan {
namespace {

constexpr std::array<std::string_view, 3> dispatches{"flat", "device", "node"};
constexpr Count usual_micro_batches = 16;  // of a rank, where nobody says how large a step is

Count count(Spec& s, const char* key, Count fallback, int least) {
  return s.get(key, int(fallback), least);
}

Dispatch dispatch_named(const std::string& name) {
  for (std::size_t i = 0; i < dispatches.size(); ++i) {
    if (dispatches[i] == name)
      return Dispatch(i);
  }
  no_such("dispatch", name, {dispatches.begin(), dispatches.end()});
}

[[noreturn]] void refuse(const std::string& what, const std::string& hint) {
  throw Error(Exit::usage, concat("--layout: ", what)).hint(hint);
}

void check_values(const Layout& l) {
  if (l.zero != 0 && l.zero != 1 && l.zero != 3)
    refuse(concat("zero=", l.zero, " is none of 0, 1 and 3"), "zero=1 shares the optimiser");
  if (l.bits != 4 && l.bits != 8 && l.bits != 16)
    refuse(concat("bits=", l.bits, " is none of 4, 8 and 16"), "bits=8 for fp8, bits=16 for bf16");
  if (l.overlap > 1)
    refuse(concat("overlap=", l.overlap, " is more than all of it"), "0 to 1");
}

void check_model(const Layout& l, const Architecture& a) {
  const FeedShape* moe = a.moe();
  if (l.ep > 1 && !moe)
    refuse(concat("ep=", l.ep, " and ", a.name, " is a dense model"), "ep=1");
  if (l.ep > 1 && moe->experts % l.ep != 0)
    refuse(concat("ep=", l.ep, " does not divide its ", moe->experts, " experts"), "a divisor");
  const auto layers = Count(a.layers.size());
  if (l.pp * l.vp > layers)
    refuse(concat("pp=", l.pp, " x vp=", l.vp, " stages are more than its ", layers, " layers"),
           "fewer stages");
  for (const LayerShape& shape : a.layers) {
    for (const MixerShape& m : shape.mixers) {
      if (l.tp > 1 && m.heads % l.tp != 0)
        refuse(concat("tp=", l.tp, " does not divide its ", m.heads, " heads"), "a divisor");
    }
  }
}

}  // namespace

std::string_view name_of(Dispatch d) {
  return dispatches[std::size_t(d)];
}

Cluster cluster_of(std::string_view text) {
  Spec spec(text);
  Cluster c;
  std::string device = spec.name();
  std::string separator = ":";
  for (const char* key : {"memory", "bandwidth", "flops", "flops8", "flops4", "link", "net"}) {
    if (const std::string value = spec.get(key, ""); !value.empty()) {
      device += concat(separator, key, "=", value);
      separator = ",";
    }
  }
  c.device = device_of(device);
  c.nodes = spec.get("nodes", 1, 1);
  c.gpus = spec.get("gpus", c.device.node, 1);
  spec.done();
  if (c.gpus > 1 && c.device.link <= 0) {
    throw Error(Exit::usage, concat("--cluster ", std::string(text), " has no links in its nodes"))
        .hint("link=64GB/s: bytes a second that a device sends to others of its node");
  }
  if (c.nodes > 1 && c.device.net <= 0) {
    throw Error(Exit::usage, concat("--cluster ", std::string(text), " has no network"))
        .hint("net=50GB/s: bytes a second that a device sends to other nodes");
  }
  if (c.device.flops16 <= 0) {
    throw Error(Exit::usage, concat("--cluster ", std::string(text), " has no rate of products"))
        .hint("flops=989T");
  }
  return c;
}

const std::vector<LayoutKey>& layout_keys() {
  static const std::vector<LayoutKey> all = {
#define LAYOUT_KEY(KEY, INITIAL, ABOUT) {#KEY, INITIAL, ABOUT},
#include "lib/plan/layout.def"
  };
  return all;
}

Layout layout_of(std::string_view text) {
  Spec s(concat("layout:", text));
  Layout l;
  l.ep = count(s, "ep", l.ep, 1);
  l.pp = count(s, "pp", l.pp, 1);
  l.tp = count(s, "tp", l.tp, 1);
  l.vp = count(s, "vp", l.vp, 1);
  l.dp = count(s, "dp", l.dp, 0);
  l.zero = s.get("zero", l.zero, 0);
  l.limit_nodes = count(s, "limit_nodes", l.limit_nodes, 0);
  l.mbs = count(s, "mbs", l.mbs, 1);
  l.gbs = count(s, "gbs", l.gbs, 0);
  l.sequence = count(s, "sequence", l.sequence, 1);
  l.bits = s.get("bits", l.bits, 4);
  l.recompute = s.get("recompute", l.recompute);
  l.graphs = s.get("graphs", l.graphs);
  l.further = s.get("mtp", l.further);
  l.dispatch = dispatch_named(s.get("dispatch", "node"));
  l.overlap = s.get("overlap", l.overlap, 0.0);
  s.done();
  for (const std::string& option : split(std::string(text), ','))
    l.said.push_back(option.substr(0, option.find('=')));
  check_values(l);
  return l;
}

Layout resolved(Layout l, const Cluster& c, const Architecture& a) {
  check_model(l, a);
  const Count devices = c.devices();
  if (l.dp == 0 && devices % (l.tp * l.pp) == 0)
    l.dp = devices / (l.tp * l.pp);
  if (l.dp * l.tp * l.pp != devices) {
    refuse(concat("tp=", l.tp, " x pp=", l.pp, l.dp > 0 ? concat(" x dp=", l.dp) : "",
                  " does not make the ", devices, " devices of the cluster"),
           "dp is what tp and pp leave");
  }
  if ((l.dp * l.tp) % l.ep != 0) {
    refuse(concat("ep=", l.ep, " does not divide the ", l.dp * l.tp, " ranks of a stage"),
           "a divisor of dp x tp");
  }
  if (l.gbs == 0)
    l.gbs = usual_micro_batches * l.mbs * l.dp;
  if (l.gbs % (l.mbs * l.dp) != 0) {
    refuse(concat("gbs=", l.gbs, " is not a whole number of micro-batches for each of dp=", l.dp,
                  " ranks with mbs=", l.mbs),
           concat("a multiple of ", l.mbs * l.dp));
  }
  return l;
}

std::string text_of(const Layout& l) {
  std::string out = concat("ep=", l.ep, ",pp=", l.pp, ",tp=", l.tp, ",dp=", l.dp);
  const auto add = [&](const char* key, Count value, Count usual) {
    if (value != usual)
      out += concat(",", key, "=", value);
  };
  add("vp", l.vp, 1);
  add("zero", l.zero, 1);
  add("limit_nodes", l.limit_nodes, 0);
  add("mbs", l.mbs, 1);
  add("gbs", l.gbs, 0);
  add("sequence", l.sequence, 4096);
  add("bits", l.bits, 8);
  add("recompute", l.recompute, 0);
  add("graphs", l.graphs, 0);
  add("mtp", l.further, 0);
  if (l.dispatch != Dispatch::node)
    out += concat(",dispatch=", std::string(name_of(l.dispatch)));
  if (l.overlap > 0)
    out += concat(",overlap=", l.overlap);
  return out;
}

}  // namespace moe::plan
