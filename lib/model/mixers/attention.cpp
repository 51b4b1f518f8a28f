// Scores, sinks, the output matrix, and keys and values kept for decoding. What the heads are
// stands in grouped_heads.cpp and latent_heads.cpp, its shape in attention_type.cpp.
#include "lib/model/mixers/attention.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "lib/core/batch.h"
#include "lib/model/norm.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

// log1p(floor(n/floor))*scale + 1: how much longer queries get with their position, where `first`
// is the n of the first (1 in Llama 4, 0 in Mistral 4).
template <class S>
Array<S> stretches(Backend<S>& backend, const Matrix<int>& at, double floor, double scale,
                   int first) {
  Matrix<S> out(at.cols(), 1);
  for (Index t = 0; t < at.cols(); ++t)
    out(t, 0) = S(std::log1p(std::floor((at(0, t) + first) / floor)) * scale + 1);
  return Array<S>(backend, std::as_const(out).view());
}

// Under which name other programs keep it, below the layer.
std::string published_name(const std::string& name) {
  static const std::map<std::string, std::string> irregular{
      {"q_a_norm", "q_a_layernorm.weight"},
      {"kv_a_norm", "kv_a_layernorm.weight"},
      {"kv_a", "kv_a_proj_with_mqa.weight"},
      {"kv_a_bias", "kv_a_proj_with_mqa.bias"},
      {"index_q", "indexer.wq_b.weight"},
      {"index_k", "indexer.wk.weight"},
      {"index_k_norm", "indexer.k_norm.weight"},
      {"index_k_norm_bias", "indexer.k_norm.bias"},
      {"index_weights", "indexer.weights_proj.weight"},
      {"sinks", "sinks"}};
  const std::string at = "self_attn.";
  if (const auto found = irregular.find(name); found != irregular.end())
    return at + found->second;
  if (name.ends_with("_norm"))
    return at + name + ".weight";
  if (name.ends_with("_bias"))
    return at + name.substr(0, name.size() - 5) + "_proj.bias";
  return at + name + "_proj.weight";
}

Start start_of(const ModelConfig& c, const std::string& name, ParameterKind kind, Index fan_in) {
  if (kind == ParameterKind::vector) {
    // of latent rows and of an indexer: always by the factor itself
    const bool inner = name.ends_with("_a_norm") || name == "index_k_norm";
    return {.value = !name.ends_with("norm") ? 0 : inner ? 1 : norm_start(c.norm)};
  }
  return matrix_start(c, name == "o" ? MatrixRole::mixer_output : MatrixRole::mixer, fan_in);
}

// The mixing matrices of the model's Fourier embedding, where it has one.
template <class S>
std::shared_ptr<const Fourier<S>> fourier_of(const MixerPlace<S>& at) {
  const ModelConfig& c = at.config;
  if (!rotary_of(c.rope, c.rotary_dims(), c.rope_theta).mixed)
    return nullptr;
  return at.template share<Fourier<S>>("fourier",
                                       [&] { return std::make_shared<Fourier<S>>(c, at.backend); });
}

// The keys that an indexer chose last, where the model has one.
template <class S>
std::shared_ptr<SharedChoice<S>> choice_of(const MixerPlace<S>& at) {
  if (at.config.index_topk == 0)
    return nullptr;
  return at.template share<SharedChoice<S>>("index",
                                            [] { return std::make_shared<SharedChoice<S>>(); });
}

}  // namespace

