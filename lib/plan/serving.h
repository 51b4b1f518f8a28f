// What serving a model takes on one kind of device: what lies in memory, how many devices that
// needs, how many sequences fit, and how fast it could go at most. Bounds, not predictions: every
// byte is read once at the device's full bandwidth or every FLOP done at its full rate, whichever
// takes longer; exchange between devices, kernels and the host cost nothing here.
#pragma once
#include <vector>

#include "lib/plan/device.h"
#include "lib/plan/law.h"
#include "lib/plan/storage.h"

namespace moe::plan {

struct Serving {
  const Architecture& model;
  Device device;
  Storage weights;
  ChoiceLaw law;         // of a model without experts: of no layer
  Count context = 4096;  // tokens of a sequence, prompt and answer
  int cache_bits = 16;   // of keys and values
  double usable = 0.9;   // share of the memory that weights, cache and activations may take
  Count chunk = 2048;    // tokens of a prefill pass
};

struct MemoryParts {  // bytes
  // experts that a router chooses among; everything else; of one sequence at the context; of one
  // pass
  double experts = 0, others = 0, sequence = 0, activations = 0;
};
MemoryParts memory_parts(const Serving&);

// How weights and sequences are cut over devices.
enum class Cut {
  tensor,  // every matrix and the heads of the cache; a latent cache stands on every device
  expert   // experts over devices, everything else on each, sequences over devices
};
std::string_view name_of(Cut);

struct Spread {
  Count devices = 1;
  Cut cut = Cut::tensor;
};

struct Fit {
  Spread spread;
  double weights = 0, room = 0;  // bytes a device: of weights, and left for sequences
  Count sequences = 0;           // on all devices together; < 0: not even the weights fit
};
// Whether so many devices can be cut so at all: they divide heads, or experts.
bool can_cut(const Architecture&, const Spread&);
Fit fit(const Serving&, const Spread&);
// The fits of 1, 2, 3, 4, 6, 8, 12, ... devices up to a few times the fewest that hold one
// sequence; of both ways to cut the one that fits more. Empty: not even 65,536 devices do, or the
// device's memory is not known.
std::vector<Fit> fits(const Serving&);

// One pass of decoding with a token of each of `batch` sequences, or of prefill with `tokens` of
// one.
struct PassBound {
  double tokens = 0;                   // of the pass
  double distinct = 0;                 // experts of a layer that it touches, mean
  double bytes = 0, flops = 0;         // bytes: of the device that reads most
  double memory_s = 0, compute_s = 0;  // 0: the device's rate is not known
  bool by_compute() const {
    return compute_s > memory_s;
  }
  double tokens_per_s() const;
};
PassBound decode_bound(const Serving&, const Spread&, Count batch);
PassBound prefill_bound(const Serving&, const Spread&, Count tokens);
// The smallest batch from which on compute takes longer than memory; 0: none up to 2^20.
Count crossover(const Serving&, const Spread&);

// One kind of products in a decoding pass: how many FLOPs it does for each byte it reads, and what
// that allows (the roofline, Williams et al., CACM 52(4), 2009).
struct RooflinePoint {
  std::string_view part;
  double flops = 0, bytes = 0;
  double ceiling = 0;     // FLOP/s of the device in its bits
  double attainable = 0;  // min(ceiling, bandwidth x flops / bytes)
  double intensity() const {
    return flops / bytes;
  }
};
// Products by the part of the model whose weights they read, then scores over the caches. Throws
// Error(bug) where the device's rate of products is not known.
std::vector<RooflinePoint> roofline(const Serving&, Count batch);

// Experts that do not lie on the device but in the host's memory or on disk, and are fetched when a
// token chooses them; `held` of each layer are kept.
struct Offload {
  std::string where;
  double bandwidth = 0;  // bytes/s of fetching
  Count held = 0;
};
Count most_held(const Serving&, Count sequences);  // experts a layer that the device has room for
struct OffloadBound {
  double hits = 0, fetched = 0;          // share of requests; bytes a token
  double fetch_s = 0, device_s = 0;      // a token, alone
  double overlapped = 0, in_series = 0;  // tokens/s: fetching hidden wholly, not at all
};
OffloadBound offload_bound(const Serving&, const Offload&, double hits);

}  // namespace moe::plan
