// Presets, specs and refusals. One function, visit(), knows every field: it reads them from a spec, and since a spec remembers what
// it was asked for, it also writes them.
#include "lib/model/config.h"

#include "lib/core/error.h"

namespace moe {
namespace {

template <class E>
void pick(Spec& spec, const char* key, E& value, std::initializer_list<std::pair<E, const char*>> names) {
  std::vector<std::string> all;
  std::string now;
  for (const auto& [v, name] : names) {
    all.emplace_back(name);
    if (v == value) now = name;
  }
  const std::string chosen = spec.get(key, now);
  for (const auto& [v, name] : names)
    if (chosen == name) return void(value = v);
  no_such(key, chosen, all);
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
  m.router = s.get("router", m.router);
  m.capacity = s.get("capacity", m.capacity);
  m.balance = split(s.get("balance", m.balance.empty() ? "none" : join(m.balance, ";")), ';');
  std::erase_if(m.balance, [](const std::string& b) { return b == "none"; });
  m.activation = activation_of(s.get("activation", std::string(name_of(m.activation))));
  m.shared_width = s.get("shared_width", int(m.shared_width), 0);
  m.shared_gate = s.get("shared_gate", m.shared_gate);
  m.router_bias = s.get("router_bias", m.router_bias);
  m.expert_bias = s.get("expert_bias", m.expert_bias);
  m.weight_on_input = s.get("weight_on_input", m.weight_on_input);
}

// Every field, from the spec where it is given, else as it is.
void visit(Spec& s, ModelConfig& c) {
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
  pick<QkNorm>(s, "qk_norm", c.qk_norm, {{QkNorm::none, "none"}, {QkNorm::head, "head"}, {QkNorm::full, "full"}});
  c.window = s.get("window", c.window, 0);
  c.dense_layers = s.get("dense_layers", c.dense_layers, 0);
  c.moe_every = s.get("moe_every", c.moe_every, 1);
  c.dense_width = s.get("dense_width", c.dense_width, 0);
  c.dense = s.get("dense", c.dense);
  pick<std::string>(s, "init", c.init, {{"trunc_normal", "trunc_normal"}, {"layerwise", "layerwise"}, {"depth_scaled", "depth_scaled"}, {"switch", "switch"}});
  visit(s, c.moe);
  c.moe.hidden = c.hidden;
}

void refuse(bool when, const std::string& sentence, const std::string& hint) {
  if (when) throw Error(Exit::usage, sentence).hint(hint);
}

const Preset& preset_of(const std::string& name) {
  std::vector<std::string> names;
  for (const Preset& p : model_presets()) {
    if (p.name == name) return p;
    names.emplace_back(p.name);
  }
  no_such("model", name, names);
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

bool ModelConfig::is_moe(int layer) const { return !dense && layer >= dense_layers && (layer - dense_layers + 1) % moe_every == 0; }
int ModelConfig::moe_layers() const {
  int n = 0;
  for (int l = 0; l < layers; ++l) n += is_moe(l);
  return n;
}
int ModelConfig::twin_width() const {
  return dense_width > 0 ? dense_width : make_router(moe.router, moe.experts)->choices() * int(moe.width) + int(moe.shared_width);
}

ModelConfig model_config(const std::string& text) { return model_config(Spec(text)); }
ModelConfig model_config(Spec spec) {
  const Preset& preset = preset_of(spec.name());
  ModelConfig c;
  c.preset = preset.name;
  c.head_dim = 0;
  Spec base(concat(preset.name, ":", preset.fields));
  visit(base, c);
  base.done();
  visit(spec, c);
  spec.done();
  if (c.head_dim == 0) {
    refuse(c.hidden % c.heads != 0, concat("the hidden size ", c.hidden, " is not divisible by ", c.heads, " heads"),
           concat("hidden=", (c.hidden / c.heads + 1) * c.heads, ", another number of heads, or head_dim=", c.hidden / c.heads + 1));
    c.head_dim = c.hidden / c.heads;
  }
  return resolved(c);
}

std::string to_spec(const ModelConfig& config) {
  ModelConfig c = config;
  Spec spec(c.preset.empty() ? "custom" : c.preset);
  visit(spec, c);
  return spec.resolved();
}

void check(const ModelConfig& c) {
  refuse(c.vocabulary < 2 || c.hidden < 1 || c.layers < 1 || c.heads < 1 || c.kv_heads < 1 || c.head_dim < 1 || c.context < 1,
         concat("a model needs sizes of at least 1 and two words, got vocabulary=", c.vocabulary, ", hidden=", c.hidden, ", layers=", c.layers,
                ", heads=", c.heads, ", kv_heads=", c.kv_heads, ", head_dim=", c.head_dim, ", context=", c.context), "see moe list models");
  refuse(c.heads % c.kv_heads != 0, concat(c.heads, " query heads do not share ", c.kv_heads, " key heads evenly"), concat("kv_heads=", c.heads, " or a divisor of it"));
  refuse(c.head_dim % 2 != 0, concat("head_dim=", c.head_dim, " is odd and rotary embedding turns pairs"), concat("head_dim=", c.head_dim + 1));
  refuse(!(c.rope_theta > 0), concat("rope_theta=", c.rope_theta, " must be above 0"), "rope_theta=10000");
  refuse(!(c.norm_eps >= 0), concat("norm_eps=", c.norm_eps, " must be at least 0"), "norm_eps=1e-5");
  refuse(c.window < 0, concat("window=", c.window, " must be at least 0"), "window=0 for no limit");
  refuse(c.moe_every < 1, concat("moe_every=", c.moe_every, " must be at least 1"), "moe_every=1");
  refuse(c.dense_width < 0, concat("dense_width=", c.dense_width, " must be at least 0"), "dense_width=0 for as many active parameters as a MoE layer");
  refuse(c.moe.experts < 1 || c.moe.width < 1 || c.moe.shared_width < 0,
         concat("a MoE layer needs experts, got experts=", c.moe.experts, ", width=", c.moe.width, ", shared_width=", c.moe.shared_width), "experts=8,width=192");
  refuse(c.moe.hidden != c.hidden, concat("the MoE layers have hidden size ", c.moe.hidden, " and the model ", c.hidden), "give both the same");
  refuse(!c.dense && c.moe_layers() == 0, concat("none of the ", c.layers, " layers is MoE with dense_layers=", c.dense_layers, " and moe_every=", c.moe_every),
         "fewer dense layers, or dense=1 for a dense model");
  refuse(c.moe.shared_gate && c.moe.shared_width == 0, "shared_gate=1 needs a shared expert and shared_width is 0", concat("shared_width=", c.moe.width));
  refuse(c.moe.router_bias && make_router(c.moe.router, c.moe.experts)->projections().empty(),
         concat("router_bias=1 needs a router with scores, and ", c.moe.router, " has none"), "router_bias=0");
}

ModelConfig resolved(const ModelConfig& config) {
  check(config);
  ModelConfig c = config;
  LayerConfig small = c.moe;  // the layer itself says what it refuses and fills in defaults; its smallest size costs nothing
  small.hidden = small.width = 1;
  for (Index& w : small.widths) w = 1;
  small.shared_width = std::min<Index>(small.shared_width, 1);
  const auto backend = make_reference<double>();
  const MoeLayer<double> layer(small, *backend);
  if (!c.moe.widths.empty()) c.moe.width = std::ranges::max(c.moe.widths);
  c.moe.router = layer.config().router;
  c.moe.capacity = layer.config().capacity;
  c.moe.balance = layer.config().balance;
  std::erase_if(c.moe.balance, [](const std::string& b) { return b == "none"; });
  return c;
}

}  // namespace moe
