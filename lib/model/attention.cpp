// Causal grouped-query attention with rotary embedding: projections, optional RMSNorm of queries and keys (before the rotation, as
// Qwen3 and OLMoE do), the state for decoding.
#include <cmath>

#include "lib/core/error.h"
#include "lib/model/decoder.h"

namespace moe {
namespace {

// Position of every row in its sequence.
template <class S>
Array<int> positions(Backend<S>& backend, const Batch& batch, std::span<const Index> state) {
  Matrix<int> at(1, batch.tokens());
  for (std::size_t q = 0; q + 1 < batch.start.size(); ++q) {
    const Index past = state.empty() ? (batch.past.empty() ? 0 : batch.past[q]) : state[q + 1] - state[q];
    for (Index t = batch.start[q]; t < batch.start[q + 1]; ++t) at(0, t) = int(past + t - batch.start[q]);
  }
  return Array<int>(backend, std::as_const(at).view());
}

// The rows of each sequence in `old`, followed by its rows in `fresh`. Adding to zeros copies on every backend.
template <class S>
Array<S> appended(Backend<S>& backend, const Array<S>& old, std::span<const Index> start, const Batch& batch, View<const S> fresh) {
  const std::vector<Index> after = grown(batch, start);
  auto all = Array<S>::zeros(backend, after.back(), fresh.cols);
  for (std::size_t q = 0; q + 1 < after.size(); ++q) {
    const Index before = start[q + 1] - start[q], added = batch.start[q + 1] - batch.start[q];
    if (before > 0) backend.add(old.view().slice(start[q], before), all.view().slice(after[q], before), 1);
    if (added > 0) backend.add(fresh.slice(batch.start[q], added), all.view().slice(after[q] + before, added), 1);
  }
  return all;
}

}  // namespace

std::vector<Index> grown(const Batch& batch, std::span<const Index> start) {
  if (start.size() != batch.start.size())
    throw Error(Exit::bug, concat("a state of ", start.size() - 1, " sequences was given a batch of ", batch.sequences()));
  std::vector<Index> after(start.begin(), start.end());
  for (std::size_t q = 0; q < after.size(); ++q) after[q] += batch.start[q];
  for (std::size_t q = 0; q < batch.past.size(); ++q)
    if (batch.past[q] != start[q + 1] - start[q])
      throw Error(Exit::bug, concat("sequence ", q, " has ", start[q + 1] - start[q], " tokens in the state and the batch says ", batch.past[q]));
  return after;
}

template <class S>
Attention<S>::Attention(const ModelConfig& c, Backend<S>& b)
    : qk_norm_(c.qk_norm), shape_{c.heads, c.kv_heads, c.head_dim, c.window, 1 / std::sqrt(double(c.head_dim)), {}, {}}, theta_(c.rope_theta), eps_(c.norm_eps), backend_(b) {
  const Index q = Index(c.heads) * c.head_dim, kv = Index(c.kv_heads) * c.head_dim;
  wq_ = Parameter<S>(b, "q", {q, c.hidden});
  wk_ = Parameter<S>(b, "k", {kv, c.hidden});
  wv_ = Parameter<S>(b, "v", {kv, c.hidden});
  wo_ = Parameter<S>(b, "o", {c.hidden, q});
  if (qk_norm_ == QkNorm::none) return;
  q_norm_ = Parameter<S>(b, "q_norm", {qk_norm_ == QkNorm::full ? q : c.head_dim}, ParameterKind::vector);
  k_norm_ = Parameter<S>(b, "k_norm", {qk_norm_ == QkNorm::full ? kv : c.head_dim}, ParameterKind::vector);
}

template <class S>
void Attention<S>::collect(std::vector<Parameter<S>*>& all) {
  for (Parameter<S>* p : {&wq_, &wk_, &wv_, &wo_, &q_norm_, &k_norm_})
    if (!p->empty()) all.push_back(p);
}

template <class S>
AttentionShape Attention<S>::shape(std::span<const Index> queries, std::span<const Index> keys) const {
  AttentionShape a = shape_;
  a.query_start = queries;
  a.key_start = keys;
  return a;
}

template <class S>
void Attention<S>::forward(const Batch& batch, View<const S> x, View<S> y, Tape& t, KeyValues<S>* state, int layer) {
  const Index rows = x.rows, q = wq_.value().rows, kv = wk_.value().rows;
  t.q = Array<S>(backend_, rows, q), t.k = Array<S>(backend_, rows, kv), t.v = Array<S>(backend_, rows, kv);
  t.out = Array<S>(backend_, rows, q), t.lse = Array<S>(backend_, rows, shape_.heads);
  backend_.linear(x, wq_.weight(), t.q.view(), 0);
  backend_.linear(x, wk_.weight(), t.k.view(), 0);
  backend_.linear(x, wv_.weight(), t.v.view(), 0);
  if (qk_norm_ != QkNorm::none) {
    t.q_raw = std::exchange(t.q, Array<S>(backend_, rows, q)), t.k_raw = std::exchange(t.k, Array<S>(backend_, rows, kv));
    t.q_rstd = Array<S>(backend_, rows, q / q_norm_.size()), t.k_rstd = Array<S>(backend_, rows, kv / k_norm_.size());
    backend_.norm(t.q_raw.view(), q_norm_.value(), eps_, t.q.view(), t.q_rstd.view());
    backend_.norm(t.k_raw.view(), k_norm_.value(), eps_, t.k.view(), t.k_rstd.view());
  }
  t.position = positions(backend_, batch, state ? std::span<const Index>(state->start) : std::span<const Index>{});
  backend_.rope(t.q.view(), shape_.head_dim, t.position.view(), theta_, false);
  backend_.rope(t.k.view(), shape_.head_dim, t.position.view(), theta_, false);
  if (state) {
    const std::vector<Index> keys = grown(batch, state->start);
    Array<S>&k = state->k[std::size_t(layer)], &v = state->v[std::size_t(layer)];
    k = appended(backend_, k, state->start, batch, std::as_const(t.k).view());
    v = appended(backend_, v, state->start, batch, std::as_const(t.v).view());
    backend_.attention(t.q.view(), k.view(), v.view(), shape(batch.start, keys), t.out.view(), t.lse.view());
  } else {
    backend_.attention(t.q.view(), t.k.view(), t.v.view(), shape(batch.start, batch.start), t.out.view(), t.lse.view());
  }
  backend_.linear(t.out.view(), wo_.weight(), y, 0);
}

template <class S>
void Attention<S>::backward(const Batch& batch, const Tape& t, View<const S> x, View<const S> dy, View<S> dx) {
  const Index rows = x.rows, q = t.q.cols(), kv = t.k.cols();
  Array<S> dout(backend_, rows, q), dq(backend_, rows, q), dk(backend_, rows, kv), dv(backend_, rows, kv);
  backend_.linear_dx(dy, wo_.weight(), dout.view(), 0);
  if (!wo_.grad().empty()) backend_.linear_dw(dy, t.out.view(), wo_.grad());
  backend_.attention_backward(t.q.view(), t.k.view(), t.v.view(), t.out.view(), t.lse.view(), dout.view(), shape(batch.start, batch.start), dq.view(), dk.view(), dv.view());
  backend_.rope(dq.view(), shape_.head_dim, t.position.view(), theta_, true);
  backend_.rope(dk.view(), shape_.head_dim, t.position.view(), theta_, true);
  if (qk_norm_ != QkNorm::none) {
    Array<S> dq_raw(backend_, rows, q), dk_raw(backend_, rows, kv);
    backend_.norm_backward(dq.view(), t.q_raw.view(), q_norm_.value(), t.q_rstd.view(), dq_raw.view(), q_norm_.grad(), 0);
    backend_.norm_backward(dk.view(), t.k_raw.view(), k_norm_.value(), t.k_rstd.view(), dk_raw.view(), k_norm_.grad(), 0);
    dq = std::move(dq_raw), dk = std::move(dk_raw);
  }
  S beta = 0;
  for (const auto& [w, d] : {std::pair{&wq_, &dq}, {&wk_, &dk}, {&wv_, &dv}}) {
    backend_.linear_dx(d->view(), w->weight(), dx, std::exchange(beta, S(1)));
    if (!w->grad().empty()) backend_.linear_dw(d->view(), x, w->grad());
  }
}

template class Attention<float>;
template class Attention<double>;

}  // namespace moe
