// What experts are worth, measured by leaving them out, beside the cheap figures that guess it:
// does the load, the REAP score, the likeness to another expert foretell it?
#pragma once
#include "analysis/metric/source.h"
#include "analysis/table.h"

namespace moe {

struct MeasuredWorth {  // a row an expert
  std::vector<std::int64_t> layer, expert;
  std::vector<double> change, low, high;  // of the loss without it, nats; NaN = not known
  // the same on either half of the text; empty = not known
  std::vector<double> first_half, second_half;
};

struct CheapFigure {
  std::string name;           // "load"
  std::string metric;         // definition id
  std::vector<double> value;  // a row an expert, as in MeasuredWorth; NaN = not known
};

// Adds a table of rank correlations and a finding for each figure. They are taken within layers, so
// that layers which matter more do not make one; over all experts beside. Where the halves are
// known, how well the worth of one half tells that of the other, and what that leaves to foretell.
void add_foretold(Report&, const MeasuredWorth&, const std::vector<CheapFigure>&,
                  const char* section);

// The measured worth in the report of a trace of the same model, where it is asked what is
// redundant: a map of it beside what the report knows of every expert (load, what it adds, the loss
// of its tokens, the most alike other expert), and which of these foretells it. Throws Error(input)
// where the experts are not those of the trace.
void add_measured_worth(Report&, const TraceSource&, const MeasuredWorth&);

}  // namespace moe
