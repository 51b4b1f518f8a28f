// A model whose experts are means of another's: everything that belongs to an expert (bodies,
// router rows, selection bias) goes with it. What adding, removing and merging are made of.
#pragma once
#include <vector>

#include "lib/edit/edit.h"

namespace moe {

// A new expert, the mean of old ones.
struct NewExpert {
  std::vector<int> of;
  bool noisy = false;              // its matrices are disturbed
  std::vector<double> share = {};  // of each in the mean, 1 in all; empty = equal
  // Of each the hidden unit that stands at each place of the new expert; empty = as they stand.
  std::vector<std::vector<int>> unit = {};
};
using NewExperts = std::vector<std::vector<NewExpert>>;  // (MoE layers)(new E)

// As many in every layer. `noise`: of the root mean square of each matrix of a noisy expert. Throws
// Error(usage) where the router's meaning hangs on expert ids.
Edited regroup(Decoder<float>& old, const NewExperts&, double noise, std::uint64_t seed);
// Throws Error(usage) where the model is dense or its experts are not alike; `what` is to be done
// with them: "merge".
void need_experts(const Decoder<float>&, const char* what);
std::string numbers_text(const std::vector<int>&);  // "1, 3, 5"

}  // namespace moe
