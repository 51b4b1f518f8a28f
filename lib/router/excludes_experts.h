// Experts that have weight 0 and do not count where weights are normalised (equations.md 2.15).
#pragma once
#include <cstdint>
#include <vector>

namespace moe {

class Router;

class ExcludesExperts {
 public:
  virtual ~ExcludesExperts() = default;
  virtual void exclude(const std::vector<std::uint8_t>& experts /*(E) 1 = excluded*/) = 0;
};

// Throws Error(usage) where the router cannot exclude any.
void exclude_experts(Router&, const std::vector<std::uint8_t>& experts /*(E)*/);

}  // namespace moe
