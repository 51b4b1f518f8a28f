// Rotation of queries and keys by the place of their patch: half of the pairs of a head turn by one
// axis of the picture, half by the other, both with the frequencies theta^(-4i/d). One call of the
// backend's rotation an axis, with frequency 0 for the pairs of the other.
#pragma once
#include <span>
#include <vector>

#include "lib/backend/backend.h"
#include "lib/signal/patches.h"

namespace moe {

// halves: pairs (j, j + d/2), by row first (Qwen, ERNIE); neighbours: pairs (2j, 2j+1), by column
// first, counted from 1 (Llama 4); alternating: neighbours, column and row in turn (Kimi).
enum class RotationRule { halves, neighbours, alternating };

struct PatchAngles {
  int head_dim = 4;
  bool neighbours = false;
  // of two axes
  std::vector<double> frequency[2];  // (d/2), 0 for pairs that turn by the other
  std::vector<int> position[2];      // (T)
};
// Throws Error(input) where a head is not a multiple of 4.
PatchAngles patch_angles(RotationRule, std::span<const PatchPlace>, int head_dim, double theta);

template <class S>
class PatchRotation {
 public:
  PatchRotation(Backend<S>&, PatchAngles);
  void turn(Backend<S>&, View<S> x /*(T,heads*d)*/) const;  // in place

 private:
  PatchAngles angles_;
  Array<int> position_[2];
};

extern template class PatchRotation<float>;
extern template class PatchRotation<double>;

}  // namespace moe
