// Traces made up so that the answers are known: a pattern says how experts are drawn and, in closed
// form, what the metrics of docs/metrics.md must then give. Every (layer, sequence) has random
// numbers of its own: the same bytes for any number of threads.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>

#include "lib/core/registry.h"
#include "lib/core/rng.h"
#include "lib/core/spec.h"
#include "lib/trace/writer.h"

namespace moe {

struct SynthShape {
  std::uint64_t tokens = 65536;  // T
  int layers = 4, experts = 64, k = 8;
  int sequence = 512;  // rows of a sequence; the last may be shorter
  int step = 4096;     // rows of an engine step
  // sequences take turns: sequence q is of domain q mod domains; 0 = no labels
  int domains = 0;
  int ranks = 0;          // sequence q is of data-parallel rank q mod ranks; 0 = not recorded
  int vocabulary = 1000;  // token ids are uniform in 0..vocabulary-1, whatever the experts are
  bool weights = false;   // record 1/K for every choice
  std::uint64_t seed = 1;
};

struct SynthRun {                         // rows of one sequence in one layer
  std::uint64_t first = 0, sequence = 0;  // row of its first token; which sequence
  int rows = 0, layer = 0, domain = -1;
};

// What a metric must give for every layer, but for chance: |measured - value| is a few `noise` at
// most.
struct Known {
  std::string id;         // of docs/metrics.md
  std::vector<Index> at;  // where behind the layer axis: {} scalar, {e}, {i,j}
  // noise: about one standard deviation at this T, bias included; 0 = exact
  double value = 0, noise = 0;
};

class Pattern {
 public:
  virtual ~Pattern() = default;
  virtual void draw(const SynthRun&, Rng&,
                    Matrix<int>& out /*(rows,K) distinct experts*/) const = 0;
  virtual std::vector<Known> known() const = 0;
  // How many rows of a sequence, from its first on, stand for a picture; -1 = the pattern knows no
  // modalities.
  virtual int picture_rows() const {
    return -1;
  }
};

using MakePattern = std::unique_ptr<Pattern>(Spec&, const SynthShape&);
const Registry<MakePattern>& patterns();  // analysis/synth/patterns.def

struct Synth {
  SynthShape shape;
  std::string resolved;  // the spec with its defaults
  std::unique_ptr<Pattern> pattern;
};
// throws Error(usage) for shapes that cannot be
Synth make_synth(const std::string& spec, const SynthShape&);

// Writes the trace through the writer of lib/trace. `header` gives the provenance; layers, domains
// and vocabulary are filled in.
void write_synth(const std::filesystem::path&, const Synth&, TraceHeader header, TraceWriterOptions,
                 const std::function<void(std::uint64_t rows)>& progress = {});

}  // namespace moe
