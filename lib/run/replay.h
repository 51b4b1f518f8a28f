// Routing replay: a model whose router is `replay` gets the routes of its trace. The trace is read
// here, because routers know no files.
#pragma once
#include "lib/model/decoder.h"

namespace moe {

// "replay:trace=a.h5" for a checkpoint whose router is `own`: the same with router={own} where none
// is given. Other specs stay.
std::string with_inner(const std::string& spec, const std::string& own);

// Reads the trace that the routers name and hands each MoE layer its rows. Throws Error(input) in a
// sentence where layers, experts or choices differ. Does nothing for other routers.
void attach_replay(Decoder<float>&);

}  // namespace moe
