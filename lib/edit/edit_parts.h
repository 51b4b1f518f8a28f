// What the edits of edit.cpp and upcycle.cpp share.
#pragma once
#include "lib/model/decoder.h"

namespace moe {

// throws Error(usage) where the shapes differ
void copy_parameter(const Parameter<float>& from, Parameter<float>& to);

}  // namespace moe
