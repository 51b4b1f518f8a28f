#include "analysis/report/ranking.h"

#include <algorithm>

namespace moe::drawing {

const char* word_of(Priority w) {
  switch (w) {
    case Priority::red:
      return "red";
    case Priority::yellow:
      return "yellow";
    case Priority::too_few:
      return "grey";
    case Priority::green:
      return "green";
    case Priority::chance:
      return "chance";
    case Priority::told:
    case Priority::overview:
      break;
  }
  return "note";
}

std::vector<const Finding*> ranked_findings(const Report& r) {
  std::vector<const Finding*> out;
  for (const Finding& f : r.findings) {
    if (f.priority != Priority::overview || r.tiles.empty())
      out.push_back(&f);
  }
  std::ranges::stable_sort(
      out, [](const Finding* a, const Finding* b) { return a->priority > b->priority; });
  return out;
}

}  // namespace moe::drawing
