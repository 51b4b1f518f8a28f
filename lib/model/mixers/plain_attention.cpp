#include "lib/model/mixers/plain_attention.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "lib/core/batch.h"
#include "lib/core/error.h"
#include "lib/model/linear.h"
#include "lib/model/mixers/attention.h"

namespace moe {
namespace {

constexpr int usual_buckets = 32, usual_distance = 128;

struct PlainOptions {
  int buckets = usual_buckets, distance = usual_distance;

  explicit PlainOptions(Spec& spec)
      : buckets(spec.get("buckets", usual_buckets, 0)),
        distance(spec.get("distance", usual_distance, 1)) {}
};

AttentionShape shape_of(const ModelConfig& c) {
  AttentionShape a;
  a.heads = c.heads;
  a.kv_heads = c.kv_heads;
  a.head_dim = c.head_dim;
  a.scale = c.attention_scale > 0 ? c.attention_scale : 1 / std::sqrt(double(c.head_dim));
  return a;
}

template <class S>
void collect_products(const ModelConfig& c, AttentionProducts<S>& w, const std::string& at,
                      std::vector<ModelParameter<S>>& all) {
  for (Parameter<S>* p : w.all()) {
    const std::string name = p->name().substr(p->name().rfind('.') + 1);
    const bool bias = name.ends_with("_bias");
    const std::string bare = bias ? name.substr(0, name.size() - 5) : name;
    const MatrixRole role = name == "o" ? MatrixRole::mixer_output : MatrixRole::mixer;
    all.push_back({.parameter = p,
                   .start = bias ? Start{} : matrix_start(c, role, p->dims().back()),
                   .published = at + bare + (bias ? "_proj.bias" : "_proj.weight")});
  }
}

// Longest sequence of keys: how far a bias by distance reaches.
Index longest(std::span<const Index> start) {
  Index most = 1;
  for (std::size_t s = 0; s + 1 < start.size(); ++s)
    most = std::max(most, start[s + 1] - start[s]);
  return most;
}

template <class S>
class PlainAttention final : public Mixer<S> {
 public:
  using Tape = PlainAttentionTape<S>;

  PlainAttention(const MixerPlace<S>& at, const PlainOptions& o)
      : config_(at.config),
        backend_(at.backend),
        shape_(shape_of(at.config)),
        causal_(!at.config.in_encoder(at.layer)),
        w_(at.config, at.backend) {
    if (o.buckets == 0)
      return;
    const BucketRule rule{o.buckets, o.distance, !causal_};
    const std::string stack = causal_ ? "decoder" : "encoder";
    bias_ = at.template share<RelativeBias<S>>("relative_bias." + stack, [&] {
      return std::make_shared<RelativeBias<S>>(at.config, at.backend, stack, rule);
    });
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<Tape>();
    Tape& t = *tape;
    t.q = project_new(x, w_.q, w_.q_bias);
    t.k = project_new(x, w_.k, w_.k_bias);
    t.v = project_new(x, w_.v, w_.v_bias);
    t.out = Array<S>(backend_, x.rows, w_.o.value().cols);
    t.lse = Array<S>(backend_, x.rows, shape_.heads);
    if (past)
      attend_with_past(batch, t, *past);
    else
      attend(t, t.k.view(), t.v.view(), rule(batch), batch.start, batch.start);
    project(backend_, std::as_const(t.out).view(), w_.o, w_.o_bias, y);
    return tape;
  }

