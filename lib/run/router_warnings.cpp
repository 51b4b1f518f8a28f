#include "lib/run/router_warnings.h"

#include <algorithm>

#include "lib/balance/balancer.h"
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

bool counts_whole_step(const ModelConfig& c) {
  const auto whole = [](const std::string& spec) {
    return make_balancer(spec)->counts_whole_step();
  };
  return c.moe_layers() > 0 && std::ranges::any_of(c.moe.balance, whole);
}

std::vector<std::string> step_warnings(const ModelConfig& c, Index accumulate, Index lanes) {
  std::vector<std::string> out;
  if (!counts_whole_step(c))
    return out;
  if (accumulate == 1) {
    out.push_back(
        "scope=global is over the micro-batches of a step, and a step of this run has one: the "
        "balance loss equals that of scope=batch; --accumulate 4 --lanes 4 makes it one over four");
  } else if (accumulate > lanes) {
    out.push_back(concat("scope=global counts the micro-batches that a step has seen: with ",
                         accumulate, " in ", lanes, lanes == 1 ? " lane" : " lanes",
                         " a micro-batch misses those of its lane that come after it; --lanes ",
                         accumulate, " counts all, and holds all on the tape at once"));
  }
  return out;
}

}  // namespace moe
