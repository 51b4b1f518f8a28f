// Encoder layers as all of these families have them: LayerNorm, attention that sees both ways
// inside its sequence (a frame, a clip, a window of sound), LayerNorm, two products with an
// activation between; biases everywhere. Forwards only: nothing here is trained.
#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "lib/tower/affine.h"
#include "lib/tower/rotation.h"

namespace moe {

struct EncoderShape {
  Index hidden = 0, width = 0;
  int heads = 1, layers = 0;
  double eps = 1e-5;
  TowerActivation activation = {};
};
// Throws Error(input), beginning with `what`, where heads do not divide the hidden size.
void check_heads(const EncoderShape&, const std::string& what);

// The names of one layer's tensors behind "prefixN."; `joint` in place of query, key and value
// where these are one matrix, in that order.
struct LayerNames {
  std::string first_norm, joint, query, key, value, out, second_norm, up, down;
};
LayerNames clip_names();  // CLIP's, which SigLIP kept
// Blocks with one product for queries, keys and values, as Qwen and ERNIE write them.
LayerNames block_names(std::string up, std::string down);

template <class S>
class EncoderLayer {
 public:
  EncoderLayer(TowerTensors<S>&, const std::string& prefix, const LayerNames&, const EncoderShape&);
  // x (T,H) in place; rows start[i] .. start[i+1] see each other and nothing else.
  void forward(Backend<S>&, View<S> x, std::span<const Index> start, const PatchRotation<S>*) const;

 private:
  Array<S> attention(Backend<S>&, View<const S> x, std::span<const Index> start,
                     const PatchRotation<S>*) const;
  Array<S> third(Backend<S>&, View<const S> x, Index which) const;

  EncoderShape shape_;
  RowNorm<S> first_norm_, second_norm_;
  Affine<S> joint_, out_, up_, down_;  // joint_: (3H,H)
};

template <class S>
class Encoder {
 public:
  Encoder() = default;
  // prefix: "vision_model.encoder.layers."
  Encoder(TowerTensors<S>&, const std::string& prefix, const LayerNames&, const EncoderShape&);
  const EncoderShape& shape() const {
    return shape_;
  }
  // The first `layers` of them, in place; `behind` is told the output of each.
  using Listener = std::function<void(int layer, View<const S> x)>;
  void forward(Backend<S>&, View<S> x, std::span<const Index> start, const PatchRotation<S>*,
               int layers, const Listener& behind = {}) const;
  void forward(Backend<S>& b, View<S> x, std::span<const Index> start, const PatchRotation<S>* r,
               const Listener& behind = {}) const {
    forward(b, x, start, r, shape_.layers, behind);
  }

 private:
  EncoderShape shape_;
  std::vector<EncoderLayer<S>> layers_;
};

// Attention of every head, both ways: q (Tq,H), k and v (Tk,H), sequences as given.
template <class S>
Array<S> attention_both_ways(Backend<S>&, RowsOf<S> q, RowsOf<S> k, RowsOf<S> v, int heads,
                             std::span<const Index> query_start, std::span<const Index> key_start);

extern template class EncoderLayer<float>;
extern template class EncoderLayer<double>;
extern template class Encoder<float>;
extern template class Encoder<double>;

}  // namespace moe