template <class S>
void append_rows(Backend<S>& backend, Array<S>& kept, std::span<const Index> start,
                 const Batch& batch, View<const S> fresh) {
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
template void append_rows(Backend<float>&, Array<float>&, std::span<const Index>, const Batch&,
                          View<const float>);
template void append_rows(Backend<double>&, Array<double>&, std::span<const Index>, const Batch&,
                          View<const double>);

template <class S>
Attention<S>::Attention(const MixerPlace<S>& at, ModelConfig own)
    : config_(std::move(own)), backend_(at.backend) {
  const ModelConfig& c = config_;
  shape_.heads = c.heads;
  shape_.kv_heads = c.kv_heads;
  shape_.head_dim = c.head_dim;
  shape_.value_dim = c.value_dim;
  shape_.scale = c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(double(c.head_dim));
  if (!c.sees_all(at.layer)) {
    shape_.window = c.window;
    shape_.chunk = c.chunk;
  }
  heads_ = c.kv_rank > 0 ? make_latent_heads<S>(c, at.layer, backend_)
                         : make_grouped_heads<S>(c, at.layer, backend_, fourier_of(at));
  wo_ = Parameter<S>(backend_, "o", {c.hidden, Index(c.heads) * shape_.value_columns()});
  if (c.attention_gate != AttentionGate::none)
    gates_ = c.attention_gate == AttentionGate::head ? c.heads : wo_.value().cols;
  if (gates_ > 0 && c.attention_gate != AttentionGate::query)
    gate_ = Parameter<S>(backend_, "gate", {gates_, c.hidden});
  if (c.o_bias)
    o_bias_ = Parameter<S>(backend_, "o_bias", {c.hidden}, ParameterKind::vector);
  if (c.sinks)
    sinks_ = Parameter<S>(backend_, "sinks", {c.heads}, ParameterKind::vector);
  stretch_floor_ = c.has_rope(at.layer) && !c.stretch_turned ? 0 : c.stretch_floor;
  chosen_ = choice_of(at);
  if (chosen_ && std::ranges::count(c.index_shared, at.layer) == 0)
    indexer_ = Indexer<S>(c, backend_);
}

template <class S>
void Attention<S>::collect(std::vector<ModelParameter<S>>& all) {
  std::vector<Parameter<S>*> mine;
  heads_->collect(mine);
  indexer_.collect(mine);
  for (Parameter<S>* p : {&gate_, &wo_, &o_bias_, &sinks_}) {
    if (!p->empty())
      mine.push_back(p);
  }
  for (Parameter<S>* p : mine) {
    const std::string name = p->name().substr(p->name().rfind('.') + 1);
    all.push_back({.parameter = p,
                   .start = start_of(config_, name, p->kind(), p->dims().back()),
                   .published = published_name(name),
                   .only_products = true});
  }
}

template <class S>
std::unique_ptr<MixerState> Attention<S>::new_state(Index) const {
  return std::make_unique<KeyValues<S>>();
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
void Attention<S>::attend_past(const Batch& batch, View<const S> x, AttentionTape<S>& t,
                               MixerPast& past) {
  auto& [k, v, index] = static_cast<KeyValues<S>&>(past.state);
  append_rows(backend_, k, past.start, batch, std::as_const(t).k.view());
  append_rows(backend_, v, past.start, batch, std::as_const(t).v.view());
  const std::vector<Index> keys = grown(batch, past.start);
  if (!indexer_.empty()) {
    const Array<S> fresh = indexer_.keys(x, t.position.view(), t.furthest);
    append_rows(backend_, index, past.start, batch, fresh.view());
  }
  const Index all = keys.back();
  if (chosen_)
    choose(batch, x, t, index.empty() ? View<const S>{} : index.view().slice(0, all), keys);
  attend(batch, t, std::as_const(k).view().slice(0, all), std::as_const(v).view().slice(0, all),
         keys);
}

template <class S>
void Attention<S>::choose(const Batch& batch, View<const S> x, AttentionTape<S>& t,
                          View<const S> keys, std::span<const Index> key_start) {
  if (!indexer_.empty()) {
    chosen_->keys = std::make_shared<const ChosenKeys>(indexer_.choose(
        x, t.latent_q_normed.view(), t.position.view(), t.furthest, keys, batch.start, key_start));
  }
  t.chosen = chosen_->keys;
}

template <class S>
void Attention<S>::attend(const Batch& batch, AttentionTape<S>& t, View<const S> k, View<const S> v,
                          std::span<const Index> key_start) {
  const AttentionShape a = shape(batch.start, key_start);
  if (!t.chosen)
    return backend_.attention(t.q.view(), k, v, a, t.out.view(), t.lse.view());
  const HostSide<S> side(backend_);
  Matrix<S> out(t.out.rows(), t.out.cols());
  Matrix<S> lse(t.lse.rows(), t.lse.cols());
  const HostNumbers<S> q = side.read(std::as_const(t.q).view());
  selected_attention<S>(q.view, side.read(k).view, side.read(v).view, a, *t.chosen, out.view(),
                        lse.view());
  t.out.set(std::as_const(out).view());
  t.lse.set(std::as_const(lse).view());
}

template <class S>
void Attention<S>::attend_backward(const Batch& batch, const AttentionTape<S>& t,
                                   const Array<S>& dout, HeadGradients<S>& d) {
  const AttentionShape a = shape(batch.start, batch.start);
  if (!t.chosen) {
    return backend_.attention_backward(t.q.view(), t.k.view(), t.v.view(), t.out.view(),
                                       t.lse.view(), dout.view(), a, d.q.view(), d.k.view(),
                                       d.v.view());
  }
  const HostSide<S> side(backend_);
  Matrix<S> dq(d.q.rows(), d.q.cols());
  Matrix<S> dk(d.k.rows(), d.k.cols());
  Matrix<S> dv(d.v.rows(), d.v.cols());
  selected_attention_backward<S>(side.read(t.q.view()).view, side.read(t.k.view()).view,
                                 side.read(t.v.view()).view, side.read(t.out.view()).view,
                                 side.read(t.lse.view()).view, side.read(dout.view()).view, a,
                                 *t.chosen, dq.view(), dk.view(), dv.view());
  d.q.set(std::as_const(dq).view());
  d.k.set(std::as_const(dk).view());
  d.v.set(std::as_const(dv).view());
}

// Where rows stand, and what follows from that.
template <class S>
void Attention<S>::place(const Batch& batch, const MixerPast* past, AttentionTape<S>& t) const {
  const Matrix<int> at = positions(batch, past ? past->start : std::span<const Index>{});
  t.position = Array<int>(backend_, at.view());
  const bool by_axes = !config_.rope_axes.empty() && !batch.position.empty();
  if (by_axes)
    t.axes = Array<int>(backend_, batch.position.view());
  const Matrix<int>& turned = by_axes ? batch.position : at;
  t.furthest = turned.empty() ? 0 : std::ranges::max(turned.flat());
  if (stretch_floor_ > 0) {
    t.stretch = stretches(backend_, at, stretch_floor_, config_.stretch_scale,
                          config_.stretch_turned ? 0 : 1);
  }
}

template <class S>
std::unique_ptr<MixerTape> Attention<S>::forward(const Batch& batch, View<const S> x, View<S> y,
                                                 MixerPast* past) {
  auto tape = std::make_unique<AttentionTape<S>>();
  AttentionTape<S>& t = *tape;
  place(batch, past, t);
  heads_->forward(x, t);
  t.out = Array<S>(backend_, x.rows, wo_.value().cols);
  t.lse = Array<S>(backend_, x.rows, shape_.heads);
  if (past) {
    attend_past(batch, x, t, *past);
  } else {
    Array<S> index;
    if (!indexer_.empty())
      index = indexer_.keys(x, t.position.view(), t.furthest);
    if (chosen_)
      choose(batch, x, t, std::as_const(index).view(), batch.start);
    attend(batch, t, t.k.view(), t.v.view(), batch.start);
  }
  if (!sinks_.empty())
    backend_.attention_sink(sinks_.value(), t.out.view(), t.lse.view());
  if (gates_ > 0)
    pass_gate(x, t);
  project(backend_, std::as_const(gates_ > 0 ? t.gated : t.out).view(), wo_, o_bias_, y);
  return tape;
}

template <class S>
void Attention<S>::pass_gate(View<const S> x, AttentionTape<S>& t) {
  if (!gate_.empty()) {
    t.gate = Array<S>(backend_, x.rows, gates_);
    backend_.linear(x, gate_.weight(), t.gate.view(), 0);
  }
  t.gated = Array<S>::zeros(backend_, t.out.rows(), t.out.cols());
  const View<const S> gate = t.gate.view();
  backend_.sigmoid_gate({gate.data, gate.size(), 1}, by_gate(std::as_const(t.out).view()),
                        by_gate(t.gated.view()));
}

template <class S>
void Attention<S>::gate_backward(const AttentionTape<S>& t, Array<S>& dout, Array<S>& dgate) {
  Array<S> dgated = std::exchange(dout, Array<S>(backend_, t.out.rows(), t.out.cols()));
  dgate = Array<S>(backend_, t.gate.rows(), t.gate.cols());
  const View<const S> gate = t.gate.view();
  backend_.sigmoid_gate_backward(by_gate(std::as_const(dgated).view()), {gate.data, gate.size(), 1},
                                 by_gate(t.out.view()), {dgate.view().data, gate.size(), 1},
                                 by_gate(dout.view()));
}

template <class S>
void Attention<S>::backward(const Batch& batch, const MixerTape& tape, View<const S> x,
                            View<const S> dy, View<S> dx) {
  const auto& t = static_cast<const AttentionTape<S>&>(tape);
  const Index rows = x.rows;
  Array<S> dout(backend_, rows, t.out.cols());
  HeadGradients<S> d{Array<S>(backend_, rows, t.q.cols()),
                     Array<S>(backend_, rows, t.k.cols()),
                     Array<S>(backend_, rows, t.v.cols()),
                     {}};
  project_backward(backend_, dy, (gates_ > 0 ? t.gated : t.out).view(), wo_, o_bias_, dout.view(),
                   S(0));
  if (gates_ > 0)
    gate_backward(t, dout, d.gate);
  if (!sinks_.grad().empty()) {
    backend_.attention_sink_backward(sinks_.value(), t.out.view(), t.lse.view(), dout.view(),
                                     sinks_.grad());
  }
  attend_backward(batch, t, dout, d);
  Array<S> dgate;
  if (!gate_.empty())
    std::swap(dgate, d.gate);
  heads_->backward(t, x, std::move(d), dx);
  if (!gate_.empty())
    project_backward(backend_, std::as_const(dgate).view(), x, gate_, none_, dx, S(1));
}

template class Attention<float>;
template class Attention<double>;

}  // namespace moe
