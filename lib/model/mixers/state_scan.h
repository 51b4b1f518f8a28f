// The general scan from the states of a mixer, and back.
#pragma once
#include "lib/model/mixers/host_side.h"
#include "lib/model/recurrent.h"

namespace moe {

// A part of a state or of its gradient, or null.
template <class S>
StatePart<S>* part_of(RecurrentState<S>* all, std::size_t i) {
  return all ? &all->part[i] : nullptr;
}

// Sets out. Starts from the states of `part`, where given, brings them up to date and returns what
// they were.
template <class S>
Array<S> scan_from(const HostSide<S>& side, ScanInputs<S> in, const ScanShape& shape,
                   StatePart<S>* part, View<S> out) {
  if (!part) {
    side.scans().scan(in, shape, {}, out);
    return {};
  }
  Array<S> before = std::move(part->numbers);
  part->numbers = side.array(before.rows(), before.cols());
  in.initial = before.view();
  side.scans().scan(in, shape, part->numbers.view(), out);
  return before;
}
// `before` is what scan_from returned. `gradient`, where given, holds that by the states after and
// is set to that by the states before.
template <class S>
void scan_back(const HostSide<S>& side, ScanInputs<S> in, const ScanShape& shape,
               const Array<S>& before, View<const S> dout, StatePart<S>* gradient,
               ScanGradients<S> to) {
  in.initial = before.view();
  Array<S> dlast;
  if (gradient) {
    dlast = std::move(gradient->numbers);
    gradient->numbers = side.array(dlast.rows(), dlast.cols());
    to.initial = gradient->numbers.view();
  }
  side.scans().scan_backward(in, shape, dout, dlast.view(), to);
}

}  // namespace moe
