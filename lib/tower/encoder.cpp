#include "lib/tower/encoder.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

void check_heads(const EncoderShape& s, const std::string& what) {
  if (s.heads < 1 || s.hidden < 1 || s.width < 1 || s.hidden % s.heads != 0) {
    throw Error(Exit::input,
                concat(what, ": ", s.heads, " heads do not divide a hidden size of ", s.hidden));
  }
}

LayerNames clip_names() {
  return {.first_norm = "layer_norm1",
          .joint = {},
          .query = "self_attn.q_proj",
          .key = "self_attn.k_proj",
          .value = "self_attn.v_proj",
          .out = "self_attn.out_proj",
          .second_norm = "layer_norm2",
          .up = "mlp.fc1",
          .down = "mlp.fc2"};
}

LayerNames block_names(std::string up, std::string down) {
  LayerNames out{.first_norm = "norm1", .joint = "attn.qkv", .out = "attn.proj"};
  out.second_norm = "norm2";
  out.up = std::move(up);
  out.down = std::move(down);
  return out;
}

template <class S>
Array<S> attention_both_ways(Backend<S>& b, RowsOf<S> q, RowsOf<S> k, RowsOf<S> v, int heads,
                             std::span<const Index> query_start, std::span<const Index> key_start) {
  const int head_dim = int(q.cols / heads);
  const AttentionShape shape{.heads = heads,
                             .kv_heads = heads,
                             .head_dim = head_dim,
                             .scale = 1 / std::sqrt(double(head_dim)),
                             .query_start = query_start,
                             .key_start = key_start};
  Array<S> out(b, q.rows, q.cols);
  Array<S> lse(b, q.rows, heads);
  b.biased_attention(q, k, v, {}, shape, KeyRule{.causal = false}, out.view(), lse.view());
  return out;
}

namespace {

// Three (H,H) matrices, or one (3H,H), as one.
template <class S>
Affine<S> read_joint(TowerTensors<S>& t, const std::string& prefix, const LayerNames& n, Index h) {
  if (!n.joint.empty())
    return read_affine(t, prefix + n.joint, 3 * h, h);
  Affine<S> all;
  Matrix<S> weight(t.counts_only() ? 0 : 3 * h, h);
  Matrix<S> bias(t.counts_only() ? 0 : 1, 3 * h);
  Index i = 0;
  for (const std::string& name : {n.query, n.key, n.value}) {
    const Matrix<S> w = t.matrix(concat(prefix, name, ".weight"), {h, h});
    const Matrix<S> b = t.matrix(concat(prefix, name, ".bias"), {h});
    std::ranges::copy(w.flat(), weight.data() + i * h * h);
    std::ranges::copy(b.flat(), bias.data() + i * h);
    ++i;
  }
  if (!t.counts_only()) {
    all.weight = Array<S>(*t.backend(), weight.view());
    all.bias = Array<S>(*t.backend(), bias.view());
  }
  return all;
}

}  // namespace

template <class S>
EncoderLayer<S>::EncoderLayer(TowerTensors<S>& t, const std::string& prefix, const LayerNames& n,
                              const EncoderShape& s)
    : shape_(s),
      first_norm_(read_layer_norm(t, prefix + n.first_norm, s.hidden, s.eps)),
      second_norm_(read_layer_norm(t, prefix + n.second_norm, s.hidden, s.eps)),
      joint_(read_joint(t, prefix, n, s.hidden)),
      out_(read_affine(t, prefix + n.out, s.hidden, s.hidden)),
      up_(read_affine(t, prefix + n.up, s.width, s.hidden)),
      down_(read_affine(t, prefix + n.down, s.hidden, s.width)) {}

template <class S>
Array<S> EncoderLayer<S>::third(Backend<S>& b, View<const S> x, Index which) const {
  const Index h = shape_.hidden;
  Array<S> y(b, x.rows, h);
  b.linear(x, Weight(joint_.weight.view().block(which, h)), y.view(), 0);
  b.add_bias({joint_.bias.view().data + which * h, 1, h}, y.view());
  return y;
}

template <class S>
Array<S> EncoderLayer<S>::attention(Backend<S>& b, View<const S> x, std::span<const Index> start,
                                    const PatchRotation<S>* rotation) const {
  Array<S> q = third(b, x, 0);
  Array<S> k = third(b, x, 1);
  const Array<S> v = third(b, x, 2);
  if (rotation) {
    rotation->turn(b, q.view());
    rotation->turn(b, k.view());
  }
  return attention_both_ways(b, q.view(), k.view(), v.view(), shape_.heads, start, start);
}

template <class S>
void EncoderLayer<S>::forward(Backend<S>& b, View<S> x, std::span<const Index> start,
                              const PatchRotation<S>* rotation) const {
  const Array<S> mixed = attention(b, first_norm_(b, x).view(), start, rotation);
  out_.add_to(b, mixed.view(), x);
  const Array<S> hidden = activated(b, shape_.activation, up_(b, second_norm_(b, x)));
  down_.add_to(b, hidden.view(), x);
}

template <class S>
Encoder<S>::Encoder(TowerTensors<S>& t, const std::string& prefix, const LayerNames& names,
                    const EncoderShape& shape)
    : shape_(shape) {
  check_heads(shape, prefix);
  for (int l = 0; l < shape.layers; ++l)
    layers_.emplace_back(t, concat(prefix, l, "."), names, shape);
}

template <class S>
void Encoder<S>::forward(Backend<S>& b, View<S> x, std::span<const Index> start,
                         const PatchRotation<S>* rotation, int layers,
                         const Listener& behind) const {
  for (int l = 0; l < layers; ++l) {
    layers_[std::size_t(l)].forward(b, x, start, rotation);
    if (behind)
      behind(l, x);
  }
}

#define INSTANTIATE(S)                                                                     \
  template class EncoderLayer<S>;                                                          \
  template class Encoder<S>;                                                               \
  template Array<S> attention_both_ways(Backend<S>&, RowsOf<S>, RowsOf<S>, RowsOf<S>, int, \
                                        std::span<const Index>, std::span<const Index>);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace moe
