#include "lib/core/registry.h"

#include "lib/core/error.h"

namespace moe {

void no_such(std::string_view kind, std::string_view name, const std::vector<std::string>& names) {
  const std::string near = nearest(name, names);
  throw Error(Exit::usage, concat("no ", kind, " named '", name, "'"))
      .hint(concat(near.empty() ? "" : concat("'", near, "'; "), "there is ", join(names)));
}

}  // namespace moe
