#include "lib/model/streams.h"

#include <algorithm>
#include <cmath>

#include "lib/backend/row_products.h"
#include "lib/model/config.h"

namespace moe {
namespace {

double sigmoid(double v) {
  return 1 / (1 + std::exp(-v));
}

// The n numbers of a row or column of a matrix, so far apart.
struct Line {
  double* first;
  Index n, step;

  double& operator[](Index i) const {
    return first[i * step];
  }
  double sum() const {
    double all = 0;
    for (Index i = 0; i < n; ++i)
      all += (*this)[i];
    return all;
  }
};
Line row_of_matrix(double* m, Index n, Index i) {
  return {m + i * n, n, 1};
}
Line column_of_matrix(double* m, Index n, Index i) {
  return {m + i, n, n};
}

// One half of a round: all rows, or all columns, divided by their sums + eps.
template <class Lines>
void divide(double* m, Index n, double eps, const Lines& lines) {
  for (Index i = 0; i < n; ++i) {
    const Line line = lines(m, n, i);
    const double by = line.sum() + eps;
    for (Index j = 0; j < n; ++j)
      line[j] /= by;
  }
}
// before: the matrix that was divided; dm: gradient by the quotients in, by that matrix out
template <class Lines>
void divide_backward(double* before, double* dm, Index n, double eps, const Lines& lines) {
  for (Index i = 0; i < n; ++i) {
    const Line m = lines(before, n, i);
    const Line d = lines(dm, n, i);
    const double by = m.sum() + eps;
    double mean = 0;
    for (Index j = 0; j < n; ++j)
      mean += d[j] * m[j] / by;
    for (Index j = 0; j < n; ++j)
      d[j] = (d[j] - mean) / by;
  }
}

}  // namespace

void StreamWeights::balance(Index n, int rounds, double eps, bool keep) {
  const auto half = [&](const auto& lines) {
    if (keep)
      steps.insert(steps.end(), mix.begin(), mix.end());
    divide(mix.data(), n, eps, lines);
  };
  mix = soft;
  for (double& v : mix)
    v += eps;
  half(column_of_matrix);
  for (int r = 1; r < rounds; ++r) {
    half(row_of_matrix);
    half(column_of_matrix);
  }
}

template <class S>
HyperConnection<S>::HyperConnection(const ModelConfig& c, Backend<S>& b, const std::string& name,
                                    const std::string& published, bool reads_only)
    : config_(c),
      side_(b),
      n_(c.streams),
      hidden_(c.hidden),
      reads_only_(reads_only),
      published_(published) {
  const Index m = reads_only ? n_ : (2 + n_) * n_;
  weight_ = Parameter<S>(b, name + "weight", {m, n_ * hidden_});
  base_ = Parameter<S>(b, name + "base", {m}, ParameterKind::vector);
  scale_ = Parameter<S>(b, name + "scale", {reads_only ? 1 : 3}, ParameterKind::vector);
}

template <class S>
void HyperConnection<S>::collect(std::vector<ModelParameter<S>>& all) {
  all.push_back({.parameter = &weight_,
                 .start = matrix_start(config_, MatrixRole::other, weight_.dims().back()),
                 .published = published_ + "fn"});
  all.push_back({.parameter = &base_, .start = {}, .published = published_ + "base"});
  all.push_back({.parameter = &scale_, .start = {.value = 1}, .published = published_ + "scale"});
}

template <class S>
StreamWeights HyperConnection<S>::weights(const StreamTape<S>& t, Index row, View<const S> base,
                                          View<const S> scale) const {
  const S* z = row_of(t.z, row);
  const double rstd = double(t.rstd.view()(row, 0));
  const auto number = [&](Index i, Index part) {
    return double(z[i]) * rstd * double(scale.data[part]) + double(base.data[i]);
  };
  StreamWeights w;
  for (Index i = 0; i < n_; ++i)
    w.pre.push_back(sigmoid(number(i, 0)) + config_.stream_eps);
  for (Index i = 0; i < n_ && !reads_only_; ++i)
    w.post.push_back(2 * sigmoid(number(n_ + i, 1)));
  for (Index i = 0; i < n_ && !reads_only_; ++i) {
    double most = -INFINITY;
    double sum = 0;
    for (Index j = 0; j < n_; ++j)
      most = std::max(most, number(2 * n_ + i * n_ + j, 2));
    for (Index j = 0; j < n_; ++j) {
      w.soft.push_back(std::exp(number(2 * n_ + i * n_ + j, 2) - most));
      sum += w.soft.back();
    }
    for (Index j = 0; j < n_; ++j)
      w.soft[std::size_t(i * n_ + j)] /= sum;
  }
  return w;
}

template <class S>
void HyperConnection<S>::read(View<const S> x, StreamTape<S>& t) const {
  t.z = side_.product(x, weight_);
  t.rstd = side_.array(x.rows, 1);
  Array<S> read = side_.array(x.rows, hidden_);
  const HostNumbers<S> host = side_.read(x);
  const HostNumbers<S> base = side_.read(base_);
  const HostNumbers<S> scale = side_.read(scale_);
  for_rows(x.rows, [&](Index r) {
    const S* from = host.view.row(r).data();
    double squares = 0;
    for (Index i = 0; i < x.cols; ++i)
      squares += double(from[i]) * double(from[i]);
    t.rstd.view()(r, 0) = S(1 / std::sqrt(squares / double(x.cols) + config_.norm_eps));
    const StreamWeights w = weights(t, r, base.view, scale.view);
    S* to = row_of(read, r);
    std::fill(to, to + hidden_, S(0));
    for (Index s = 0; s < n_; ++s) {
      const S pre = S(w.pre[std::size_t(s)]);
      for (Index i = 0; i < hidden_; ++i)
        to[i] += pre * from[s * hidden_ + i];
    }
  });
  t.read = side_.placed(std::move(read));
}

template <class S>
void HyperConnection<S>::put_back(View<const S> x, const StreamTape<S>& t, View<S> y) const {
  const HostNumbers<S> host = side_.read(x);
  const HostNumbers<S> out = side_.read(t.out.view());
  const HostNumbers<S> base = side_.read(base_);
  const HostNumbers<S> scale = side_.read(scale_);
  Array<S> mixed = side_.array(y.rows, y.cols);
  for_rows(x.rows, [&](Index r) {
    StreamWeights w = weights(t, r, base.view, scale.view);
    w.balance(n_, config_.stream_rounds, config_.stream_eps, false);
    const S* from = host.view.row(r).data();
    const S* branch = out.view.row(r).data();
    for (Index j = 0; j < n_; ++j) {
      S* to = row_of(mixed, r) + j * hidden_;
      const S post = S(w.post[std::size_t(j)]);
      for (Index i = 0; i < hidden_; ++i)
        to[i] = post * branch[i];
      for (Index s = 0; s < n_; ++s) {
        const S share = S(w.mix[std::size_t(s * n_ + j)]);
        for (Index i = 0; i < hidden_; ++i)
          to[i] += share * from[s * hidden_ + i];
      }
    }
  });
  side_.set(mixed, y);
}

// dm: gradient by M in, by the softmax's numbers before their exponential out
template <class S>
void HyperConnection<S>::mixing_backward(const StreamWeights& w, std::vector<double>& dm) const {
  const std::size_t all = std::size_t(n_ * n_);
  std::vector<double> steps = w.steps;
  for (Index half = Index(steps.size() / all) - 1; half >= 0; --half) {
    double* before = steps.data() + std::size_t(half) * all;
    if (half % 2 == 0)
      divide_backward(before, dm.data(), n_, config_.stream_eps, column_of_matrix);
    else
      divide_backward(before, dm.data(), n_, config_.stream_eps, row_of_matrix);
  }
  for (Index i = 0; i < n_; ++i) {
    const double* soft = w.soft.data() + i * n_;
    double* d = dm.data() + i * n_;
    double mean = 0;
    for (Index j = 0; j < n_; ++j)
      mean += d[j] * soft[j];
    for (Index j = 0; j < n_; ++j)
      d[j] = soft[j] * (d[j] - mean);
  }
}

// Of one token: adds to dx and dout, sets the second and third part of dz.
template <class S>
void HyperConnection<S>::row_backward(const StreamWeights& w, const StreamRow<S>& row, S* dx,
                                      S* dout, S* dz) const {
  std::vector<double> dm(std::size_t(n_ * n_));
  for (Index j = 0; j < n_; ++j) {
    const S* arriving = row.dy + j * hidden_;
    const double post = w.post[std::size_t(j)];
    row_add(post, arriving, dout, hidden_);
    dz[n_ + j] = S(row_dot(arriving, row.out, hidden_) * post * (1 - post / 2));
    for (Index s = 0; s < n_; ++s) {
      row_add(w.mix[std::size_t(s * n_ + j)], arriving, dx + s * hidden_, hidden_);
      dm[std::size_t(s * n_ + j)] = row_dot(arriving, row.x + s * hidden_, hidden_);
    }
  }
  mixing_backward(w, dm);
  for (Index i = 0; i < n_ * n_; ++i)
    dz[2 * n_ + i] = S(dm[std::size_t(i)]);
}

template <class S>
void HyperConnection<S>::put_back_backward(View<const S> x, const StreamTape<S>& t, View<S> dy,
                                           View<S> dbranch, Array<S>& dz) const {
  const HostNumbers<S> host = side_.read(x);
  const HostNumbers<S> out = side_.read(t.out.view());
  const HostNumbers<S> arriving = side_.read(View<const S>(dy));
  const HostNumbers<S> base = side_.read(base_);
  const HostNumbers<S> scale = side_.read(scale_);
  Array<S> dx = side_.zeros(dy.rows, dy.cols);
  Array<S> dout = side_.zeros(dbranch.rows, dbranch.cols);
  dz = no_gradient(t);
  for_rows(x.rows, [&](Index r) {
    StreamWeights w = weights(t, r, base.view, scale.view);
    w.balance(n_, config_.stream_rounds, config_.stream_eps, true);
    row_backward(w, {host.view.row(r).data(), out.view.row(r).data(), arriving.view.row(r).data()},
                 row_of(dx, r), row_of(dout, r), row_of(dz, r));
  });
  side_.set(dx, dy);
  side_.set(dout, dbranch);
}

// Of one token: the first part of dz from the gradient by what was read, dx += what reaches the
// streams by that.
template <class S>
void HyperConnection<S>::pre_backward(const StreamWeights& w, const S* x, const S* dread, S* dz,
                                      S* dx) const {
  for (Index s = 0; s < n_; ++s) {
    const double pre = w.pre[std::size_t(s)] - config_.stream_eps;
    dz[s] = S(row_dot(dread, x + s * hidden_, hidden_) * pre * (1 - pre));
    row_add(w.pre[std::size_t(s)], dread, dx + s * hidden_, hidden_);
  }
}

// Of one token: dz becomes the gradient by z; sums of base and scale are added to; returns the
// gradient by the norm's factor.
template <class S>
double HyperConnection<S>::scale_backward(View<const S> scale, const S* z, double rstd, S* dz,
                                          S* sum) const {
  const Index m = weight_.dims()[0];
  double by_rstd = 0;
  for (Index i = 0; i < m; ++i) {
    const Index part = i < n_ ? 0 : i < 2 * n_ ? 1 : 2;
    const double by_z = double(dz[i]) * double(scale.data[part]);
    sum[i] += dz[i];
    sum[m + part] += S(double(dz[i]) * double(z[i]) * rstd);
    by_rstd += by_z * double(z[i]);
    dz[i] = S(by_z * rstd);
  }
  return by_rstd;
}

template <class S>
void HyperConnection<S>::read_backward(View<const S> x, const StreamTape<S>& t, View<const S> dread,
                                       Array<S> dz, View<S> dx) {
  const HostNumbers<S> host = side_.read(x);
  const HostNumbers<S> arriving = side_.read(dread);
  const HostNumbers<S> base = side_.read(base_);
  const HostNumbers<S> scale = side_.read(scale_);
  Array<S> own = side_.zeros(dx.rows, dx.cols);
  const Index m = t.z.cols();
  Matrix<S> sums(1, m + scale.view.size());  // of base and scale
  sum_rows(x.rows, sums.view(), [&](Index r, S* sum) {
    const S* from = host.view.row(r).data();
    const double rstd = double(t.rstd.view()(r, 0));
    pre_backward(weights(t, r, base.view, scale.view), from, arriving.view.row(r).data(),
                 row_of(dz, r), row_of(own, r));
    const double by_rstd = scale_backward(scale.view, row_of(t.z, r), rstd, row_of(dz, r), sum);
    row_add(-by_rstd * rstd * rstd * rstd / double(x.cols), from, row_of(own, r), x.cols);
  });
  side_.accumulate(View<const S>{sums.data(), 1, m}, base_);
  side_.accumulate(View<const S>{sums.data() + m, 1, scale.view.size()}, scale_);
  const Array<S> there = side_.placed(std::move(own));
  side_.backend().add(there.view(), dx, 1);
  side_.product_backward(dz, x, weight_, dx, S(1));
}

template class HyperConnection<float>;
template class HyperConnection<double>;

template <class S>
Array<S> as_streams(Backend<S>& b, View<const S> x, int streams) {
  Array<S> out(b, x.rows, x.cols * streams);
  b.join_heads({x.data, x.rows, 0}, x, streams, out.view());
  return out;
}
template <class S>
Array<S> sum_of_streams(Backend<S>& b, View<const S> dy, int streams) {
  Array<S> out(b, dy.rows, dy.cols / streams);
  b.split_heads(dy, streams, {out.view().data, dy.rows, 0}, out.view());
  return out;
}
template Array<float> as_streams(Backend<float>&, View<const float>, int);
template Array<double> as_streams(Backend<double>&, View<const double>, int);
template Array<float> sum_of_streams(Backend<float>&, View<const float>, int);
template Array<double> sum_of_streams(Backend<double>&, View<const double>, int);

}  // namespace moe
