// Options and routers under the names that earlier versions gave them: they keep working, and a
// note on stderr says the name of today.
#pragma once
#include <string>

#include "apps/command_line.h"

namespace moe {

// For options that take a router's spec.
Check current_router_names();
// Lets an option be given under its former name ("--truth") as well, which --help does not show.
void add_former_name(CommandLine& cli, const std::string& former, const Option& now,
                     std::string& value);

}  // namespace moe
