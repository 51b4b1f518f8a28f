// A verb: it adds its options, and returns what to run once they are parsed. The int is the exit
// code: 0 done, 1 a check failed. Trouble is thrown as Error; only apps/main.cpp catches.
#pragma once
#include <functional>
#include "apps/command_line.h"

#include "lib/core/registry.h"

namespace moe {

using Run = std::function<int()>;
using Command = Run(CommandLine&);
const Registry<Command>& commands();  // apps/commands.def

}  // namespace moe
