// Who takes how much, in a few lines of a terminal.
#pragma once
#include "analysis/report/terminal.h"

namespace moe::drawing {

// The first map of the report that is coloured around chance, in at most 16 rows: every cell its
// ratio to the chance value, in steps that are even in ratio. Too many layers or experts to stand:
// rows are neighbouring layers together, and a row's experts are sorted by what they take, so that
// neighbours can be averaged without hiding the busy and the idle. Nothing where no map asks for
// it.
Lines brief_map(const Terminal&, const Report&);

}  // namespace moe::drawing
