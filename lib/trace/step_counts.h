// What an engine that only counts leaves: tokens per expert, step by step, and no token rows
// (/counts/per_step). How many tokens those were, and which counts no router can have given: the
// one list behind moe verify and the first lines of a report.
#pragma once
#include <functional>
#include <span>

#include "lib/trace/trace.h"

namespace moe {

// Steps `first`.. as they lie in /counts/per_step.
struct StepCounts {
  std::uint64_t first = 0;
  Matrix<std::uint32_t> cells;  // (steps, L * width)
  int width = 0;                // experts of the widest layer

  // (E) of a layer that has so many, in one step of these
  std::span<const std::uint32_t> of(Index step, Index layer, int experts) const {
    return {cells.row(step).data() + layer * width, std::size_t(experts)};
  }
};

// What all steps together tell of a layer.
struct CountedLayer {
  std::int64_t assignments = 0;  // of counts that can be
  std::int64_t tokens = 0;       // that made them; -1 = not known
  std::uint64_t steps = 0;       // with any
  // Experts of every token: top_k, where the counts of every step divide by it; 0 = not known. Not
  // known behind capacity either, which took some.
  int choices = 0;
  std::uint64_t broken = 0, first_broken = 0;  // steps that top_k does not divide
};

struct OddCounts {  // one kind, of a step and layer each
  std::uint64_t cells = 0, first_step = 0;
  Index first_layer = 0;
  void seen(std::uint64_t step, Index layer) {
    if (cells++ == 0) {
      first_step = step;
      first_layer = layer;
    }
  }
};

// What is wrong with them, in words: "3 counts of a step in a layer ..."
constexpr const char* negative_counts = "hold 4294967295, which is -1";
constexpr const char* crowded_counts =
    "have more assignments to an expert, or in all, than the step's tokens can give";

class CountSurvey {
 public:
  using Read = std::function<StepCounts(std::uint64_t first, std::uint64_t count)>;
  // Reads all steps, a window at a time. `steps` as the trace has them: where one names its tokens
  // (a trace without rows may), those are believed.
  CountSurvey(const TraceHeader&, std::span<const TraceStep> steps, std::uint64_t count,
              const Read&);

  const std::vector<CountedLayer>& layers() const {
    return layer_;
  }
  // Whether a router can have given these counts.
  bool possible(std::span<const std::uint32_t> counts, std::uint64_t step, Index layer) const;
  // Tokens of a step in a layer whose assignments are so many; -1 = not known.
  std::int64_t tokens(std::int64_t assignments, std::uint64_t step, Index layer) const;

  // left out of every figure
  const OddCounts& negative() const {
    return negative_;
  }
  const OddCounts& crowded() const {
    return crowded_;
  }
  // Steps and layers with counts that can be; 0: nothing in the trace can be routing.
  std::uint64_t possible_cells() const;
  // What is wrong, a sentence each, for moe verify.
  std::vector<std::string> findings() const;
  // Where top_k does not divide what a step counts (before capacity), as it may where tokens chose
  // fewer experts: one sentence without its end, or nothing.
  std::string undivided() const;

 private:
  std::uint32_t named_tokens(std::uint64_t step) const;
  void look(const StepCounts&);
  void look_again(const StepCounts&);

  const TraceHeader& header_;
  std::span<const TraceStep> steps_;
  std::vector<CountedLayer> layer_;
  OddCounts negative_, crowded_;
};

// "MoE layer 3", "MoE layers 3, 4", "every MoE layer"; `layers` count MoE layers, the name is
// theirs.
std::string named_layers(const TraceHeader&, const std::vector<std::size_t>& layers);

// Steps that are read at once: about 16 MiB of counts.
std::uint64_t count_window(const TraceHeader&);

}  // namespace moe
