#include "lib/tower/rotation.h"

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/signal/positions.h"

namespace moe {

PatchAngles patch_angles(RotationRule rule, std::span<const PatchPlace> places, int head_dim,
                         double theta) {
  if (head_dim < 4 || head_dim % 4 != 0) {
    throw Error(Exit::input, concat("heads of ", head_dim,
                                    " numbers do not turn by two axes: a multiple of 4 does"));
  }
  const std::vector<double> quarter = rotary_frequencies(head_dim / 2, theta);
  std::vector<double> all;
  std::vector<int> axes;
  for (int j = 0; j < head_dim / 2; ++j) {
    const bool in_turn = rule == RotationRule::alternating;
    const int half = head_dim / 4;
    all.push_back(quarter[std::size_t(in_turn ? j / 2 : j % half)]);
    axes.push_back(in_turn ? j % 2 : j / half);
  }
  PatchAngles out;
  out.head_dim = head_dim;
  out.neighbours = rule != RotationRule::halves;
  for (const int axis : {0, 1})
    out.frequency[axis] = frequencies_of(all, axes, axis);
  const bool columns_first = rule != RotationRule::halves;
  const int from = rule == RotationRule::neighbours ? 1 : 0;
  for (const PatchPlace& p : places) {
    out.position[0].push_back((columns_first ? p.column : p.row) + from);
    out.position[1].push_back((columns_first ? p.row : p.column) + from);
  }
  return out;
}

template <class S>
PatchRotation<S>::PatchRotation(Backend<S>& b, PatchAngles angles) : angles_(std::move(angles)) {
  for (const int axis : {0, 1}) {
    const std::vector<int>& p = angles_.position[axis];
    position_[axis] = Array<int>(b, View<const int>{p.data(), 1, Index(p.size())});
  }
}

template <class S>
void PatchRotation<S>::turn(Backend<S>& b, View<S> x) const {
  for (const int axis : {0, 1}) {
    b.rope(x,
           {.head_dim = angles_.head_dim,
            .interleaved = angles_.neighbours,
            .frequency = angles_.frequency[axis]},
           position_[axis].view(), false);
  }
}

template class PatchRotation<float>;
template class PatchRotation<double>;

}  // namespace moe
