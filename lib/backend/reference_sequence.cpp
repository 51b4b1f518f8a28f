// What runs along a sequence, by definition, and how a backend that has no fast way of its own gets
// it: the definition on host copies.
#include "lib/backend/reference.h"

namespace moe {

template <class S>
void Reference<S>::causal_conv(View<const S> x, View<const S> w, View<const S> bias,
                               std::span<const Index> start, View<const S> before, View<S> y) {
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
void Reference<S>::causal_conv_backward(View<const S> dy, View<const S> x, View<const S> w,
                                        std::span<const Index> start, View<S> dx, View<S> dw,
                                        View<S> dbias) {
  conv_dx(dy, w, start, dx);
  if (!dw.empty())
    conv_dw(dy, x, start, dw);
  if (!dbias.empty())
    this->bias_grad(dy, dbias);
}

// ---- on host copies --------------------------------------------------------------------------

namespace {
template <class S>
Matrix<S> fetched(Memory& memory, View<const S> v) {
  Matrix<S> host(v.rows, v.cols);
  if (!v.empty())
    memory.to_host(v.data, host.data(), std::size_t(v.size()) * sizeof(S));
  return host;
}
template <class S>
void put_back(Memory& memory, const Matrix<S>& host, View<S> v) {
  if (!v.empty())
    memory.to_device(host.data(), v.data, std::size_t(v.size()) * sizeof(S));
}
}  // namespace

template <class S>
void Backend<S>::causal_conv(View<const S> x, View<const S> w, View<const S> bias,
                             std::span<const Index> start, View<const S> before, View<S> y) {
  const Matrix<S> rows = fetched(*this, x);
  const Matrix<S> taps = fetched(*this, w);
  const Matrix<S> offset = fetched(*this, bias);
  const Matrix<S> earlier = fetched(*this, before);
  Matrix<S> out = fetched(*this, View<const S>(y));
  make_reference<S>()->causal_conv(rows.view(), taps.view(), offset.view(), start, earlier.view(),
                                   out.view());
  put_back(*this, out, y);
}
template <class S>
void Backend<S>::causal_conv_backward(View<const S> dy, View<const S> x, View<const S> w,
                                      std::span<const Index> start, View<S> dx, View<S> dw,
                                      View<S> dbias) {
  const Matrix<S> gradient = fetched(*this, dy);
  const Matrix<S> rows = fetched(*this, x);
  const Matrix<S> taps = fetched(*this, w);
  Matrix<S> by_rows = fetched(*this, View<const S>(dx));
  Matrix<S> by_taps = fetched(*this, View<const S>(dw));
  Matrix<S> by_bias = fetched(*this, View<const S>(dbias));
  make_reference<S>()->causal_conv_backward(gradient.view(), rows.view(), taps.view(), start,
                                            by_rows.view(), by_taps.view(), by_bias.view());
  put_back(*this, by_rows, dx);
  put_back(*this, by_taps, dw);
  put_back(*this, by_bias, dbias);
}

template void Backend<float>::causal_conv(View<const float>, View<const float>, View<const float>,
                                          std::span<const Index>, View<const float>, View<float>);
template void Backend<double>::causal_conv(View<const double>, View<const double>,
                                           View<const double>, std::span<const Index>,
                                           View<const double>, View<double>);
template void Backend<float>::causal_conv_backward(View<const float>, View<const float>,
                                                   View<const float>, std::span<const Index>,
                                                   View<float>, View<float>, View<float>);
template void Backend<double>::causal_conv_backward(View<const double>, View<const double>,
                                                    View<const double>, std::span<const Index>,
                                                    View<double>, View<double>, View<double>);
template class Reference<float>;
template class Reference<double>;

}  // namespace moe
