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
#include "lib/model/rotary.h"
#include "lib/router/router.h"

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
  m.activation = activation_of(s.get("activation", std::string(name_of(m.activation))));
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

// Which fields a spec says: stored ones are silent about fields that came later and have their
// default, so that specs stored before those were there stay as they are.
enum class Said { stored, all };

// The fields that came later.
class Later {
 public:
  Later(Spec& spec, Said said) : spec_(spec), said_(said) {}
  template <class V>
  void field(const char* key, V& value, const V& usual) {
    if (says(key, value, usual))
      value = spec_.get(key, value);
  }
  void layers(const char* key, std::vector<int>& value) {
    if (says(key, value, {}))
      value = numbers_of(spec_, key, value);
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
    return said_ == Said::all || spec_.has(key) || value != usual;
  }
  Spec& spec_;
  Said said_;
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

void visit_later(Spec& s, ModelConfig& c, Said said) {
  const ModelConfig usual;
  Later later(s, said);
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
  later.field("attention_alpha", c.residual.attention_alpha, 1.0);
  later.field("attention_beta", c.residual.attention_beta, 1.0);
  later.field("recurrent_alpha", c.residual.recurrent_alpha, 1.0);
  later.field("recurrent_beta", c.residual.recurrent_beta, 1.0);
  later.field("feed_alpha", c.residual.feed_alpha, 1.0);
  later.field("feed_beta", c.residual.feed_beta, 1.0);
  visit_latest(later, c);
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

bool listed(const std::vector<int>& layers, int layer) {
  return std::ranges::find(layers, layer) != layers.end();
}

void refuse(bool when, const std::string& sentence, const std::string& hint) {
  if (when)
    throw Error(Exit::usage, sentence).hint(hint);
}

const Preset& preset_of(const std::string& name) {
  std::vector<std::string> names;
  for (const Preset& p : model_presets()) {
    if (p.name == name)
      return p;
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

ModelConfig model_config(const std::string& text) {
  return model_config(Spec(text));
}
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
  if (c.head_dim == 0 && c.kv_rank > 0)
    c.head_dim = c.nope_dim + c.rope_dim;
  if (c.head_dim == 0) {
    refuse(c.hidden % c.heads != 0,
           concat("the hidden size ", c.hidden, " is not divisible by ", c.heads, " heads"),
           concat("hidden=", (c.hidden / c.heads + 1) * c.heads,
                  ", another number of heads, or head_dim=", c.hidden / c.heads + 1));
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

void check_rotary(const ModelConfig& c) {
  if (c.rope == rope_none)
    return;
  refuse(c.rotary_dims() % 2 != 0 || c.rotary_dims() > c.head_dim,
         concat("rotary embedding turns pairs, and ", c.rotary_dims(), " of ", c.head_dim,
                " numbers of a head were asked for"),
         "rotary_dim=0 for all, or an even number");
  const bool mixed = rotary_of(c.rope, c.rotary_dims(), c.rope_theta).mixed;
  refuse(mixed && (c.rope_interleaved || c.rotary_dims() != c.head_dim),
         "Fourier position embedding turns whole heads in pairs (j, j + d/2)",
         "rope_interleaved=0,rotary_dim=0,kv_rank=0, or another rope");
}

void check_visible(const ModelConfig& c) {
  for (const auto* list : {&c.full_layers, &c.no_rope_layers, &c.dense_at, &c.index_shared}) {
    for (const int l : *list) {
      refuse(l >= c.layers, concat("layer ", l, " was named and the model has ", c.layers),
             "layers count from 0");
    }
  }
  refuse(c.window > 0 && c.chunk > 0,
         concat("window=", c.window, " and chunk=", c.chunk, " both cut what a query sees"),
         "chunk=0");
  refuse(c.logit_divisor == 0 || c.residual_scale == 0 || c.embedding_scale == 0,
         "a factor of 0 would silence the model",
         "embedding_scale=1,residual_scale=1,logit_divisor=1");
  refuse(c.stretch_scale != 0 && c.stretch_floor <= 0,
         concat("stretch_scale=", c.stretch_scale,
                " counts positions in steps of stretch_floor, which is ", c.stretch_floor),
         "stretch_floor=8192");
}

void check_latent(const ModelConfig& c) {
  if (c.kv_rank == 0) {
    return refuse(
        c.q_rank > 0 || c.nope_dim > 0 || c.rope_dim > 0 || c.q_latent_scale != 1 ||
            c.kv_latent_scale != 1,
        "q_rank, nope_dim, rope_dim and the scales of latents belong to latent attention, "
        "and kv_rank is 0",
        "kv_rank=32");
  }
  refuse(c.nope_dim < 1 || c.rope_dim < 2 || c.value_dim < 1,
         concat("latent attention needs nope_dim, rope_dim and value_dim, got ", c.nope_dim, ", ",
                c.rope_dim, " and ", c.value_dim),
         "nope_dim=16,rope_dim=8,value_dim=16");
  refuse(c.head_dim != c.nope_dim + c.rope_dim,
         concat("head_dim=", c.head_dim, " is not nope_dim + rope_dim = ", c.nope_dim + c.rope_dim),
         concat("head_dim=", c.nope_dim + c.rope_dim));
  refuse(c.heads != c.kv_heads,
         concat("latent attention has a key for each of its ", c.heads, " heads, and kv_heads is ",
                c.kv_heads),
         concat("kv_heads=", c.heads));
  refuse(
      c.qk_norm != QkNorm::none || c.clip_qkv > 0 || c.values_from_keys || c.value_norm ||
          c.value_scale != 1 || c.attention_gate == AttentionGate::query,
      "latent attention has neither qk_norm nor clip_qkv nor what is done to values, and no gate "
      "in its queries",
      "qk_norm=none,clip_qkv=0,values_from_keys=0,value_norm=0,value_scale=1,"
      "attention_gate=none");
}

void check_values(const ModelConfig& c) {
  refuse(c.value_dim < 0, concat("value_dim=", c.value_dim, " must be at least 0"), "value_dim=0");
  refuse(c.value_scale == 0 || c.q_latent_scale == 0 || c.kv_latent_scale == 0,
         "a factor of 0 would silence attention",
         "value_scale=1,q_latent_scale=1,kv_latent_scale=1");
  if (c.kv_rank > 0)
    return;
  const bool as_wide = c.value_dim == 0 || c.value_dim == c.head_dim;
  refuse(!as_wide && (c.values_from_keys || c.attention_gate == AttentionGate::query),
         concat("values of ", c.value_dim,
                " numbers a head are asked for, and keys or the gate in "
                "the query matrix have ",
                c.head_dim),
         "value_dim=0, or values_from_keys=0 and attention_gate=full");
  refuse(c.values_from_keys && c.clip_qkv > 0,
         "values that are the keys are not clamped apart from them", "clip_qkv=0");
}

void check_heads(const ModelConfig& c) {
  refuse(c.heads % c.kv_heads != 0,
         concat(c.heads, " query heads do not share ", c.kv_heads, " key heads evenly"),
         concat("kv_heads=", c.heads, " or a divisor of it"));
  refuse(c.rope != rope_none && c.rotary_dim == 0 && c.kv_rank == 0 && c.head_dim % 2 != 0,
         concat("head_dim=", c.head_dim, " is odd and rotary embedding turns pairs"),
         concat("head_dim=", c.head_dim + 1));
  refuse(!(c.rope_theta > 0), concat("rope_theta=", c.rope_theta, " must be above 0"),
         "rope_theta=10000");
  refuse(!(c.norm_eps >= 0), concat("norm_eps=", c.norm_eps, " must be at least 0"),
         "norm_eps=1e-5");
  refuse(c.window < 0, concat("window=", c.window, " must be at least 0"), "window=0 for no limit");
}

void check_feeds(const ModelConfig& c) {
  if (c.feed.empty())
    return;
  refuse(
      c.dense_layers > 0 || c.moe_every > 1 || !c.dense_at.empty(),
      "feed= names the feed-forward of every layer, and dense_layers, moe_every and dense_at say "
      "it in other words",
      "one of the two");
  const std::vector<FeedKind> feeds = c.feeds();
  const std::vector<std::string> mixer = layer_mixers(c.mixer, c.layers);
  const std::vector<std::string> feed = layer_entries(c.feed, c.layers, "feed");
  for (std::size_t l = 0; l < feeds.size(); ++l) {
    refuse(feeds[l] == FeedKind::none && mixer[l] == no_part,
           concat("layer ", l, " has neither a mixer nor a feed-forward"),
           "lists over the layers: mixer=mamba2+none,feed=none+moe");
    refuse(feeds[l] == FeedKind::mixer && Spec(feed[l]).name() == Spec(mixer[l]).name(),
           concat("layer ", l, " has '", Spec(mixer[l]).name(), "' as its mixer and as its feed"),
           "two layers, each with one of them");
  }
}

void check_residual(const ModelConfig& c) {
  const ResidualFactors& f = c.residual;
  refuse(c.halve_every < 0, concat("halve_every=", c.halve_every, " must be at least 0"),
         "halve_every=0");
  refuse(c.residual_normed && (c.norm_after || c.norm_both || c.residual_scale != 1),
         "residual_normed=1 goes on from what the norms before the branches give, weighed by alpha "
         "and beta",
         "norm_after=0,norm_both=0,residual_scale=1");
  refuse(f.attention_beta == 0 || f.recurrent_beta == 0 || f.feed_beta == 0,
         "a factor beta of 0 would silence a branch", "attention_beta=1");
  refuse(!c.residual_normed &&
             (f.attention_alpha != 1 || f.attention_beta != 1 || f.recurrent_alpha != 1 ||
              f.recurrent_beta != 1 || f.feed_alpha != 1 || f.feed_beta != 1),
         "the factors alpha and beta belong to residual_normed=1", "residual_normed=1");
}

void check_layers(const ModelConfig& c) {
  check_residual(c);
  check_feeds(c);
  refuse(c.moe.hidden != c.hidden,
         concat("the MoE layers have hidden size ", c.moe.hidden, " and the model ", c.hidden),
         "give both the same");
  refuse(!c.dense && c.moe_layers() == 0,
         concat("none of the ", c.layers, " layers is MoE with dense_layers=", c.dense_layers,
                " and moe_every=", c.moe_every),
         "fewer dense layers, or dense=1 for a dense model");
  refuse(c.moe.shared_gate && c.moe.shared_width == 0,
         "shared_gate=1 needs a shared expert and shared_width is 0",
         concat("shared_width=", c.moe.width));
  refuse(c.moe.router_bias && make_router(c.moe.router, c.moe.experts)->projections().empty(),
         concat("router_bias=1 needs a router with scores, and ", c.moe.router, " has none"),
         "router_bias=0");
  refuse(c.logit_cap < 0, concat("logit_cap=", c.logit_cap, " must be at least 0"), "logit_cap=0");
  refuse(c.dense_beside == DenseBeside::normed && !c.norm_both,
         "dense_beside=normed stands between the norms of norm_both=1", "norm_both=1");
  if (c.dense_beside == DenseBeside::shortcut) {
    bool pairs = c.layers % 2 == 0 && !c.dense && !c.norm_after && !c.norm_both;
    for (int l = 0; l < c.layers; ++l)
      pairs &= c.is_moe(l) == (l % 2 == 0);
    refuse(!pairs,
           "dense_beside=shortcut has experts in the first of each two layers, whose output is "
           "added behind the second",
           "an even number of layers, dense_at=1+3+5, norms before the branches");
  }
  refuse(int(c.norm_after) + int(c.norm_both) + int(c.moe_norm_after) > 1,
         "norm_after, norm_both and moe_norm_after each say where norms stand, and two are 1",
         "one of them, the others 0");
}

}  // namespace

void check_sizes(const ModelConfig& c) {
  refuse(c.vocabulary < 2 || c.hidden < 1 || c.layers < 1 || c.heads < 1 || c.kv_heads < 1 ||
             c.head_dim < 1 || c.context < 1,
         concat("a model needs sizes of at least 1 and two words, got vocabulary=", c.vocabulary,
                ", hidden=", c.hidden, ", layers=", c.layers, ", heads=", c.heads,
                ", kv_heads=", c.kv_heads, ", head_dim=", c.head_dim, ", context=", c.context),
         "see moe list models");
  refuse(c.moe_every < 1, concat("moe_every=", c.moe_every, " must be at least 1"), "moe_every=1");
  refuse(c.dense_width < 0, concat("dense_width=", c.dense_width, " must be at least 0"),
         "dense_width=0 for as many active parameters as a MoE layer");
  refuse(c.moe.experts < 1 || c.moe.width < 1 || c.moe.shared_width < 0,
         concat("a MoE layer needs experts, got experts=", c.moe.experts, ", width=", c.moe.width,
                ", shared_width=", c.moe.shared_width),
         "experts=8,width=192");
}

namespace {

void check_index(const ModelConfig& c) {
  refuse(c.index_topk < 0 || c.index_heads < 0 || c.index_dim < 0,
         "index_topk, index_heads and index_dim must be at least 0", "index_topk=0");
  if (c.index_topk == 0) {
    return refuse(
        c.index_heads > 0 || c.index_dim > 0 || !c.index_shared.empty(),
        "index_heads, index_dim and index_shared belong to an indexer, and index_topk is 0",
        "index_topk=8");
  }
  refuse(c.q_rank == 0 || c.window > 0 || c.chunk > 0,
         "an indexer reads the latent row of queries, and chooses among all keys before",
         "latent attention with q_rank, window=0,chunk=0");
  refuse(c.index_heads < 1 || c.index_dim < c.rope_dim,
         concat("an indexer needs heads of at least rope_dim=", c.rope_dim, " numbers, got ",
                c.index_heads, " of ", c.index_dim),
         "index_heads=4,index_dim=16");
  refuse(listed(c.index_shared, 0), "layer 0 has no layer before it whose keys it could take",
         "index_shared=1");
}

}  // namespace

void check_attention(const ModelConfig& c) {
  check_heads(c);
  check_rotary(c);
  check_visible(c);
  check_latent(c);
  check_values(c);
  check_index(c);
}

void check(const ModelConfig& c) {
  check_sizes(c);
  check_attention(c);
  check_layers(c);
}

namespace {

std::string resolved_feeds(const ModelConfig& c) {
  if (c.feed.empty())
    return "";
  const std::vector<FeedKind> feeds = c.feeds();
  std::vector<std::string> pattern = layer_pattern(c.feed, c.layers, "feed");
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (feeds[i] == FeedKind::mixer)
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
