// Several traces in one report: two over the same text, token by token; any number side by side,
// with the differences of their headline figures. Traces over the same text are resampled together,
// so what the text contributes falls out of a difference.
#pragma once
#include "analysis/metric/agreement.h"

namespace moe {

struct NamedTrace {
  std::string name;
  const TraceSource* trace;
  std::string corpus;  // hash of the token ids; empty = not known
};

// Why the two are not over the same text with the same layers, in a sentence; empty where they are.
std::string not_the_same_text(const NamedTrace& a, const NamedTrace& b);

// Expert ids of two trainings mean nothing to each other: those are matched first.
enum class Experts {
  matched_where_foreign,  // or where it is not known whether the traces share an origin
  by_id                   // as they are, whatever the origin
};

// How far a's routing is that of the reference b, and the headlines of both. Throws Error(input)
// with the reason where they are not over the same text.
Report compare_against(const NamedTrace& a, const NamedTrace& b, const AnalyzeOptions&,
                       Experts = Experts::matched_where_foreign);

// Headline metrics, a column a trace, and how far each differs from the first.
Report side_by_side(const std::vector<NamedTrace>&, const AnalyzeOptions&);
void add_side_by_side(Report&, const std::vector<NamedTrace>&, const AnalyzeOptions&);

struct Headline {
  // column: the end of its name, where a definition has several ("1.25"); empty = the first
  std::string_view id, name, column;
};
std::span<const Headline> headlines();

}  // namespace moe
