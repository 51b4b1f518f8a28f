// Mamba-2 under the keys of the classes that publish it.
#pragma once
#include <string>

#include "lib/family/family.h"

namespace moe {

struct Mamba2Keys {
  const char *heads, *head_dim, *groups, *state, *kernel, *conv_bias, *proj_bias;
};
struct StepBounds {
  double least = 0, most = 0;  // most 0 = none
};

// time_step_limit, [least, most]; absent: none. Throws Error(input) where it is no such pair.
StepBounds step_bounds(const ConfigReader&);
// The spec of a layer's mixer. head_dim is given where a class derives it.
std::string mamba2_spec(const ConfigReader&, const Mamba2Keys&, int head_dim, const StepBounds&);
// Back, from the first layer that has one; returns its bounds.
StepBounds write_mamba2(const ModelConfig&, Json&, const Mamba2Keys&);
// time_step_limit where there are any
void write_step_bounds(const StepBounds&, Json&);

}  // namespace moe
