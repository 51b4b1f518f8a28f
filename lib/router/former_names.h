// Routers and options that had another name in an earlier version. Specs that were typed or stored
// then are read as before; programs can say what the name is now.
#pragma once
#include <string>
#include <vector>

namespace moe {

class Spec;

struct FormerName {
  std::string former, now;
};

// Rewrites a router's spec to the names of today; returns what was renamed, in the order of the
// table. Throws Error(usage) where an option is given under both of its names.
std::vector<FormerName> use_current_names(Spec&);

}  // namespace moe
