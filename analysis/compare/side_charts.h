// What side_by_side.cpp draws: a figure of several traces as series of one chart.
#pragma once
#include "analysis/compare/compare.h"

namespace moe {

// One figure of one trace, as a report of it has it: by layer, or the loss by domain.
struct SideColumn {
  std::vector<std::string> row;  // layers as numbers, or domains
  Column column;                 // empty cells = the trace does not have it
};
// The column of a report that holds the figure layer by layer.
SideColumn side_column(const Report&, const Headline&);
SideColumn side_losses(const Report&);  // by domain

struct SideFigures {
  std::vector<std::string> name;                // of the traces
  std::vector<SideColumn> loss;                 // (trace)
  std::vector<std::vector<SideColumn>> figure;  // (trace)(headline)
  bool one_tokenizer = true;                    // of those that are known
};
// The loss first, the router's confidence second, then the others in their order; those behind the
// first four are `detail`. Rows are joined by their names, in the order of their first appearance.
std::vector<Table> side_charts(const SideFigures&, const char* section);

}  // namespace moe
