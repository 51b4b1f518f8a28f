#include "lib/run/router_warnings.h"

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/model/config.h"
#include "lib/router/facts.h"

namespace moe {

bool looks_ahead(const ModelConfig& c) {
  return c.moe_layers() > 0 && !router_facts(c.moe.router, c.moe.experts).causal;
}

std::vector<std::string> router_warnings(const ModelConfig& c) {
  if (!looks_ahead(c))
    return {};
  return {concat("the router ", c.moe.router,
                 " is not causal: a token's experts depend on later tokens of the batch, so the "
                 "loss looks ahead and text cannot be generated as it was evaluated")};
}

std::vector<std::string> router_training_warnings(const ModelConfig& c) {
  if (c.moe_layers() == 0)
    return {};
  const RouterFacts router = router_facts(c.moe.router, c.moe.experts);
  std::vector<std::string> out;
  if (router.causal && !router.causal_in_training) {
    out.push_back(concat("the router ", c.moe.router,
                         " balances whole batches in training, where its loss looks ahead; in "
                         "evaluation each token chooses by itself"));
  }
  if (router.k == 1 && router.normalised) {
    out.push_back(
        concat("the router ", c.moe.router,
               " gives a token's only expert the weight 1, so the router gets no gradient "
               "from the loss of the text; norm=0 weighs by the score, as Switch does"));
  }
  return out;
}

void refuse_without_effect(const ModelConfig& c) {
  for (const std::string& spec : c.moe_layers() > 0 ? c.moe.balance : std::vector<std::string>{}) {
    if (make_balancer(spec)->counts_whole_step()) {
      throw Error(Exit::usage, concat("the balancer ", spec,
                                      " is over the whole step, and training counts each "
                                      "micro-batch alone: it would equal scope=batch"))
          .hint("scope=batch; with --accumulate 1 a step is one batch");
    }
  }
}

}  // namespace moe
