// Traces of engines that only count: tokens per expert of each step in the place of rows. Which
// metrics can answer from them, what they are shown, and what a report says of what it cannot say.
#pragma once
#include <string>

#include "analysis/metric/metric.h"
#include "lib/trace/step_counts.h"

namespace moe {

struct CountWindow {
  StepCounts steps;
  std::vector<int> experts;       // (L)
  Matrix<std::uint8_t> possible;  // (steps, L)
  // (steps, L) of the step, -1 = not known: add_tokens()
  Matrix<std::int64_t> tokens;

  Index count() const {
    return steps.cells.rows();
  }
  // (E); empty where no router can have given them
  std::span<const std::uint32_t> of(Index step, Index layer) const {
    return possible(step, layer) ? steps.of(step, layer, experts[std::size_t(layer)])
                                 : std::span<const std::uint32_t>();
  }
};

// A sum of tokens that are all known, else -1.
void add_tokens(std::int64_t& sum, std::int64_t tokens);

// Of a trace that is counts_only().
class CountPass {
 public:
  // Reads all counts once. Throws Error(input) where none of them can be routing.
  explicit CountPass(const TraceSource&);

  // Shows the metrics all counts; those of counts_suffice() only.
  void run(const std::vector<Metric*>&, const AnalyzeOptions&) const;

  // For the head of a report: what the trace is, and what `left_out` metrics would need.
  std::vector<std::string> remarks(const std::vector<std::string>& computed,
                                   const std::vector<std::string>& left_out) const;
  // "7 steps, 324 assignments in a MoE layer (162 tokens)"
  std::string size() const;

 private:
  StepCounts read(std::uint64_t first, std::uint64_t count) const;
  CountWindow window(std::uint64_t first, std::uint64_t count) const;
  void unknown_tokens(std::vector<std::string>&) const;
  void odd_counts(std::vector<std::string>&) const;

  const TraceSource& trace_;
  CountSurvey survey_;
};

// Columns whose chance value no row knows have none.
void forget_unknown_chance(Report&);

}  // namespace moe
