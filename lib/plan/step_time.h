// How long a training step takes on a cluster, as a sum of named terms: seconds that the slowest
// rank would take at the full rates of the data sheets, each times a factor. Five factors are
// fitted to published runs, those of links and network to published exchanges (lib/plan/fit.h); a
// factor says how far practice is from the data sheet.
#pragma once
#include <array>
#include <functional>

#include "lib/plan/exchange.h"
#include "lib/plan/law.h"

namespace moe::plan {

enum class Term {
  narrow,  // products with weights in 8 or 4 bits
  wide,    // products in 16 bits, scores and values of attention among them
  rows,    // activations written and read between products
  link,    // exchange over links of a node, and over the network
  net,
  launch,     // a layer's work is launched by the host, each micro-batch
  graphs,     // the same where it is replayed from graphs
  gradients,  // shared among data-parallel ranks once a step
  optimizer   // moments and weights read and written once a step
};
inline constexpr std::size_t term_count = 9;
std::string_view name_of(Term);
std::string_view about(Term);
// Whether each micro-batch has it (and waits in the pipeline with it), or each step once.
bool of_micro_batch(Term);

using Terms = std::array<double, term_count>;

struct StepParts {
  Terms seconds{};     // of a step at full rates, bubble and slowest stage included
  double bubble = 0;   // share of the step's micro-batch time that stages wait, (pp-1)/vp over all
  double slowest = 1;  // the longest stage over the mean one
  double imbalance = 1;  // busiest expert rank over the mean one
  double tokens = 0;     // of a step and device
};

struct StepOptions {
  ChoiceLaw law;  // empty: balanced by force
  // load of the busiest expert rank over the mean, of so many ranks; empty: that of the law
  std::function<double(Count ranks)> imbalance;
  // Share of its rate that a product of so many rows reaches, as it was measured; empty: 1, the
  // fitted factor says it all.
  std::function<double(double rows)> efficiency;
};

// The layout must be resolved().
StepParts step_parts(const Architecture&, const Cluster&, const Layout&, const StepOptions& = {});

// Bytes a device holds of: weights, gradients, optimizer, activations in flight.
struct TrainingMemory {
  double weights = 0, gradients = 0, optimizer = 0, activations = 0;
  double all() const {
    return weights + gradients + optimizer + activations;
  }
};
TrainingMemory training_memory(const Architecture&, const Cluster&, const Layout&);

double step_seconds(const StepParts&, const Terms& factors);
double tokens_per_s(const StepParts&, const Terms& factors);  // of a device

}  // namespace moe::plan
