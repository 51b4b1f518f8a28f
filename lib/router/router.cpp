#include "lib/router/router.h"

#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/router/excludes_experts.h"
#include "lib/router/former_names.h"

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
  use_current_names(spec);
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
RouterFacts router_facts(const std::string& spec, int experts) {
  return make_router(spec, experts)->facts();
}

std::string with_k(const std::string& text, int k, int experts) {
  Spec spec(text);
  use_current_names(spec);
  if (!router_facts(text, experts).k_is_option) {
    throw Error(Exit::usage, concat("the router ", spec.name(),
                                    " has no number of experts that every token chooses, so it "
                                    "cannot have another"))
        .hint("a model whose router chooses the k best");
  }
  if (k < 1 || k > experts) {
    throw Error(Exit::usage, concat("a token cannot choose ", k, " of ", experts, " experts"))
        .hint(concat("1 to ", experts));
  }
  spec.set("k", concat(k));
  make_router(spec.given_text(), experts);  // groups may not allow it
  return spec.given_text();
}

std::vector<State> Router::state() {
  if (correction_bias().empty())
    return {};
  return {{"correction_bias", correction_bias()}};
}

void exclude_experts(Router& router, const std::vector<std::uint8_t>& experts) {
  auto* excludes = capability<ExcludesExperts>(router);
  if (!excludes) {
    throw Error(Exit::usage,
                "zc_exclude_zero=1 changes the weights of the routers softmax and sigmoid, and "
                "this router has others")
        .hint("zc_exclude_zero=0");
  }
  excludes->exclude(experts);
}

}  // namespace moe