  void backward(const Batch& batch, const MixerTape& tape, View<const S> x, View<const S> dy,
                View<S> dx) override {
    const auto& t = static_cast<const Tape&>(tape);
    Array<S> dout(backend_, x.rows, t.out.cols());
    Array<S> dq(backend_, x.rows, t.q.cols());
    Array<S> dk(backend_, x.rows, t.k.cols());
    Array<S> dv(backend_, x.rows, t.v.cols());
    project_backward(backend_, dy, t.out.view(), w_.o, w_.o_bias, dout.view(), S(0));
    Array<S> dbias;
    if (bias_ && bias_->wants_grad())
      dbias = Array<S>::zeros(backend_, t.bias.rows(), t.bias.cols());
    AttentionShape a = shape_;
    a.query_start = a.key_start = batch.start;
    backend_.biased_attention_backward(t.q.view(), t.k.view(), t.v.view(), t.bias.view(),
                                       t.out.view(), t.lse.view(), dout.view(), a, rule(batch),
                                       dq.view(), dk.view(), dv.view(), dbias.view());
    if (!dbias.empty())
      bias_->backward(dbias);
    products_backward(x, std::as_const(dq).view(), std::as_const(dk).view(),
                      std::as_const(dv).view(), dx);
  }

  std::unique_ptr<MixerState> new_state(Index) const override {
    return std::make_unique<KeyValues<S>>();
  }
  void collect(std::vector<ModelParameter<S>>& all) override {
    collect_products(config_, w_, "self_attn.", all);
  }

 private:
  void products_backward(View<const S> x, View<const S> dq, View<const S> dk, View<const S> dv,
                         View<S> dx) {
    project_backward(backend_, dq, x, w_.q, w_.q_bias, dx, S(0));
    project_backward(backend_, dk, x, w_.k, w_.k_bias, dx, S(1));
    project_backward(backend_, dv, x, w_.v, w_.v_bias, dx, S(1));
  }
  Array<S> project_new(View<const S> x, const Parameter<S>& w, const Parameter<S>& bias) const {
    Array<S> y(backend_, x.rows, w.value().rows);
    project(backend_, x, w, bias, y.view());
    return y;
  }
  KeyRule rule(const Batch& batch) const {
    return {causal_, batch.valid};
  }
  void attend(Tape& t, View<const S> k, View<const S> v, const KeyRule& rule,
              std::span<const Index> queries, std::span<const Index> keys) {
    if (bias_)
      t.bias = bias_->by_distance(longest(keys));
    AttentionShape a = shape_;
    a.query_start = queries;
    a.key_start = keys;
    backend_.biased_attention(t.q.view(), k, v, t.bias.view(), a, rule, t.out.view(), t.lse.view());
  }
  void attend_with_past(const Batch& batch, Tape& t, MixerPast& past) {
    auto& kept = static_cast<KeyValues<S>&>(past.state);
    append_rows(backend_, kept.k, past.start, batch, std::as_const(t.k).view());
    append_rows(backend_, kept.v, past.start, batch, std::as_const(t.v).view());
    const std::vector<Index> keys = grown(batch, past.start);
    attend(t, std::as_const(kept.k).view().slice(0, keys.back()),
           std::as_const(kept.v).view().slice(0, keys.back()), {.causal = true}, batch.start, keys);
  }

  const ModelConfig& config_;
  Backend<S>& backend_;
  AttentionShape shape_;
  bool causal_;
  AttentionProducts<S> w_;
  std::shared_ptr<RelativeBias<S>> bias_;  // null = none
};

class PlainAttentionType final : public MixerType {
 public:
  explicit PlainAttentionType(const PlainOptions& o) : options_(o) {}
  std::unique_ptr<Mixer<float>> make(const MixerPlace<float>& at) const override {
    return std::make_unique<PlainAttention<float>>(at, options_);
  }
  std::unique_ptr<Mixer<double>> make(const MixerPlace<double>& at) const override {
    return std::make_unique<PlainAttention<double>>(at, options_);
  }
  MixerShape shape(const ModelConfig& c, int layer) const override {
    check(c, layer);
    MixerShape m = cross_shape(c);
    m.cross = false;
    m.both_sides = true;
    if (holds_table(c, layer))
      m.bias_table = Count(options_.buckets) * c.heads;
    return m;
  }

