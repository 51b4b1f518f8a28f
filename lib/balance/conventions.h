// "The balance loss" of one batch as the training systems define it: the same counts and
// probabilities, put together in each system's way. The same coefficient means up to layers x k
// times as much in one as in another; docs/routers.md.
#pragma once
#include <string>
#include <vector>

#include "lib/core/matrix.h"

namespace moe {

struct RoutedBatch {
  std::vector<Matrix<double>> logits;  // (L) of (T,E)
  std::vector<Index> start;            // (Q+1) first row of each sequence
  int k = 2;                           // choices: the k largest logits
};

struct Convention {
  std::string name, systems, formula;
  double value = 0;       // of the batch, without coefficient: all layers as the system adds them
  double at_balance = 0;  // where every expert gets the same
};

// The first one is ours: switch, summed over layers. Throws Error(usage) where the batch is no
// batch (no layers, k > E).
std::vector<Convention> balance_conventions(const RoutedBatch&);

}  // namespace moe
