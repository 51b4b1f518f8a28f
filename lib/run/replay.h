// Routing replay: a model whose router is `replay` gets the routes of its trace. The trace is read
// here, because routers know no files.
#pragma once
#include <string>

namespace moe {

template <class S>
class Decoder;

// Reads the trace that the routers name and hands each MoE layer its rows. Throws Error(input) in a
// sentence where layers, experts or choices differ. Does nothing for other routers.
void attach_replay(Decoder<float>&);

}  // namespace moe
