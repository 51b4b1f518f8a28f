#include "analysis/compare/origin.h"

#include <algorithm>

#include "lib/core/text.h"

namespace moe {
namespace {

// Every set of weights that the trace names, its own first, then back to the oldest.
std::vector<std::string> weights_of(const TraceHeader& h) {
  std::vector<std::string> out = split(h.lineage, ' ');
  out.push_back(h.run_id);
  out.push_back(h.weights_xxh3);
  std::erase(out, "");
  std::ranges::reverse(out);
  return out;
}

// The youngest that both name; empty: none.
std::string common_weights(const TraceHeader& a, const TraceHeader& b) {
  const auto theirs = weights_of(b);
  for (const std::string& hash : weights_of(a)) {
    if (std::ranges::find(theirs, hash) != theirs.end())
      return hash;
  }
  return "";
}

std::string name_of(const TraceHeader& h) {
  if (!h.run_id.empty())
    return concat("run ", h.run_id);
  return h.weights_xxh3.empty() ? "unknown" : concat("weights ", h.weights_xxh3);
}

}  // namespace

Kinship kinship(const TraceHeader& a, const TraceHeader& b) {
  if (!a.weights_xxh3.empty() && a.weights_xxh3 == b.weights_xxh3)
    return Kinship::same_weights;
  if (!common_weights(a, b).empty())
    return Kinship::related;
  return weights_of(a).empty() || weights_of(b).empty() ? Kinship::unknown : Kinship::strangers;
}

std::string kinship_text(const TraceHeader& a, const TraceHeader& b) {
  switch (kinship(a, b)) {
    case Kinship::same_weights:
      return concat("the same weights (", a.weights_xxh3, ")");
    case Kinship::related:
      return concat("both go back to the weights ", common_weights(a, b));
    case Kinship::strangers:
      return concat("different trainings: ", name_of(a), " and ", name_of(b));
    case Kinship::unknown:
      break;
  }
  return "not recorded";
}

}  // namespace moe
