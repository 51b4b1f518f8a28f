// What a router is, in numbers and yes or no: what traces, training, edits, published families and
// balancers want to know of it, so that nobody asks for its name. tests/layer/facts_test.cpp holds
// every router of the registry to what it says here.
#pragma once
#include <string>

namespace moe {

// The function of plain products W x whose k largest values, bias and groups aside, are a token's
// choices. Any other rule is `other`, and so are cosines and routers without scores.
enum class ScoreFunction { softmax, sigmoid, sqrt_softplus, other };

struct RouterFacts {
  int k = 0;  // K: columns of Routing::expert, the most choices that a token can have
  // every token chooses k experts, as the router's user says by k=; else the rule itself, or a
  // token, decides how many
  bool k_is_option = false;
  ScoreFunction score = ScoreFunction::other;

  bool normalised = false;      // the weights of a token's choices add up to `scale`, but for eps
  bool norm_is_option = false;  // its user decides that by norm=; a trace states it only then
  double scale = 1;             // factor of every weight
  double eps = 1e-20;           // added to the sum that divides the weights, where it does
  double least = 0;             // and what it is at least

  // beta of equations.md 2.1-2.3 moves the selection: Router::correction_bias() is not empty
  bool bias = false;
  bool bias_on_logit = false;  // added to the logit; else to the score

  int groups = 1;       // equal runs of expert ids, from which the choice is made
  int topk_groups = 1;  // groups that are left to choose from
  bool every_group =
      false;              // instead each group gives its k/groups best; then topk_groups = groups
  bool top2_sum = false;  // a group ranks by the sum of its two best keys; else by its best
  int levels = 0;         // of a tree of expert ids that levels= describes; 0 = no tree

  bool causal = true;              // no token's routing depends on later tokens
  bool causal_in_training = true;  // nor in training, where some balance whole batches
  bool limits_load = false;        // loads are bounded already: no capacity rule fits
  bool may_drop = false;           // drops choices by itself, before any capacity rule
  bool learns_noise = false;       // in training scores[1] is the size of noise, before softplus
  bool takes_routes = false;       // chooses what GivenNoise::expert says, weighed by its own rule
  bool needs_recorded_routes = false;  // see ReplaysRoutes
  bool needs_token_counts = false;     // see LearnsFromText
};

// Of the router that `spec` names; throws as make_router().
RouterFacts router_facts(const std::string& spec, int experts);

// The spec of the same router with k experts a token in place of its own number. Throws
// Error(usage) where its rule has no such number, or where k is none that it can have.
std::string with_k(const std::string& spec, int k, int experts);

}  // namespace moe
