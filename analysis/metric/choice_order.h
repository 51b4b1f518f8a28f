// Whether the first of a token's choices is the one that its router ranked first. Where a trace
// lists choices by expert id, figures of first choices would speak of low ids, and random routing
// would look like a preference.
#pragma once
#include <string>

#include "analysis/metric/source.h"

namespace moe {

enum class ChoiceOrder {
  ranked,  // by the router's key, or by weight; or one choice a token
  listed,  // the trace promises none, and its rows show none by id
  by_id,   // stated, or shown by the rows
};

// Where the trace states none, looks at its first rows.
ChoiceOrder choice_order(const TraceSource&);

// What a report says of it; empty where choices are ranked.
std::string remark_on(ChoiceOrder);

}  // namespace moe
