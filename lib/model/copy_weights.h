// What two models have in common, copied from one to the other.
#pragma once
#include "lib/model/decoder.h"

namespace moe {

// Throws Error(usage) where the shapes differ.
void copy_parameter(const Parameter<float>& from, Parameter<float>& to);
// Every parameter that both models have, by name, and the state of routers; throws Error(usage)
// naming the parameter where `to` has one that `from` has not, or of another shape.
void copy_weights(Decoder<float>& from, Decoder<float>& to);

}  // namespace moe
