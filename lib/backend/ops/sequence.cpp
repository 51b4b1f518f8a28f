#include "lib/backend/ops/sequence.h"

#include "lib/backend/delegate.h"

namespace moe {

template <class S>
void SequenceOps<S>::causal_conv(View<const S> x, View<const S> w, View<const S> bias,
                                 std::span<const Index> start, View<const S> before, View<S> y) {
  if (this->delegated(Operation::causal_conv, &SequenceOps::causal_conv, x, w, bias, start, before,
                      y)) {
    return;
  }
  const Index kept = w.cols - 1;  // rows before t that y_t reads
  for (std::size_t q = 0; q + 1 < start.size(); ++q) {
    for (Index t = start[q]; t < start[q + 1]; ++t) {
      for (Index h = 0; h < x.cols; ++h) {
        double sum = bias.empty() ? 0.0 : double(bias(0, h));
        for (Index j = 0; j < w.cols; ++j) {
          const Index row = t - kept + j;
          if (row >= start[q])
            sum += double(w(h, j)) * double(x(row, h));
          else if (!before.empty())
            sum += double(w(h, j)) * double(before(Index(q + 1) * kept + row - start[q], h));
        }
        y(t, h) = S(sum);
      }
    }
  }
}

namespace {
// dx_t = sum_j w_j * dy_(t+K-1-j), as far as the sequence goes.
template <class S>
void conv_dx(View<const S> dy, View<const S> w, std::span<const Index> start, View<S> dx) {
  for (std::size_t q = 0; q + 1 < start.size(); ++q) {
    for (Index t = start[q]; t < start[q + 1]; ++t) {
      for (Index h = 0; h < dx.cols; ++h) {
        double sum = 0;
        for (Index j = 0; j < w.cols; ++j) {
          if (const Index row = t + w.cols - 1 - j; row < start[q + 1])
            sum += double(w(h, j)) * double(dy(row, h));
        }
        dx(t, h) = S(sum);
      }
    }
  }
}
// dw_j += sum_t dy_t * x_(t-K+1+j)
template <class S>
void conv_dw(View<const S> dy, View<const S> x, std::span<const Index> start, View<S> dw) {
  for (Index h = 0; h < dw.rows; ++h) {
    for (Index j = 0; j < dw.cols; ++j) {
      double sum = 0;
      for (std::size_t q = 0; q + 1 < start.size(); ++q) {
        for (Index t = start[q]; t < start[q + 1]; ++t) {
          if (const Index row = t - dw.cols + 1 + j; row >= start[q])
            sum += double(dy(t, h)) * double(x(row, h));
        }
      }
      dw(h, j) += S(sum);
    }
  }
}
}  // namespace

template <class S>
void SequenceOps<S>::causal_conv_backward(View<const S> dy, View<const S> x, View<const S> w,
                                          std::span<const Index> start, View<S> dx, View<S> dw,
                                          View<S> dbias) {
  if (this->delegated(Operation::causal_conv_backward, &SequenceOps::causal_conv_backward, dy, x, w,
                      start, dx, dw, dbias)) {
    return;
  }
  conv_dx(dy, w, start, dx);
  if (!dw.empty())
    conv_dw(dy, x, start, dw);
  for (Index h = 0; h < dbias.cols && !dbias.empty(); ++h) {
    double sum = 0;
    for (Index t = start.front(); t < start.back(); ++t)
      sum += double(dy(t, h));
    dbias(0, h) += S(sum);
  }
}

template class SequenceOps<float>;
template class SequenceOps<double>;

}  // namespace moe
