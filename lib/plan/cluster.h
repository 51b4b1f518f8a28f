// A cluster of like devices and how training is laid out on it, as people write them in one line.
#pragma once
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/architecture.h"
#include "lib/plan/device.h"

namespace moe::plan {

struct Cluster {
  Device device;
  Count nodes = 1, gpus = 8;  // gpus: of a node, or of the NVLink domain where that is larger
  Count devices() const {
    return nodes * gpus;
  }
};
// "h100:nodes=256,gpus=8,link=450GB/s,net=50GB/s": a device of devices.def and what is changed of
// it. Throws Error(usage).
Cluster cluster_of(std::string_view text);

// How rows of tokens travel to experts of other devices.
enum class Dispatch {
  flat,    // a copy for every choice
  device,  // a copy for every device that holds a chosen expert
  node     // a copy for every node over the network, and from there one a device over the links
};
std::string_view name_of(Dispatch);

struct Layout {
  // ranks of expert, pipeline and tensor parallelism; chunks of a stage (virtual pipeline)
  Count ep = 1, pp = 1, tp = 1, vp = 1;
  Count dp = 0;            // data-parallel ranks; 0 = what is left of the devices
  int zero = 1;            // 0, 1 or 3: what data-parallel ranks share
  Count limit_nodes = 0;   // nodes that a token's experts may stand on; 0 = all
  Count mbs = 1, gbs = 0;  // sequences of a micro-batch and of a step; gbs 0 = 16 a rank
  Count sequence = 4096;   // tokens
  int bits = 8;            // of the operands of products with weights
  bool recompute = false;  // activations of layers are computed again
  bool graphs = false;     // launches are replayed (CUDA graphs)
  bool further = false;    // layers that predict further tokens are trained
  Dispatch dispatch = Dispatch::node;
  double overlap = 0;                  // share of the exchange that compute hides
  std::vector<std::string> said = {};  // keys that layout_of() was given: a search leaves them

  bool fixes(std::string_view key) const {
    return std::ranges::find(said, key) != said.end();
  }
  Count micro_batches() const {  // of a rank and step
    return gbs / (mbs * dp);
  }
  double tokens_a_step() const {
    return double(gbs) * double(sequence);
  }
};
// "ep=64,pp=16,tp=1,dp=8,zero=1,limit_nodes=4,mbs=1,gbs=15360,...". Throws Error(usage) for a key
// that is none.
Layout layout_of(std::string_view text);
struct LayoutKey {
  std::string_view key, initial, about;
};
const std::vector<LayoutKey>& layout_keys();  // layout.def
// Fills what was left open (dp, gbs). Throws Error(usage) naming the figures where the layout does
// not divide the cluster or the model.
Layout resolved(Layout, const Cluster&, const Architecture&);
std::string text_of(const Layout&);  // "ep=64,pp=16,...", every key that is not its default

}  // namespace moe::plan
