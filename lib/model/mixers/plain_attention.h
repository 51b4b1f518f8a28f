// Attention of encoder-decoders: queries, keys and values straight from products, nothing turned;
// in an encoder every query sees every key that is no padding, in a decoder those before it; T5's
// bias by distance where it has buckets. And attention from a decoder to the rows of an encoder.
#pragma once
#include <optional>

#include "lib/backend/backend.h"
#include "lib/model/mixers/relative_bias.h"

namespace moe {

// The four products of one attention, with their biases where the model has them.
template <class S>
struct AttentionProducts {
  AttentionProducts() = default;
  AttentionProducts(const ModelConfig&, Backend<S>&);

  Parameter<S> q, k, v, o, q_bias, k_bias, v_bias, o_bias;
  std::vector<Parameter<S>*> all();
};

template <class S>
struct PlainAttentionTape final : MixerTape {
  Array<S> q, k, v, bias, out, lse;
};

MixerShape cross_shape(const ModelConfig&);

// The mixer of all layers as a spec: attention with a bias by distance, buckets 0 without; and
// back, where every layer has it, null where one has not.
struct PlainAttentionOptions {
  int buckets = 0, distance = 128;
};
std::string plain_attention_spec(const PlainAttentionOptions&);
std::optional<PlainAttentionOptions> plain_attention_of(const ModelConfig&);

// From a decoder's rows to those of the encoder's output, the memory.
template <class S>
class CrossAttention {
 public:
  CrossAttention(const ModelConfig&, Backend<S>&);

  // y (T,H) set: rows of each sequence of `batch` attend to those of its source, memory (Ts,H).
  // `kept` holds keys and values of the memory while decoding: empty ones are filled, others used
  // in its place.
  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<const S> memory,
                                     const Batch& source, View<S> y, MixerState* kept);
  // dx set, dmemory (Ts,H) added to
  void backward(const Batch& batch, const MixerTape&, View<const S> x, View<const S> memory,
                const Batch& source, View<const S> dy, View<S> dx, View<S> dmemory);
  std::unique_ptr<MixerState> new_state() const;
  void collect(std::vector<ModelParameter<S>>& all);

 private:
  AttentionShape shape(const Batch& batch, const Batch& source) const;

  const ModelConfig& config_;
  Backend<S>& backend_;
  AttentionShape shape_;
  AttentionProducts<S> w_;
};

extern template class CrossAttention<float>;
extern template class CrossAttention<double>;

}  // namespace moe
