// Scores, sinks, the output matrix, and keys and values kept for decoding. What the heads are
// stands in grouped_heads.cpp and latent_heads.cpp.
#include "lib/model/attention.h"

#include <cmath>

#include "lib/core/error.h"

namespace moe {
namespace {

// Position of every row in its sequence.
Matrix<int> positions(const Batch& batch, std::span<const Index> state) {
  Matrix<int> at(1, batch.tokens());
  for (std::size_t q = 0; q + 1 < batch.start.size(); ++q) {
    const Index past =
        state.empty() ? (batch.past.empty() ? 0 : batch.past[q]) : state[q + 1] - state[q];
    for (Index t = batch.start[q]; t < batch.start[q + 1]; ++t)
      at(0, t) = int(past + t - batch.start[q]);
  }
  return at;
}

// Puts the rows of `fresh` behind those of each sequence in `kept`. One sequence has room for twice
// its rows where it must move, so that decoding copies each row a constant number of times; several
// move each time. Adding to zeros copies on every backend.
template <class S>
void append(Backend<S>& backend, Array<S>& kept, std::span<const Index> start, const Batch& batch,
            View<const S> fresh) {
  const std::vector<Index> after = grown(batch, start);
  const bool one = batch.sequences() == 1;
  if (!one || kept.rows() < after.back()) {
    auto all = Array<S>::zeros(
        backend, one ? std::max(after.back(), 2 * kept.rows()) : after.back(), fresh.cols);
    for (std::size_t q = 0; q + 1 < after.size(); ++q) {
      if (const Index before = start[q + 1] - start[q]; before > 0) {
        backend.add(std::as_const(kept).view().slice(start[q], before),
                    all.view().slice(after[q], before), 1);
      }
    }
    kept = std::move(all);
  }
  for (std::size_t q = 0; q + 1 < after.size(); ++q) {
    if (const Index added = batch.start[q + 1] - batch.start[q]; added > 0) {
      backend.add(fresh.slice(batch.start[q], added),
                  kept.view().slice(after[q] + start[q + 1] - start[q], added), 1);
    }
  }
}

// log1p(floor((position+1)/floor))*scale + 1: how much longer queries get with their position
// (Llama 4).
template <class S>
Array<S> stretches(Backend<S>& backend, const Matrix<int>& at, double floor, double scale) {
  Matrix<S> out(at.cols(), 1);
  for (Index t = 0; t < at.cols(); ++t)
    out(t, 0) = S(std::log1p(std::floor((at(0, t) + 1) / floor)) * scale + 1);
  return Array<S>(backend, std::as_const(out).view());
}

}  // namespace

std::vector<Index> grown(const Batch& batch, std::span<const Index> start) {
  if (start.size() != batch.start.size()) {
    throw Error(Exit::bug, concat("a state of ", start.size() - 1,
                                  " sequences was given a batch of ", batch.sequences()));
  }
  std::vector<Index> after(start.begin(), start.end());
  for (std::size_t q = 0; q < after.size(); ++q)
    after[q] += batch.start[q];
  for (std::size_t q = 0; q < batch.past.size(); ++q) {
    if (batch.past[q] != start[q + 1] - start[q]) {
      throw Error(Exit::bug, concat("sequence ", q, " has ", start[q + 1] - start[q],
                                    " tokens in the state and the batch says ", batch.past[q]));
    }
  }
  return after;
}

template <class S>
void project(Backend<S>& b, View<const S> x, const Parameter<S>& w, const Parameter<S>& bias,
             View<S> y) {
  b.linear(x, w.weight(), y, 0);
  if (!bias.empty())
    b.add_bias(bias.value(), y);
}
template <class S>
void project_backward(Backend<S>& b, View<const S> dy, View<const S> x, Parameter<S>& w,
                      Parameter<S>& bias, View<S> dx, S beta) {
  b.linear_dx(dy, w.weight(), dx, beta);
  if (!w.grad().empty())
    b.linear_dw(dy, x, w.grad());
  if (!bias.grad().empty())
    b.bias_grad(dy, bias.grad());
}

template <class S>
Attention<S>::Attention(const ModelConfig& c, int layer, Backend<S>& b)
    : shape_{c.heads,
             c.kv_heads,
             c.head_dim,
             0,
             c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(double(c.head_dim)),
             {},
             {},
             0,
             c.value_dim},
      backend_(b) {
  if (!c.sees_all(layer)) {
    shape_.window = c.window;
    shape_.chunk = c.chunk;
  }
  heads_ = c.kv_rank > 0 ? make_latent_heads<S>(c, b) : make_grouped_heads<S>(c, layer, b);
  wo_ = Parameter<S>(b, "o", {c.hidden, Index(c.heads) * shape_.value_columns()});
  if (c.o_bias)
    o_bias_ = Parameter<S>(b, "o_bias", {c.hidden}, ParameterKind::vector);
  if (c.sinks)
    sinks_ = Parameter<S>(b, "sinks", {c.heads}, ParameterKind::vector);
  stretch_floor_ = c.has_rope(layer) ? 0 : c.stretch_floor;
  stretch_scale_ = c.stretch_scale;
}

template <class S>
void Attention<S>::collect(std::vector<Parameter<S>*>& all) {
  heads_->collect(all);
  for (Parameter<S>* p : {&wo_, &o_bias_, &sinks_}) {
    if (!p->empty())
      all.push_back(p);
  }
}

template <class S>
AttentionShape Attention<S>::shape(std::span<const Index> queries,
                                   std::span<const Index> keys) const {
  AttentionShape a = shape_;
  a.query_start = queries;
  a.key_start = keys;
  return a;
}

template <class S>
void Attention<S>::forward(const Batch& batch, View<const S> x, View<S> y, Tape& t,
                           KeyValues<S>* state, int layer) {
  const Matrix<int> at =
      positions(batch, state ? std::span<const Index>(state->start) : std::span<const Index>{});
  t.position = Array<int>(backend_, at.view());
  t.furthest = at.empty() ? 0 : std::ranges::max(at.flat());
  if (stretch_floor_ > 0)
    t.stretch = stretches(backend_, at, stretch_floor_, stretch_scale_);
  heads_->forward(x, t);
  t.out = Array<S>(backend_, x.rows, wo_.value().cols);
  t.lse = Array<S>(backend_, x.rows, shape_.heads);
  if (state) {
    const std::vector<Index> keys = grown(batch, state->start);
    Array<S>& k = state->k[std::size_t(layer)];
    Array<S>& v = state->v[std::size_t(layer)];
    append(backend_, k, state->start, batch, std::as_const(t.k).view());
    append(backend_, v, state->start, batch, std::as_const(t.v).view());
    backend_.attention(t.q.view(), std::as_const(k).view().slice(0, keys.back()),
                       std::as_const(v).view().slice(0, keys.back()), shape(batch.start, keys),
                       t.out.view(), t.lse.view());
  } else {
    backend_.attention(t.q.view(), t.k.view(), t.v.view(), shape(batch.start, batch.start),
                       t.out.view(), t.lse.view());
  }
  if (!sinks_.empty())
    backend_.attention_sink(sinks_.value(), t.out.view(), t.lse.view());
  project(backend_, std::as_const(t.out).view(), wo_, o_bias_, y);
}

template <class S>
void Attention<S>::backward(const Batch& batch, const Tape& t, View<const S> x, View<const S> dy,
                            View<S> dx) {
  const Index rows = x.rows;
  Array<S> dout(backend_, rows, t.out.cols());
  Array<S> dq(backend_, rows, t.q.cols());
  Array<S> dk(backend_, rows, t.k.cols());
  Array<S> dv(backend_, rows, t.v.cols());
  project_backward(backend_, dy, t.out.view(), wo_, o_bias_, dout.view(), S(0));
  if (!sinks_.grad().empty()) {
    backend_.attention_sink_backward(sinks_.value(), t.out.view(), t.lse.view(), dout.view(),
                                     sinks_.grad());
  }
  backend_.attention_backward(t.q.view(), t.k.view(), t.v.view(), t.out.view(), t.lse.view(),
                              dout.view(), shape(batch.start, batch.start), dq.view(), dk.view(),
                              dv.view());
  heads_->backward(t, x, std::move(dq), std::move(dk), std::move(dv), dx);
}

template class Attention<float>;
template class Attention<double>;
template void project(Backend<float>&, View<const float>, const Parameter<float>&,
                      const Parameter<float>&, View<float>);
template void project(Backend<double>&, View<const double>, const Parameter<double>&,
                      const Parameter<double>&, View<double>);
template void project_backward(Backend<float>&, View<const float>, View<const float>,
                               Parameter<float>&, Parameter<float>&, View<float>, float);
template void project_backward(Backend<double>&, View<const double>, View<const double>,
                               Parameter<double>&, Parameter<double>&, View<double>, double);

}  // namespace moe
