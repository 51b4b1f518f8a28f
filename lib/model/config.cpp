// Presets, specs and refusals. One function, visit(), knows every field: it reads them from a spec,
// and since a spec remembers what it was asked for, it also writes them.
#include "lib/model/config.h"

#include <algorithm>

#include "lib/backend/backend.h"
#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/layer/moe_layer.h"
#include "lib/model/layer_list.h"
#include "lib/model/mixer_type.h"
#include "lib/model/rope_axes.h"

namespace moe {
namespace {

template <class E>
void pick(Spec& spec, const char* key, E& value,
          std::initializer_list<std::pair<E, const char*>> names) {
  std::vector<std::string> all;
  std::string now;
  for (const auto& [v, name] : names) {
    all.emplace_back(name);
    if (v == value)
      now = name;
  }
  const std::string chosen = spec.get(key, now);
  for (const auto& [v, name] : names) {
    if (chosen == name)
      return void(value = v);
  }
  no_such(key, chosen, all);
}

void visit_routing(Spec& s, LayerConfig& m) {
  m.router = s.get("router", m.router);
  m.capacity = s.get("capacity", m.capacity);
  m.balance = split_list(s.get("balance", m.balance.empty() ? "none" : join(m.balance, ";")), ";+");
  std::erase_if(m.balance, [](const std::string& b) { return b == "none"; });
}

void visit(Spec& s, LayerConfig& m) {
  m.experts = s.get("experts", m.experts, 1);
  m.width = s.get("width", int(m.width), 1);
  m.widths = widths_of(s.get("widths", list_text(m.widths)));
  m.types = expert_types_of(s.get("expert_types", list_text(m.types)));
  m.zc_tau = s.get("zc_tau", m.zc_tau);
  m.zc_capacity = s.get("zc_capacity", m.zc_capacity);
  m.zc_exclude_zero = s.get("zc_exclude_zero", m.zc_exclude_zero);
  m.gate_residual = s.get("gate_residual", m.gate_residual);
  visit_routing(s, m);
  const float limit = m.activation.limit;
  m.activation = activation_of(s.get("activation", std::string(name_of(m.activation))));
  m.activation.limit = limit;
  m.shared_width = s.get("shared_width", int(m.shared_width), 0);
  m.shared_gate = s.get("shared_gate", m.shared_gate);
  m.router_bias = s.get("router_bias", m.router_bias);
  m.expert_bias = s.get("expert_bias", m.expert_bias);
  m.weight_on_input = s.get("weight_on_input", m.weight_on_input);
}

std::vector<int> numbers_of(Spec& s, const char* key, const std::vector<int>& now) {
  std::string text;
  for (const int n : now)
    text += concat(text.empty() ? "" : ";", n);
  const std::string given = s.get(key, text.empty() ? "none" : text);
  std::vector<int> out;
  if (given == "none")
    return out;
  for (const std::string& word : split_list(given)) {
    if (word.empty() || word.size() > 6 || word.find_first_not_of("0123456789") != word.npos) {
      throw Error(Exit::usage, concat(key, "=", given, " has '", word,
                                      "' where the number of a layer is expected"))
          .hint(concat(key, "=0+3, or none"));
    }
    out.push_back(std::stoi(word));
  }
  return out;
}

void visit_attention(Spec& s, ModelConfig& c) {
  c.chunk = s.get("chunk", c.chunk, 0);
  c.full_layers = numbers_of(s, "full_layers", c.full_layers);
  c.no_rope_layers = numbers_of(s, "no_rope_layers", c.no_rope_layers);
  c.rope = s.get("rope", c.rope);
  c.rotary_dim = s.get("rotary_dim", c.rotary_dim, 0);
  c.rope_interleaved = s.get("rope_interleaved", c.rope_interleaved);
  c.stretch_floor = s.get("stretch_floor", c.stretch_floor, 0.0);
  c.stretch_scale = s.get("stretch_scale", c.stretch_scale);
  c.attention_scale = s.get("attention_scale", c.attention_scale, 0.0);
  c.clip_qkv = s.get("clip_qkv", c.clip_qkv, 0.0);
  c.qkv_bias = s.get("qkv_bias", c.qkv_bias);
  c.o_bias = s.get("o_bias", c.o_bias);
  c.sinks = s.get("sinks", c.sinks);
  c.q_rank = s.get("q_rank", c.q_rank, 0);
  c.kv_rank = s.get("kv_rank", c.kv_rank, 0);
  c.nope_dim = s.get("nope_dim", c.nope_dim, 0);
  c.rope_dim = s.get("rope_dim", c.rope_dim, 0);
  c.value_dim = s.get("value_dim", c.value_dim, 0);
}

void visit_sizes(Spec& s, ModelConfig& c) {
  c.vocabulary = s.get("vocabulary", c.vocabulary, 2);
  c.hidden = s.get("hidden", c.hidden, 1);
  c.layers = s.get("layers", c.layers, 1);
  c.heads = s.get("heads", c.heads, 1);
  c.kv_heads = s.get("kv_heads", c.kv_heads, 1);
  c.head_dim = s.get("head_dim", c.head_dim, 0);
  c.context = s.get("context", c.context, 1);
  c.rope_theta = s.get("rope_theta", c.rope_theta);
  c.norm_eps = s.get("norm_eps", c.norm_eps, 0.0);
  c.tied = s.get("tied", c.tied);
  pick<QkNorm>(s, "qk_norm", c.qk_norm,
               {{QkNorm::none, "none"},
                {QkNorm::head, "head"},
                {QkNorm::full, "full"},
                {QkNorm::head_after, "head_after"},
                {QkNorm::length_after, "length_after"}});
  c.window = s.get("window", c.window, 0);
}

void visit_scales(Spec& s, ModelConfig& c) {
  pick<NormKind>(s, "norm", c.norm,
                 {{NormKind::rms, "rms"},
                  {NormKind::layer, "layer"},
                  {NormKind::layer_bias, "layer_bias"},
                  {NormKind::rms_plus_one, "rms_plus_one"}});
  c.output_bias = s.get("output_bias", c.output_bias);
  c.embedding_scale = s.get("embedding_scale", c.embedding_scale);
  c.residual_scale = s.get("residual_scale", c.residual_scale);
  c.logit_divisor = s.get("logit_divisor", c.logit_divisor);
}

void visit_layers(Spec& s, ModelConfig& c) {
  c.dense_layers = s.get("dense_layers", c.dense_layers, 0);
  c.moe_every = s.get("moe_every", c.moe_every, 1);
  c.dense_at = numbers_of(s, "dense_at", c.dense_at);
  c.dense_width = s.get("dense_width", c.dense_width, 0);
  c.dense = s.get("dense", c.dense);
}

const Preset* find_preset(const std::string& name) {
  const auto& all = model_presets();
  const auto at = std::ranges::find(all, name, &Preset::name);
  return at == all.end() ? nullptr : &*at;
}

const Preset& preset_of(const std::string& name) {
  if (const Preset* known = find_preset(name))
    return *known;
  std::vector<std::string> names;
  for (const Preset& p : model_presets())
    names.emplace_back(p.name);
  no_such("model", name, names);
}

Spec spec_of(const Preset& p) {
  return Spec(concat(p.name, ":", p.fields));
}

// Which fields a spec says: stored ones are silent about fields that came later and have their
// default, so that specs stored before those were there stay as they are; but not about those that
// the preset sets to something else.
enum class Said { stored, all };

// The fields that came later.
class Later {
 public:
  Later(Spec& spec, Said said, const Spec& preset) : spec_(spec), said_(said), preset_(preset) {}
  template <class V>
  void field(const char* key, V& value, const V& usual) {
    if (says(key, value, usual))
      value = spec_.get(key, value);
  }
  void layers(const char* key, std::vector<int>& value) {
    if (says(key, value, {}))
      value = numbers_of(spec_, key, value);
  }
  void signals(const char* key, SignalShapes& value) {
    if (says(key, value, {}))
      value = signal_shapes(spec_.get(key, signal_text(value)));
  }
  void projector(const char* key, ProjectorKind& value) {
    if (says(key, value, ProjectorKind::linear)) {
      pick<ProjectorKind>(
          spec_, key, value,
          {{ProjectorKind::linear, "linear"}, {ProjectorKind::mlp2x_gelu, "mlp2x_gelu"}});
    }
  }
  void beside(const char* key, DenseBeside& value) {
    if (says(key, value, DenseBeside::none)) {
      pick<DenseBeside>(spec_, key, value,
                        {{DenseBeside::none, "none"},
                         {DenseBeside::normed, "normed"},
                         {DenseBeside::shortcut, "shortcut"}});
    }
  }
  void gate(const char* key, AttentionGate& value) {
    if (says(key, value, AttentionGate::none)) {
      pick<AttentionGate>(spec_, key, value,
                          {{AttentionGate::none, "none"},
                           {AttentionGate::full, "full"},
                           {AttentionGate::query, "query"},
                           {AttentionGate::head, "head"}});
    }
  }

