// Attention as an entry of mixers.def: it has no options of its own, since its fields stand in the
// model's configuration, and its shape comes from those.
#include "lib/model/mixers/attention.h"

namespace moe {
namespace {

Count qk_norm_weights(const ModelConfig& c) {
  switch (c.qk_norm) {
    case QkNorm::head:
    case QkNorm::head_after:
      return 2 * Count(c.head_dim);
    case QkNorm::full:
      return Count(c.heads + c.kv_heads) * c.head_dim;
    case QkNorm::none:
    case QkNorm::length_after:
      break;
  }
  return 0;
}

// Queries, keys, values and the output, the softmax of each head and the position of a token; what
// norms, a clamp and latent rows add.
Count attention_tape(const MixerShape& m, const ModelConfig& c, bool turned) {
  const bool latent = m.kind == MixerKind::latent;
  const Count q = m.heads * m.head_dim;
  const Count kv = m.kv_heads * m.head_dim;
  const Count value = latent ? m.value : m.head_dim;
  Count out = q + kv + (m.heads + m.kv_heads) * value + m.heads + 1;
  const bool after = c.qk_norm == QkNorm::head_after || c.qk_norm == QkNorm::length_after;
  if (c.qk_norm != QkNorm::none && (turned || !after))
    out += q + kv + m.heads + m.kv_heads;
  if (c.clip_qkv > 0)
    out += q + kv;
  if (latent)
    out += 2 * (m.q_rank + m.kv_rank + 1);
  return out;
}

MixerShape attention_shape(const ModelConfig& c, int layer) {
  MixerShape m;
  m.kind = c.kv_rank > 0 ? MixerKind::latent : MixerKind::attention;
  m.heads = c.heads;
  m.kv_heads = c.kv_heads;
  m.head_dim = c.head_dim;
  m.qkv_bias = c.qkv_bias;
  m.o_bias = c.o_bias;
  m.sinks = c.sinks;
  m.qk_norm = qk_norm_weights(c);
  if (!c.sees_all(layer))
    m.window = c.window > 0 ? c.window : c.chunk;
  m.q_rank = c.q_rank;
  m.kv_rank = c.kv_rank;
  m.nope = c.nope_dim;
  m.rope = c.rope_dim;
  m.value = c.value_dim;
  m.tape_numbers = attention_tape(m, c, c.has_rope(layer));
  return m;
}

class AttentionType final : public MixerType {
 public:
  std::unique_ptr<Mixer<float>> make(const MixerPlace<float>& at) const override {
    return std::make_unique<Attention<float>>(at);
  }
  std::unique_ptr<Mixer<double>> make(const MixerPlace<double>& at) const override {
    return std::make_unique<Attention<double>>(at);
  }
  MixerShape shape(const ModelConfig& c, int layer) const override {
    return attention_shape(c, layer);
  }
};

}  // namespace

std::unique_ptr<MixerType> make_attention_mixer(Spec&) {
  return std::make_unique<AttentionType>();
}

}  // namespace moe
