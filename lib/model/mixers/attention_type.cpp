// Attention as an entry of mixers.def. Its fields stand in the model's configuration; its options
// are those of them that a layer can have another value of, so that a pattern of mixers says what
// differs from one kind of layer to the next: "attention:window=128,kv_heads=8*5;attention".
#include <algorithm>
#include <optional>

#include "lib/core/error.h"
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
// norms, a clamp, a gate, a stretch and latent rows add.
Count attention_tape(const MixerShape& m, const ModelConfig& c, bool turned) {
  const bool latent = m.kind == MixerKind::latent;
  const Count q = m.heads * m.head_dim;
  const Count kv = m.kv_heads * m.head_dim;
  const Count value = m.values();
  Count out = q + kv + (m.heads + m.kv_heads) * value + m.heads + 1;
  if (m.gates > 0)
    out += m.gates + m.heads * value;
  if (c.value_norm)
    out += m.kv_heads * (value + 1);
  const bool after = c.qk_norm == QkNorm::head_after || c.qk_norm == QkNorm::length_after;
  if (c.qk_norm != QkNorm::none && (turned || !after))
    out += q + kv + m.heads + m.kv_heads;
  if (c.clip_qkv > 0)
    out += q + kv;
  if (latent)
    out += 2 * (m.q_rank + m.kv_rank + 1);
  out += m.index_topk;
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
  m.keys_are_values = c.values_from_keys;
  m.gate_in_query = c.attention_gate == AttentionGate::query;
  if (c.attention_gate == AttentionGate::head)
    m.gates = c.heads;
  else if (c.attention_gate != AttentionGate::none)
    m.gates = Count(c.heads) * (c.value_dim > 0 ? c.value_dim : c.head_dim);
  m.qk_norm = qk_norm_weights(c);
  if (!c.sees_all(layer))
    m.window = c.window > 0 ? c.window : c.chunk;
  m.q_rank = c.q_rank;
  m.kv_rank = c.kv_rank;
  m.nope = c.nope_dim;
  m.rope = c.rope_dim;
  m.value = c.value_dim;
  m.index_topk = c.index_topk;
  const bool own_index =
      c.index_topk > 0 && std::ranges::find(c.index_shared, layer) == c.index_shared.end();
  m.index_heads = own_index ? c.index_heads : 0;
  m.index_dim = own_index ? c.index_dim : 0;
  m.tape_numbers = attention_tape(m, c, c.has_rope(layer));
  return m;
}

// Of one kind of layer, where it has another value than the model.
struct OwnFields {
  std::optional<int> kv_heads, head_dim, value_dim, window, rotary_dim;
  std::optional<double> rope_theta;
  std::optional<std::string> rope;
  std::optional<bool> sinks, values_from_keys;

  // A spec says nothing of a field that is the model's.
  explicit OwnFields(Spec& s) {
    whole(s, "kv_heads", kv_heads, 1);
    whole(s, "head_dim", head_dim, 1);
    whole(s, "value_dim", value_dim, 0);
    whole(s, "window", window, 0);
    whole(s, "rotary_dim", rotary_dim, 0);
    if (s.has("rope_theta"))
      rope_theta = s.get("rope_theta", 10000.0);
    if (s.has("rope"))
      rope = s.get("rope", "default");
    flag(s, "sinks", sinks);
    flag(s, "values_from_keys", values_from_keys);
  }

  ModelConfig of(const ModelConfig& model, int layer) const {
    ModelConfig c = model;
    c.kv_heads = kv_heads.value_or(c.kv_heads);
    c.head_dim = head_dim.value_or(c.head_dim);
    c.value_dim = value_dim.value_or(c.value_dim);
    c.rotary_dim = rotary_dim.value_or(c.rotary_dim);
    c.rope_theta = rope_theta.value_or(c.rope_theta);
    c.rope = rope.value_or(c.rope);
    c.sinks = sinks.value_or(c.sinks);
    c.values_from_keys = values_from_keys.value_or(c.values_from_keys);
    if (window) {
      c.window = *window;
      c.chunk = 0;
      std::erase(c.full_layers, layer);
    }
    check(model, c);
    return c;
  }

 private:
  static void whole(Spec& s, const char* key, std::optional<int>& value, int least) {
    if (s.has(key))
      value = s.get(key, least, least);
  }
  static void flag(Spec& s, const char* key, std::optional<bool>& value) {
    if (s.has(key))
      value = s.get(key, false);
  }
  void check(const ModelConfig& model, const ModelConfig& c) const {
    check_attention(c);
    if (model.kv_rank > 0 &&
        (kv_heads || head_dim || value_dim || rotary_dim || values_from_keys)) {
      throw Error(Exit::usage,
                  "latent attention has the same heads in every layer, and a layer's mixer says "
                  "others")
          .hint("of latent attention a layer may have its own window, rope, rope_theta and sinks");
    }
    const auto mixed = [](const ModelConfig& m) {
      return rotary_of(m.rope, m.rotary_dims(), m.rope_theta).mixed;
    };
    if (mixed(model) ? rope || head_dim || kv_heads || rope_theta : mixed(c)) {
      throw Error(Exit::usage,
                  "Fourier position embedding is one for all layers, and a layer's mixer says "
                  "another rope or other heads")
          .hint("rope={fourier:...} as a field of the model");
    }
  }
};

class AttentionType final : public MixerType {
 public:
  explicit AttentionType(OwnFields own) : own_(std::move(own)) {}
  bool turns() const override {
    return true;
  }
  bool turns_by_axes() const override {
    return true;
  }
  std::unique_ptr<Mixer<float>> make(const MixerPlace<float>& at) const override {
    return std::make_unique<Attention<float>>(at, own_.of(at.config, at.layer));
  }
  std::unique_ptr<Mixer<double>> make(const MixerPlace<double>& at) const override {
    return std::make_unique<Attention<double>>(at, own_.of(at.config, at.layer));
  }
  MixerShape shape(const ModelConfig& c, int layer) const override {
    return attention_shape(own_.of(c, layer), layer);
  }

 private:
  OwnFields own_;
};

}  // namespace

std::unique_ptr<MixerType> make_attention_mixer(Spec& s) {
  return std::make_unique<AttentionType>(OwnFields(s));
}

ModelConfig attention_fields(const ModelConfig& c, int layer) {
  Spec spec(layer_mixers(c.mixer, c.layers)[std::size_t(layer)]);
  return spec.name() == "attention" ? OwnFields(spec).of(c, layer) : c;
}

std::string attention_spec(const ModelConfig& model, const ModelConfig& own) {
  Spec out("attention");
  const auto add = [&](const char* key, const auto& theirs, const auto& mine) {
    if (theirs != mine)
      out.set(key, concat(mine));
  };
  add("kv_heads", model.kv_heads, own.kv_heads);
  add("head_dim", model.head_dim, own.head_dim);
  add("value_dim", model.value_dim, own.value_dim);
  add("window", model.window, own.window);
  add("rotary_dim", model.rotary_dim, own.rotary_dim);
  add("rope_theta", model.rope_theta, own.rope_theta);
  add("rope", model.rope, own.rope);
  add("sinks", int(model.sinks), int(own.sinks));
  add("values_from_keys", int(model.values_from_keys), int(own.values_from_keys));
  return out.given_text();
}

}  // namespace moe
