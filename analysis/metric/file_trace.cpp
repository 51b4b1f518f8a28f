// Rows of a trace file: what the reader says about its state becomes warnings of the report.
#include "analysis/metric/source.h"
#include "lib/core/text.h"

namespace moe {

std::vector<std::string> FileTrace::warnings() const {
  std::vector<std::string> out = reader_.state().warnings;
  if (!reader_.state().complete) {
    out.push_back(
        concat("the trace was not finished: ", reader_.state().tokens, " committed rows are used"));
  }
  if (reader_.state().ignored)
    out.push_back(concat(reader_.state().ignored, " rows behind the last commit are ignored"));
  return out;
}

}  // namespace moe
