// Largest differences between what a model gave and what its class gave.
#pragma once
#include <span>
#include <vector>

#include "lib/core/routing.h"
#include "lib/core/view.h"
#include "lib/run/golden_models.h"

namespace moe {

// Infinite where a number is not one, or where there are more of one than of the other.
template <class T>
double apart(std::span<const T> got, const std::vector<double>& want);

// Experts of each token as a set with their weights: published routers do not all order them. Adds
// to the result's choices, wrong choices and weights.
void compare_choices(const Routing&, const std::vector<double>& ids,
                     const std::vector<double>& weights, GoldenModelResult&);

}  // namespace moe