 private:
  // The layers of a stack share one: it counts with the first of them.
  bool holds_table(const ModelConfig& c, int layer) const {
    const std::vector<std::string> specs = layer_mixers(c.mixer, c.layers);
    for (int l = c.in_encoder(layer) ? 0 : c.encoder_layers; l < layer; ++l) {
      Spec spec(specs[std::size_t(l)]);
      if (spec.name() != Spec(specs[std::size_t(layer)]).name())
        continue;
      const PlainOptions first(spec);
      if (first.buckets == options_.buckets && first.distance == options_.distance)
        return false;
      throw Error(Exit::usage,
                  concat("layer ", layer, " has ", options_.buckets, " buckets of distances up to ",
                         options_.distance, " and shares those of layer ", l, ", ", first.buckets,
                         " up to ", first.distance))
          .hint("the same buckets and distance in all layers of a stack");
    }
    return true;
  }
  void check(const ModelConfig& c, int layer) const {
    const int side = options_.buckets / (c.in_encoder(layer) ? 2 : 1);
    if (options_.buckets > 0 && (side < 2 || options_.distance <= side / 2)) {
      throw Error(Exit::usage, concat("plain_attention: buckets=", options_.buckets,
                                      ",distance=", options_.distance,
                                      " leave no bucket for distances that are shared"))
          .hint("buckets=32,distance=128, or buckets=0 for no bias by distance");
    }
  }
  PlainOptions options_;
};

}  // namespace

template <class S>
AttentionProducts<S>::AttentionProducts(const ModelConfig& c, Backend<S>& b) {
  const Index wide = Index(c.heads) * c.head_dim;
  const Index kv = Index(c.kv_heads) * c.head_dim;
  q = Parameter<S>(b, "q", {wide, c.hidden});
  k = Parameter<S>(b, "k", {kv, c.hidden});
  v = Parameter<S>(b, "v", {kv, c.hidden});
  o = Parameter<S>(b, "o", {c.hidden, wide});
  const auto vector = [&](const char* name, Index n) {
    return Parameter<S>(b, name, {n}, ParameterKind::vector);
  };
  if (c.qkv_bias) {
    q_bias = vector("q_bias", wide);
    k_bias = vector("k_bias", kv);
    v_bias = vector("v_bias", kv);
  }
  if (c.o_bias)
    o_bias = vector("o_bias", c.hidden);
}
template <class S>
std::vector<Parameter<S>*> AttentionProducts<S>::all() {
  std::vector<Parameter<S>*> out;
  for (Parameter<S>* p : {&q, &k, &v, &q_bias, &k_bias, &v_bias, &o, &o_bias}) {
    if (!p->empty())
      out.push_back(p);
  }
  return out;
}

std::string plain_attention_spec(const PlainAttentionOptions& o) {
  return concat("plain_attention:buckets=", o.buckets, ",distance=", o.distance);
}
std::optional<PlainAttentionOptions> plain_attention_of(const ModelConfig& c) {
  std::optional<PlainAttentionOptions> out;
  for (const std::string& text : layer_mixers(c.mixer, c.layers)) {
    Spec spec(text);
    if (spec.name() != "plain_attention")
      return std::nullopt;
    const PlainOptions o(spec);
    if (out && (out->buckets != o.buckets || (o.buckets > 0 && out->distance != o.distance)))
      return std::nullopt;
    out = {o.buckets, o.distance};
  }
  return out;
}

MixerShape cross_shape(const ModelConfig& c) {
  MixerShape m;
  m.kind = MixerKind::attention;
  m.heads = c.heads;
  m.kv_heads = c.kv_heads;
  m.head_dim = c.head_dim;
  m.qkv_bias = c.qkv_bias;
  m.o_bias = c.o_bias;
  m.cross = true;
  m.tape_numbers = 2 * m.heads * m.head_dim + 2 * m.kv_heads * m.head_dim + m.heads;
  return m;
}

template <class S>
CrossAttention<S>::CrossAttention(const ModelConfig& c, Backend<S>& b)
    : config_(c), backend_(b), shape_(shape_of(c)), w_(c, b) {}

template <class S>
AttentionShape CrossAttention<S>::shape(const Batch& batch, const Batch& source) const {
  if (batch.sequences() != source.sequences()) {
    throw Error(Exit::bug, concat(batch.sequences(), " sequences attend to ", source.sequences(),
                                  " of an encoder"));
  }
  AttentionShape a = shape_;
  a.query_start = batch.start;
  a.key_start = source.start;
  return a;
}

template <class S>
std::unique_ptr<MixerState> CrossAttention<S>::new_state() const {
  return std::make_unique<KeyValues<S>>();
}

template <class S>
std::unique_ptr<MixerTape> CrossAttention<S>::forward(const Batch& batch, View<const S> x,
                                                      View<const S> memory, const Batch& source,
                                                      View<S> y, MixerState* state) {
  auto tape = std::make_unique<PlainAttentionTape<S>>();
  PlainAttentionTape<S>& t = *tape;
  t.q = Array<S>(backend_, x.rows, w_.q.value().rows);
  project(backend_, x, w_.q, w_.q_bias, t.q.view());
  auto* kept = static_cast<KeyValues<S>*>(state);
  Array<S>& k = kept ? kept->k : t.k;
  Array<S>& v = kept ? kept->v : t.v;
  if (k.empty()) {
    k = Array<S>(backend_, memory.rows, w_.k.value().rows);
    v = Array<S>(backend_, memory.rows, w_.v.value().rows);
    project(backend_, memory, w_.k, w_.k_bias, k.view());
    project(backend_, memory, w_.v, w_.v_bias, v.view());
  }
  t.out = Array<S>(backend_, x.rows, w_.o.value().cols);
  t.lse = Array<S>(backend_, x.rows, shape_.heads);
  backend_.biased_attention(t.q.view(), std::as_const(k).view(), std::as_const(v).view(), {},
                            shape(batch, source), {.causal = false, .valid = source.valid},
                            t.out.view(), t.lse.view());
  project(backend_, std::as_const(t.out).view(), w_.o, w_.o_bias, y);
  return tape;
}

template <class S>
void CrossAttention<S>::backward(const Batch& batch, const MixerTape& tape, View<const S> x,
                                 View<const S> memory, const Batch& source, View<const S> dy,
                                 View<S> dx, View<S> dmemory) {
  const auto& t = static_cast<const PlainAttentionTape<S>&>(tape);
  Array<S> dout(backend_, x.rows, t.out.cols());
  Array<S> dq(backend_, x.rows, t.q.cols());
  Array<S> dk(backend_, memory.rows, t.k.cols());
  Array<S> dv(backend_, memory.rows, t.v.cols());
  project_backward(backend_, dy, t.out.view(), w_.o, w_.o_bias, dout.view(), S(0));
  backend_.biased_attention_backward(t.q.view(), t.k.view(), t.v.view(), {}, t.out.view(),
                                     t.lse.view(), dout.view(), shape(batch, source),
                                     {.causal = false, .valid = source.valid}, dq.view(), dk.view(),
                                     dv.view(), {});
  project_backward(backend_, std::as_const(dq).view(), x, w_.q, w_.q_bias, dx, S(0));
  project_backward(backend_, std::as_const(dk).view(), memory, w_.k, w_.k_bias, dmemory, S(1));
  project_backward(backend_, std::as_const(dv).view(), memory, w_.v, w_.v_bias, dmemory, S(1));
}

template <class S>
void CrossAttention<S>::collect(std::vector<ModelParameter<S>>& all) {
  collect_products(config_, w_, "cross_attn.", all);
}

template struct AttentionProducts<float>;
template struct AttentionProducts<double>;
template class CrossAttention<float>;
template class CrossAttention<double>;

std::unique_ptr<MixerType> make_plain_attention_mixer(Spec& spec) {
  return std::make_unique<PlainAttentionType>(PlainOptions(spec));
}

}  // namespace moe