 private:
  template <class V>
  bool says(const char* key, const V& value, const V& usual) const {
    return said_ == Said::all || spec_.has(key) || preset_.has(key) || value != usual;
  }
  Spec& spec_;
  Said said_;
  const Spec& preset_;
};

void visit_latest(Later& later, ModelConfig& c) {
  const ModelConfig usual;
  int latent = int(c.moe.latent_width);
  later.field("latent_width", latent, 0);
  c.moe.latent_width = latent;
  later.beside("dense_beside", c.dense_beside);
  later.field("expert_scale", c.moe.expert_scale, usual.moe.expert_scale);
  later.field("index_topk", c.index_topk, usual.index_topk);
  later.field("index_heads", c.index_heads, usual.index_heads);
  later.field("index_dim", c.index_dim, usual.index_dim);
  later.field("index_interleaved", c.index_interleaved, usual.index_interleaved);
  later.layers("index_shared", c.index_shared);
  later.field("layer_scale", c.layer_scale, usual.layer_scale);
  later.field("logit_cap", c.logit_cap, usual.logit_cap);
}

void visit_streams(Later& later, ModelConfig& c) {
  const ModelConfig usual;
  double limit = c.moe.activation.limit;
  later.field("swiglu_limit", limit, 0.0);
  c.moe.activation.limit = float(limit);
  later.layers("table_layers", c.table_layers);
  later.field("streams", c.streams, usual.streams);
  later.field("stream_rounds", c.stream_rounds, usual.stream_rounds);
  later.field("stream_eps", c.stream_eps, usual.stream_eps);
  later.signals("signal", c.signal);
  later.projector("projector", c.projector);
}

void visit_attention_experts(Later& later, ModelConfig& c) {
  const ModelConfig usual;
  later.field("moe_bias", c.moe.output_bias, usual.moe.output_bias);
  later.field("final_norm_eps", c.final_norm_eps, usual.final_norm_eps);
  later.field("rope_axes", c.rope_axes, usual.rope_axes);
}

void visit_encoder(Later& later, ModelConfig& c) {
  const ModelConfig usual;
  later.field("encoder_layers", c.encoder_layers, usual.encoder_layers);
  later.field("decoder_width", c.decoder_width, usual.decoder_width);
  later.field("sinusoidal", c.sinusoidal, usual.sinusoidal);
  later.field("route_padding", c.route_padding, usual.route_padding);
  later.field("start_token", c.start_token, usual.start_token);
  later.field("pad_token", c.pad_token, usual.pad_token);
  later.field("dense_bias", c.dense_bias, usual.dense_bias);
  later.field("encoder_embedding", c.encoder_embedding, usual.encoder_embedding);
}

void visit_residual(Later& later, ResidualFactors& factors) {
  later.field("attention_alpha", factors.attention_alpha, 1.0);
  later.field("attention_beta", factors.attention_beta, 1.0);
  later.field("recurrent_alpha", factors.recurrent_alpha, 1.0);
  later.field("recurrent_beta", factors.recurrent_beta, 1.0);
  later.field("feed_alpha", factors.feed_alpha, 1.0);
  later.field("feed_beta", factors.feed_beta, 1.0);
}

void visit_later(Spec& s, ModelConfig& c, Said said) {
  const ModelConfig usual;
  const Preset* known = find_preset(s.name());  // a published family has none
  const Spec preset = known ? spec_of(*known) : Spec(s.name());
  Later later(s, said, preset);
  later.field("mixer", c.mixer, usual.mixer);
  later.field("norm_after", c.norm_after, usual.norm_after);
  later.field("norm_both", c.norm_both, usual.norm_both);
  later.field("moe_norm_after", c.moe_norm_after, usual.moe_norm_after);
  later.gate("attention_gate", c.attention_gate);
  later.field("value_scale", c.value_scale, usual.value_scale);
  later.field("values_from_keys", c.values_from_keys, usual.values_from_keys);
  later.field("value_norm", c.value_norm, usual.value_norm);
  later.field("stretch_turned", c.stretch_turned, usual.stretch_turned);
  later.field("q_latent_scale", c.q_latent_scale, usual.q_latent_scale);
  later.field("kv_latent_scale", c.kv_latent_scale, usual.kv_latent_scale);
  later.field("feed", c.feed, usual.feed);
  later.field("embedding_norm", c.embedding_norm, usual.embedding_norm);
  later.field("halve_every", c.halve_every, usual.halve_every);
  later.field("residual_normed", c.residual_normed, usual.residual_normed);
  visit_residual(later, c.residual);
  visit_latest(later, c);
  visit_encoder(later, c);
  visit_streams(later, c);
  visit_attention_experts(later, c);
}

// Every field, from the spec where it is given, else as it is. The order is that of stored specs.
void visit(Spec& s, ModelConfig& c, Said said = Said::stored) {
  visit_sizes(s, c);
  visit_attention(s, c);
  visit_scales(s, c);
  visit_layers(s, c);
  pick<std::string>(s, "init", c.init,
                    {{"trunc_normal", "trunc_normal"},
                     {"layerwise", "layerwise"},
                     {"depth_scaled", "depth_scaled"},
                     {"switch", "switch"}});
  visit(s, c.moe);
  c.moe.hidden = c.hidden;
  visit_later(s, c, said);
}

std::string written(const ModelConfig& config, Said said) {
  ModelConfig c = config;
  Spec spec(c.preset.empty() ? "custom" : c.preset);
  visit(spec, c, said);
  return spec.resolved();
}

}  // namespace

const std::vector<Preset>& model_presets() {
  static const std::vector<Preset> all{
#define PRESET(name, about, fields) {name, about, fields},
#include "lib/model/presets.def"
#undef PRESET
  };
  return all;
}

ModelConfig model_config(const std::string& text) {
  return model_config(Spec(text));
}
ModelConfig model_config(Spec spec) {
  const Preset& preset = preset_of(spec.name());
  ModelConfig c;
  c.preset = preset.name;
  c.head_dim = 0;
  Spec base = spec_of(preset);
  visit(base, c);
  base.done();
  visit(spec, c);
  spec.done();
  if (c.head_dim == 0 && c.kv_rank > 0)
    c.head_dim = c.nope_dim + c.rope_dim;
  if (c.head_dim == 0) {
    if (c.hidden % c.heads != 0) {
      throw Error(Exit::usage,
                  concat("the hidden size ", c.hidden, " is not divisible by ", c.heads, " heads"))
          .hint(concat("hidden=", (c.hidden / c.heads + 1) * c.heads,
                       ", another number of heads, or head_dim=", c.hidden / c.heads + 1));
    }
    c.head_dim = c.hidden / c.heads;
  }
  return resolved(c);
}

std::string to_spec(const ModelConfig& config) {
  return written(config, Said::stored);
}
std::string to_full_spec(const ModelConfig& config) {
  return written(config, Said::all);
}

namespace {

std::string resolved_feeds(const ModelConfig& c) {
  if (c.feed.empty())
    return "";
  const std::vector<FeedKind> feeds = c.feeds();
  std::vector<std::string> pattern = layer_pattern(c.feed, c.layers, "feed");
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (feeds[i] == FeedKind::mixer && pattern[i] != attention_experts)
      pattern[i] = resolved_mixer(pattern[i]);
  }
  return layer_list(std::move(pattern));
}

}  // namespace

ModelConfig resolved(const ModelConfig& config) {
  check(config);
  ModelConfig c = config;
  c.mixer = resolved_mixers(c.mixer, c.layers);
  mixer_shapes(c);  // refuses what a layer's own options make wrong
  c.feed = resolved_feeds(c);
  if (const auto axes = rope_axes(c.rope_axes))
    c.rope_axes = axes_text(*axes);
  // the layer itself says what it refuses and fills in defaults; its smallest size costs nothing
  LayerConfig small = c.moe;
  small.hidden = small.width = 1;
  for (Index& w : small.widths)
    w = 1;
  small.shared_width = std::min<Index>(small.shared_width, 1);
  const auto backend = make_reference<double>();
  const MoeLayer<double> layer(small, *backend);
  if (!c.moe.widths.empty())
    c.moe.width = std::ranges::max(c.moe.widths);
  c.moe.router = layer.config().router;
  c.moe.capacity = layer.config().capacity;
  c.moe.balance = layer.config().balance;
  std::erase_if(c.moe.balance, [](const std::string& b) { return b == "none"; });
  return c;
}

}  // namespace moe
