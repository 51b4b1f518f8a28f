// A router that looks the experts of a token up by its id. The table is fixed: published files hold
// it as a tensor beside the parameters, and nothing moves it. It is part of Router::state().
#pragma once
#include <memory>
#include <span>
#include <string>

namespace moe {

class Router;

class TokenTable {
 public:
  virtual ~TokenTable() = default;
  // Fills the table of V ids by the router's own rule.
  virtual void set_vocabulary(int words) = 0;
  // (V,k) ids of experts, empty before the vocabulary is known. Whoever writes distinct ids below
  // the number of experts into each row has the router follow them.
  virtual std::span<double> table() = 0;
};

// Distinct experts for a token id, drawn from `seed`: a function of the two.
void draw_experts(std::uint64_t seed, int id, int experts, std::span<int> out);

// The router of a layer that looks experts up and weighs them as `router` would have, by its
// scores. A correction bias of that one, which only moves choices, is gone.
std::string table_router(const std::string& router);

}  // namespace moe
