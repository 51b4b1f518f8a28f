// Encoder-decoders: T5 (1910.10683), Switch Transformers (2101.03961) and NLLB-MoE (2207.04672), as
// transformers computes them, the last as version 4.57 does: version 5 runs two of its experts
// only. T5 and Switch name the third part of a decoder's layer `layer.2`, of an encoder's
// `layer.1`.
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/family.h"
#include "lib/model/mixers/plain_attention.h"

namespace moe {
namespace {

constexpr int usual_context = 512;         // T5 is trained with; its class has none
constexpr int all_places = 1'000'000'000;  // a capacity that drops nobody

struct Body {
  const char* name;
  Activation plain, gated;
};
constexpr Body bodies[] = {{"relu", Activation::relu, Activation::reglu},
                           {"gelu", Activation::gelu, Activation::geglu},
                           {"gelu_new", Activation::gelu_tanh, Activation::geglu_tanh},
                           {"gelu_pytorch_tanh", Activation::gelu_tanh, Activation::geglu_tanh},
                           {"silu", Activation::silu, Activation::swiglu},
                           {"swish", Activation::silu, Activation::swiglu}};

Activation body_of(const ConfigReader& r, const char* key, const std::string& name, bool gated) {
  for (const Body& b : bodies) {
    if (name == b.name)
      return gated ? b.gated : b.plain;
  }
  r.refuse(concat(key, " is '", name, "', which this program does not compute"),
           "relu, gelu, gelu_new or silu");
}
std::string name_of_body(Activation a) {
  for (const Body& b : bodies) {
    if (a == b.plain || a == b.gated)
      return b.name;
  }
  throw Error(Exit::usage, concat("no encoder-decoder's class has bodies of ", name_of(a)));
}

void set_stacks(ModelConfig& c, int encoder, int decoder) {
  c.preset = "custom";
  c.encoder_layers = encoder;
  c.layers = encoder + decoder;
  c.moe.hidden = c.hidden;
}

// Every layer that is not sparse, by its place in its stack.
void set_sparse(ModelConfig& c, const std::function<bool(bool encoder, int layer)>& sparse) {
  c.dense_layers = 0;
  c.moe_every = 1;
  for (int l = 0; l < c.layers; ++l) {
    if (!sparse(c.in_encoder(l), c.in_encoder(l) ? l : l - c.encoder_layers))
      c.dense_at.push_back(l);
  }
  c.dense = int(c.dense_at.size()) == c.layers;
  if (c.dense)
    c.dense_at.clear();
}

int token_id(const ConfigReader& r, const char* key) {
  return r.has(key) ? r.whole(key) : -1;
}

// What an encoder-decoder never is, and what other versions of the classes read otherwise.
void check_kind(const ConfigReader& r) {
  r.must_be("is_encoder_decoder", true, true);
  if (r.flag("is_decoder", false))
    r.refuse("is_decoder is true, and this program reads the whole encoder-decoder");
}

// ---- T5 and Switch

void read_stacks(const ConfigReader& r, ModelConfig& c) {
  check_kind(r);
  c.vocabulary = r.positive("vocab_size");
  c.hidden = r.positive("d_model");
  const int encoder = r.layers("num_layers");
  set_stacks(c, encoder, r.has("num_decoder_layers") ? r.layers("num_decoder_layers") : encoder);
  c.heads = c.kv_heads = r.positive("num_heads");
  c.head_dim = r.positive("d_kv");
  c.attention_scale = 1;
  c.context = r.whole("n_positions", usual_context);  // of configurations of the first T5
  c.norm_eps = r.real("layer_norm_epsilon", 1e-6);
  c.mixer = plain_attention_spec({r.positive("relative_attention_num_buckets"),
                                  r.positive("relative_attention_max_distance")});
  c.dense_width = r.positive("d_ff");
  c.tied = r.flag("tie_word_embeddings", true);
  c.route_padding = true;
  c.pad_token = token_id(r, "pad_token_id");
  c.start_token = r.has("decoder_start_token_id") ? r.whole("decoder_start_token_id") : c.pad_token;
}

void scale_head(ModelConfig& c, bool scaled) {
  c.logit_divisor = scaled ? std::sqrt(double(c.hidden)) : 1;
}

void read_t5(const ConfigReader& r, ModelConfig& c) {
  read_stacks(r, c);
  scale_head(c, r.flag("scale_decoder_outputs", c.tied));
  const std::string form = r.text("feed_forward_proj", "relu");
  const std::string name = form.substr(form.find('-') + 1);
  const bool gated = r.flag("is_gated_act", form.starts_with("gated-"));
  const std::string usual = form == "gated-gelu" ? "gelu_new" : name;
  c.moe.activation = body_of(r, "feed_forward_proj", r.text("dense_act_fn", usual), gated);
  c.dense = true;
}

// Keys that most classes read and these have others for.
void erase_common(Json& j) {
  for (const char* key :
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "hidden_act", "rms_norm_eps", "rope_theta", "max_position_embeddings",
        "initializer_range", "attention_dropout", "attention_bias", "rope_scaling"})
    j.erase(key);
}

PlainAttentionOptions attention_of(const ModelConfig& c) {
  const auto found = plain_attention_of(c);
  if (c.encoder_layers == 0 || !found)
    throw Error(Exit::usage, "the model is no encoder-decoder with attention alone");
  return *found;
}

void write_stacks(const ModelConfig& c, Json& j) {
  const PlainAttentionOptions attention = attention_of(c);
  erase_common(j);
  j["is_encoder_decoder"] = true;
  j["n_positions"] = c.context;
  j["d_model"] = c.hidden;
  j["d_kv"] = c.head_dim;
  j["d_ff"] = c.dense_baseline_width();
  j["num_layers"] = c.encoder_layers;
  j["num_decoder_layers"] = c.layers - c.encoder_layers;
  j["num_heads"] = c.heads;
  j["relative_attention_num_buckets"] = attention.buckets;
  j["relative_attention_max_distance"] = attention.distance;
  j["layer_norm_epsilon"] = c.norm_eps;
  j["dropout_rate"] = 0.0;
  j["initializer_factor"] = 1.0;
  if (c.pad_token >= 0)
    j["pad_token_id"] = c.pad_token;
  j["decoder_start_token_id"] = c.start_token >= 0 ? Json(c.start_token) : Json(nullptr);
}

void write_t5(const ModelConfig& c, Json& j) {
  write_stacks(c, j);
  const std::string name = name_of_body(c.moe.activation);
  const bool gated = is_gated(c.moe.activation);
  j["feed_forward_proj"] =
      concat(gated ? "gated-" : "", gated && name == "gelu_new" ? "gelu" : name);
  j["dense_act_fn"] = name;
  j["is_gated_act"] = gated;
  j["scale_decoder_outputs"] = c.logit_divisor != 1;
}

bool switch_sparse(int layers, int of_them, int layer) {
  const int step = of_them > 0 ? layers / of_them : layers;  // as the class has it
  return step == 1 || (step > 1 && layer % step == 1);
}

// encoder_sparse_step and decoder_sparse_step follow from the numbers of sparse layers; a file that
// says others moves the experts.
void check_sparse_step(const ConfigReader& r, const std::string& stack, int layers) {
  const std::string key = stack + "_sparse_step";
  const std::string number = concat("num_sparse_", stack, "_layers");
  const int sparse = r.whole(number.c_str());
  const int step = sparse > 0 ? layers / sparse : layers;
  if (const int said = r.whole(key.c_str(), step); said != step) {
    const char* all = stack == "encoder" ? "num_layers" : "num_decoder_layers";
    r.cannot_compute(concat(key, " is ", said, " and ", number, " ", sparse, " of ", all, " ",
                            layers, ", which makes it ", step),
                     "the two as they belong together");
  }
}

void read_switch(const ConfigReader& r, ModelConfig& c) {
  read_stacks(r, c);
  check_sparse_step(r, "encoder", c.encoder_layers);
  check_sparse_step(r, "decoder", c.layers - c.encoder_layers);
  scale_head(c, c.tied);
  const std::string form = r.text("feed_forward_proj", r.text("dense_act_fn", "relu"));
  const bool gated = form.starts_with("gated-");
  if (gated)
    r.cannot_compute(concat("feed_forward_proj is '", form, "', which the class does not compute"));
  else if (form != r.text("dense_act_fn", "relu"))
    r.refuse(
        concat("feed_forward_proj is '", form, "' and dense_act_fn is '",
               r.text("dense_act_fn", "relu"), "': versions of transformers read one or the other"),
        "the same in both");
  c.moe.activation =
      gated ? Activation(Activation::geglu_tanh) : body_of(r, "dense_act_fn", form, false);
  r.must_be("router_dtype", "float32");
  c.moe.experts = r.positive("num_experts");
  c.moe.width = c.dense_width;
  c.moe.router = concat("softmax:k=1,norm=0,jitter=", r.real("router_jitter_noise", 0.01));
  c.moe.router_bias = r.flag("router_bias", false);
  c.moe.capacity = concat("count:tokens=", r.positive("expert_capacity"), ",scope=sequence");
  c.encoder_embedding = !c.tied;  // nothing is tied then
  const int encoder = c.encoder_layers;
  const int decoder = c.layers - encoder;
  set_sparse(c, [&](bool in_encoder, int l) {
    return in_encoder ? switch_sparse(encoder, r.whole("num_sparse_encoder_layers"), l)
                      : switch_sparse(decoder, r.whole("num_sparse_decoder_layers"), l);
  });
}

// Sparse layers of a stack, as a number that makes the class choose the same ones.
int sparse_number(const ModelConfig& c, bool encoder) {
  const int first = encoder ? 0 : c.encoder_layers;
  const int layers = encoder ? c.encoder_layers : c.layers - c.encoder_layers;
  for (int n = 0; n <= layers + 1; ++n) {
    bool same = true;
    for (int l = 0; l < layers; ++l)
      same = same && switch_sparse(layers, n, l) == c.is_moe(first + l);
    if (same)
      return n;
  }
  throw Error(Exit::usage, concat("no sparse step makes the MoE layers of the ",
                                  encoder ? "encoder" : "decoder"));
}

// Places of a capacity that counts in the scope that the class knows.
int places_of(const ModelConfig& c, const char* scope) {
  Spec spec(c.moe.capacity);
  if (spec.name() != "count")
    return all_places;
  return spec.get("scope", std::string("sequence")) == scope ? spec.get("tokens", 64) : all_places;
}

void write_switch(const ModelConfig& c, Json& j) {
  write_stacks(c, j);
  if (c.dense)
    throw Error(Exit::usage, "a dense model is t5");
  Spec router(c.moe.router);
  j["num_experts"] = c.moe.experts;
  j["num_sparse_encoder_layers"] = sparse_number(c, true);
  j["num_sparse_decoder_layers"] = sparse_number(c, false);
  j["expert_capacity"] = places_of(c, "sequence");
  j["router_bias"] = c.moe.router_bias;
  j["router_dtype"] = "float32";
  j["router_jitter_noise"] = router.get("jitter", 0.0);
  j["router_ignore_padding_tokens"] = false;
  j["router_z_loss_coef"] = 0.0;
  j["dense_act_fn"] = name_of_body(c.moe.activation);
  j["feed_forward_proj"] = name_of_body(c.moe.activation);
}

// ---- NLLB-MoE

int heads_of(const ConfigReader& r, int hidden) {
  const int heads = r.positive("encoder_attention_heads");
  if (r.positive("decoder_attention_heads") != heads) {
    r.refuse(concat("decoder_attention_heads is ", r.whole("decoder_attention_heads"),
                    " and encoder_attention_heads is ", heads,
                    ", and this program has as many in both"));
  }
  if (hidden % heads != 0) {
    r.refuse(concat("d_model ", hidden, " is not divisible by encoder_attention_heads ", heads));
  }
  return heads;
}

std::string nllb_capacity(const ConfigReader& r) {
  const double fraction = r.real("moe_eval_capacity_token_fraction", 1);
  return concat(
      "count:tokens=", r.has("expert_capacity") ? r.positive("expert_capacity") : 0,
      ",scope=batch,order=", r.flag("batch_prioritized_routing", false) ? "prob" : "position",
      ",eval_fraction=", std::max(0.0, fraction),
      ",weights=", r.flag("normalize_router_prob_before_dropping", false) ? "keep" : "renormalize");
}

void read_nllb_router(const ConfigReader& r, ModelConfig& c) {
  c.moe.experts = r.positive("num_experts");
  c.moe.router_bias = r.flag("router_bias", false);
  r.must_be("router_dtype", "float32");
  const std::string second = r.text("second_expert_policy", "all");
  if (second != "all") {
    r.cannot_compute(concat("second_expert_policy is '", second,
                            "', which draws at inference too, and must be all"));
  }
  const double dropout = r.real("moe_token_dropout", 0.2);
  if (!(dropout >= 0 && dropout < 1))
    r.refuse(concat("moe_token_dropout is ", dropout), "from 0 to less than 1");
  // the class multiplies what experts put out by this outside of training
  c.moe.router = concat("softmax:k=2,norm=1", dropout > 0 ? concat(",scale=", 1 - dropout) : "");
  c.moe.capacity = nllb_capacity(r);
}

void read_nllb(const ConfigReader& r, ModelConfig& c) {
  check_kind(r);
  c.vocabulary = r.positive("vocab_size");
  c.hidden = r.positive("d_model");
  set_stacks(c, r.layers("encoder_layers"), r.layers("decoder_layers"));
  c.heads = c.kv_heads = heads_of(r, c.hidden);
  c.head_dim = c.hidden / c.heads;
  c.context = r.whole("max_position_embeddings", 1024);
  c.norm = NormKind::layer_bias;
  c.qkv_bias = c.o_bias = true;
  c.mixer = plain_attention_spec({});
  c.sinusoidal = true;
  c.embedding_scale = r.flag("scale_embedding", true) ? std::sqrt(double(c.hidden)) : 1;
  c.tied = r.flag("tie_word_embeddings", true);
  c.pad_token = token_id(r, "pad_token_id");
  c.start_token = token_id(r, "decoder_start_token_id");
  c.route_padding = r.flag("router_ignore_padding_tokens", false);
  c.dense_bias = c.moe.expert_bias = true;
  c.moe.activation =
      body_of(r, "activation_function", r.text("activation_function", "relu"), false);
  c.moe.width = c.dense_width = r.positive("encoder_ffn_dim");
  const int decoder_width = r.positive("decoder_ffn_dim");
  c.decoder_width = decoder_width == c.dense_width ? 0 : decoder_width;
  read_nllb_router(r, c);
  const int encoder_step = r.whole("encoder_sparse_step", 4);
  const int decoder_step = r.whole("decoder_sparse_step", 4);
  set_sparse(c, [&](bool in_encoder, int l) {
    const int step = in_encoder ? encoder_step : decoder_step;
    return step > 0 && (l + 1) % step == 0;
  });
}

// The step that makes the MoE layers of a stack.
int sparse_step(const ModelConfig& c, bool encoder) {
  const int first = encoder ? 0 : c.encoder_layers;
  const int layers = encoder ? c.encoder_layers : c.layers - c.encoder_layers;
  for (int step = 0; step <= layers; ++step) {
    bool same = true;
    for (int l = 0; l < layers; ++l)
      same = same && (step > 0 && (l + 1) % step == 0) == c.is_moe(first + l);
    if (same)
      return step;
  }
  throw Error(Exit::usage, concat("no sparse step makes the MoE layers of the ",
                                  encoder ? "encoder" : "decoder"));
}

void write_nllb_capacity(const ModelConfig& c, Json& j) {
  Spec spec(c.moe.capacity);
  const bool counts = spec.name() == "count" && places_of(c, "batch") != all_places;
  const int places = places_of(c, "batch");
  j["expert_capacity"] = places > 0 ? Json(places) : Json(nullptr);
  j["batch_prioritized_routing"] = counts && spec.get("order", std::string("position")) == "prob";
  j["moe_eval_capacity_token_fraction"] = counts ? spec.get("eval_fraction", 0.0) : 0.0;
  j["normalize_router_prob_before_dropping"] =
      !counts || spec.get("weights", std::string("keep")) == "keep";
}

void write_nllb_router(const ModelConfig& c, Json& j) {
  j["encoder_sparse_step"] = c.dense ? 0 : sparse_step(c, true);
  j["decoder_sparse_step"] = c.dense ? 0 : sparse_step(c, false);
  j["num_experts"] = c.moe.experts;
  j["router_bias"] = c.moe.router_bias;
  j["router_dtype"] = "float32";
  j["router_ignore_padding_tokens"] = c.route_padding;
  j["second_expert_policy"] = "all";
  // as it was said: 0.2, and not what is left of 1 - 0.8
  j["moe_token_dropout"] = c.dense ? 0.0 : std::round((1 - router_facts(c).scale) * 1e12) / 1e12;
  j["router_z_loss_coef"] = 0.0;
  write_nllb_capacity(c, j);
}

void write_nllb(const ModelConfig& c, Json& j) {
  if (attention_of(c).buckets > 0)
    throw Error(Exit::usage, "nllb-moe has no bias by distance");
  const int context = c.context;
  erase_common(j);
  const int decoder_width = c.decoder_width > 0 ? c.decoder_width : c.dense_baseline_width();
  j["is_encoder_decoder"] = true;
  j["d_model"] = c.hidden;
  j["max_position_embeddings"] = context;
  j["encoder_layers"] = c.encoder_layers;
  j["decoder_layers"] = c.layers - c.encoder_layers;
  j["encoder_attention_heads"] = j["decoder_attention_heads"] = c.heads;
  j["encoder_ffn_dim"] = c.dense_baseline_width();
  j["decoder_ffn_dim"] = decoder_width;
  j["activation_function"] = name_of_body(c.moe.activation);
  j["scale_embedding"] = c.embedding_scale != 1;
  for (const char* key : {"dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop",
                          "decoder_layerdrop"})
    j[key] = 0.0;
  if (c.pad_token >= 0)
    j["pad_token_id"] = c.pad_token;
  j["decoder_start_token_id"] = c.start_token >= 0 ? Json(c.start_token) : Json(nullptr);
  write_nllb_router(c, j);
}

// ---- names

void add_attention(std::map<std::string, std::string>& below, const std::string& ours,
                   const std::string& theirs, const char* output, const char* tail) {
  for (const char* part : {"q", "k", "v", "o"}) {
    const std::string name =
        theirs + (*part == 'o' ? std::string(output) : std::string(part) + tail);
    below[concat(ours, part)] = name + ".weight";
    below[concat(ours, part, "_bias")] = name + ".bias";
  }
}

// Of one stack; `last`: the feed-forward's part of a layer.
Names t5_stack(const std::string& stack, const std::string& last, const std::string& dense) {
  Names n{.prefix = "",
          .layers = stack + ".block.",
          .embedding = "shared.weight",
          .final_norm = "decoder.final_layer_norm"};
  n.experts = last + ".mlp.experts.expert_";
  n.up = "wi";
  n.down = "wo";
  n.below = {{"attention_norm", "layer.0.layer_norm.weight"},
             {"cross_norm", "layer.1.layer_norm.weight"},
             {"feed_norm", last + ".layer_norm.weight"},
             {"dense.up", last + dense + "wi.weight"},
             {"dense.down", last + dense + "wo.weight"},
             {"moe.router.weight", last + ".mlp.router.classifier.weight"},
             {"moe.router.bias", last + ".mlp.router.classifier.bias"}};
  n.gated = {{"dense.gate", last + dense + "wi_0.weight"},
             {"dense.up", last + dense + "wi_1.weight"}};
  const std::string at = Spec(plain_attention_spec({})).name();
  add_attention(n.below, at + ".", "layer.0.SelfAttention.", "o", "");
  add_attention(n.below, "cross.", "layer.1.EncDecAttention.", "o", "");
  n.encoder_norm = "encoder.final_layer_norm";
  n.split_embedding = "decoder.embed_tokens.weight";
  n.encoder_embedding = "encoder.embed_tokens.weight";
  for (const char* one : {"encoder", "decoder"}) {
    n.below[concat("relative_bias.", one)] =
        concat(one, ".block.0.layer.0.SelfAttention.relative_attention_bias.weight");
  }
  return n;
}
Names t5_names(const std::string& dense) {
  Names n = t5_stack("decoder", "layer.2", dense);
  n.encoder = {t5_stack("encoder", "layer.1", dense)};
  return n;
}

Names nllb_stack(const std::string& stack) {
  Names n{.layers = stack + ".layers.",
          .embedding = "shared.weight",
          .final_norm = "decoder.layer_norm"};
  n.experts = "ffn.experts.expert_";
  n.up = "fc1";
  n.down = "fc2";
  for (const char* tail : {"weight", "bias"}) {
    const std::string bias = *tail == 'b' ? "_bias" : "";
    n.below["attention_norm" + bias] = concat("self_attn_layer_norm.", tail);
    n.below["cross_norm" + bias] = concat("cross_attention_layer_norm.", tail);
    n.below["feed_norm" + bias] = concat("ff_layer_norm.", tail);
    n.below["dense.up" + bias] = concat("ffn.fc1.", tail);
    n.below["dense.down" + bias] = concat("ffn.fc2.", tail);
    n.below[concat("moe.router.", tail)] = concat("ffn.router.classifier.", tail);
  }
  const std::string at = Spec(plain_attention_spec({})).name();
  add_attention(n.below, at + ".", "self_attn.", "out_proj", "_proj");
  add_attention(n.below, "cross.", "cross_attention.", "out_proj", "_proj");
  n.encoder_norm = "encoder.layer_norm";
  return n;
}
Names nllb_names() {
  Names n = nllb_stack("decoder");
  n.encoder = {nllb_stack("encoder")};
  return n;
}

}  // namespace

FamilyRules t5_family() {
  return {read_t5, write_t5, t5_names(".DenseReluDense.")};
}
FamilyRules switch_transformers_family() {
  return {read_switch, write_switch, t5_names(".mlp.")};
}
FamilyRules nllb_moe_family() {
  return {read_nllb, write_nllb, nllb_names()};
}

}  // namespace moe
