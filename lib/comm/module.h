// What a module of lib/comm/modules exports: one function, which makes its transport. Modules are
// opened while the program runs, so that it can do without the libraries that they need.
#pragma once
#include "lib/core/comm.h"

namespace moe {

inline constexpr const char* open_module_name = "moe_open_transport";
// Null where there is none. Never throws.
using OpenModule = Transport*();

}  // namespace moe
