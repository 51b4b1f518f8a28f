#include "lib/router/router.h"

#include "lib/core/error.h"

namespace moe {

#define ROUTER(name, about, examples) MakeRouter make_##name##_router;
#include "lib/router/routers.def"
#undef ROUTER

const Registry<MakeRouter>& routers() {
  static const Registry<MakeRouter> all("router", {
#define ROUTER(name, about, examples) {#name, about, examples, make_##name##_router},
#include "lib/router/routers.def"
#undef ROUTER
                                                  });
  return all;
}

std::unique_ptr<Router> make_router(const std::string& text, int experts, std::string& resolved) {
  Spec spec(text);
  auto made = routers().at(spec.name()).make(spec, experts);
  spec.done();
  if (made->choices() > experts) {
    throw Error(Exit::usage, concat(spec.name(), ": k=", made->choices(), " is more than the ",
                                    experts, " experts"))
        .hint(concat("k=", experts, " or less, or --experts ", made->choices(), " or more"));
  }
  resolved = spec.resolved();
  return made;
}
std::unique_ptr<Router> make_router(const std::string& text, int experts) {
  std::string resolved;
  return make_router(text, experts, resolved);
}

}  // namespace moe
