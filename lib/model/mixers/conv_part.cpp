#include "lib/model/mixers/conv_part.h"

#include <algorithm>

#include "lib/model/mixers/row_math.h"

namespace moe {
namespace {

// `kept` rows of each sequence of `first` (zeros where it is empty), then its rows of `then`.
template <class S>
void join(std::span<const Index> start, Index kept, View<const S> first, View<const S> then,
          View<S> out) {
  for (Index q = 0; q + 1 < Index(start.size()); ++q) {
    const Index from = start[std::size_t(q)];
    const Index rows = start[std::size_t(q) + 1] - from;
    const View<S> to = out.slice(from + q * kept, kept + rows);
    if (first.empty())
      std::ranges::fill(to.slice(0, kept).flat(), S(0));
    else
      std::ranges::copy(first.slice(q * kept, kept).flat(), to.data);
    std::ranges::copy(then.slice(from, rows).flat(), to.slice(kept, rows).data);
  }
}
std::vector<Index> longer(std::span<const Index> start, Index kept) {
  std::vector<Index> out(start.begin(), start.end());
  for (std::size_t q = 0; q < out.size(); ++q)
    out[q] += Index(q) * kept;
  return out;
}
// The last `kept` rows of each sequence of joined rows.
template <class S>
View<S> tail(View<S> joined, std::span<const Index> start, Index kept, Index q) {
  return joined.slice(start[std::size_t(q) + 1] + q * kept, kept);
}

}  // namespace

template <class S>
HostNumbers<S> ConvPart<S>::taps() const {
  if (w.size() == 1)
    return side.read(*w[0]);
  HostNumbers<S> out{side.array(channels(), history() + 1), {}};
  S* to = out.copy.view().data;
  for (const Parameter<S>* p : w)
    to = std::ranges::copy(side.read(*p).view.flat(), to).out;
  out.view = out.copy.view();
  return out;
}

template <class S>
Array<S> ConvPart<S>::forward(const Batch& batch, View<const S> x, View<S> y,
                              StatePart<S>* state) const {
  const HostNumbers<S> kernel = taps();
  const HostNumbers<S> shift = bias ? side.read(*bias) : HostNumbers<S>{};
  View<const S> before;
  if (state)
    before = std::as_const(state->numbers).view();
  side.host().causal_conv(x, kernel.view, shift.view, batch.start, before, y);
  if (!state)
    return {};
  const Index kept = history();
  Array<S> all = side.array(x.rows + before.rows, x.cols);
  join(std::span<const Index>(batch.start), kept, before, x, all.view());
  Array<S> next = side.array(before.rows, x.cols);
  for (Index q = 0; q < batch.sequences() && kept > 0; ++q) {
    std::ranges::copy(tail(all.view(), batch.start, kept, q).flat(),
                      next.view().slice(q * kept, kept).data);
  }
  std::swap(state->numbers, next);
  return next;
}

template <class S>
void ConvPart<S>::backward(const Batch& batch, View<const S> dy, View<const S> x,
                           const Array<S>& before, View<S> dx, StatePart<S>* gradient) const {
  const HostNumbers<S> kernel = taps();
  Array<S> dw, dbias;
  const bool trained = std::ranges::any_of(w, [](Parameter<S>* p) { return !p->grad().empty(); });
  if (trained)
    dw = side.zeros(kernel.view.rows, kernel.view.cols);
  if (bias && !bias->grad().empty())
    dbias = side.zeros(1, channels());
  if (gradient) {
    backward_from(batch, dy, x, kernel.view, before, dx, dw.view(), dbias.view(), *gradient);
  } else {
    side.host().causal_conv_backward(dy, x, kernel.view, batch.start, dx, dw.view(), dbias.view());
  }
  Index row = 0;
  for (Parameter<S>* p : w) {
    const Index rows = p->value().rows;
    if (!p->grad().empty())
      side.accumulate(dw.view().slice(row, rows), *p);
    row += rows;
  }
  if (!dbias.empty())
    side.accumulate(dbias.view(), *bias);
}

// The rows kept come first, as rows whose outputs nobody reads.
template <class S>
void ConvPart<S>::backward_from(const Batch& batch, View<const S> dy, View<const S> x,
                                View<const S> kernel, const Array<S>& before, View<S> dx,
                                View<S> dw, View<S> dbias, StatePart<S>& gradient) const {
  const Index kept = history();
  const std::span<const Index> start = batch.start;
  Array<S> rows = side.array(x.rows + before.rows(), x.cols);
  Array<S> drows = side.array(rows.rows(), x.cols);
  Array<S> by = side.array(rows.rows(), x.cols);
  join(start, kept, before.view(), x, rows.view());
  join(start, kept, View<const S>{}, dy, by.view());
  side.host().causal_conv_backward(by.view(), rows.view(), kernel, longer(start, kept),
                                   drows.view(), dw, dbias);
  for (Index q = 0; q < batch.sequences(); ++q) {
    const Index from = start[std::size_t(q)];
    const Index count = start[std::size_t(q) + 1] - from;
    const View<S> of_kept = gradient.numbers.view().slice(q * kept, kept);
    const View<S> last = tail(drows.view(), start, kept, q);
    row_math::add(of_kept.data, S(1), last.data, last.size());
    const View<S> all = drows.view().slice(from + q * kept, kept + count);
    std::ranges::copy(all.slice(0, kept).flat(), of_kept.data);
    std::ranges::copy(all.slice(kept, count).flat(), dx.slice(from, count).data);
  }
}

template struct ConvPart<float>;
template struct ConvPart<double>;

}  // namespace moe
