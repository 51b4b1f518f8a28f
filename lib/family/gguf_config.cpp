// What every architecture says under the same keys: sizes, norms, rotary embedding, and the ids
// that begin and end a text.
#include "lib/family/gguf_config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

double epsilon(const GgufKeys& k) {
  const char* names[] = {"attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"};
  for (const char* name : names) {
    if (k.has(name))
      return k.real(name);
  }
  k.refuse(concat("has no key ", in_quotes(k.key(names[0]))));
}

int head_size(const GgufKeys& k, int hidden, int heads) {
  if (heads < 1)
    k.refuse(concat("has the key ", in_quotes(k.key("attention.head_count")), " = ", heads));
  const int size = k.whole("attention.key_length", 0);
  return size > 0 ? size : hidden / heads;
}

Json linear(const GgufKeys& k) {
  return {{"rope_type", "linear"}, {"factor", k.real("rope.scaling.factor")}};
}

Json yarn(const GgufKeys& k) {
  if (const double factor = k.real("rope.scaling.yarn_ext_factor", 1); factor != 1) {
    k.refuse(concat("has the key ", in_quotes(k.key("rope.scaling.yarn_ext_factor")), " = ", factor,
                    ", which this program does not compute"));
  }
  const double factor = k.real("rope.scaling.factor");
  Json out{{"rope_type", "yarn"},
           {"factor", factor},
           {"original_max_position_embeddings",
            k.whole("rope.scaling.original_context_length", k.whole("context_length"))},
           {"beta_fast", k.real("rope.scaling.yarn_beta_fast", 32)},
           {"beta_slow", k.real("rope.scaling.yarn_beta_slow", 1)}};
  const double weight = k.real("rope.scaling.yarn_log_multiplier", 0) * 10;
  if (weight != 0) {
    out["mscale"] = weight;
    out["mscale_all_dim"] = weight;
  }
  const double stretch =
      k.real("rope.scaling.attn_factor", 1) * k.real("rope.scaling.yarn_attn_factor", 1);
  if (stretch != 1)
    out["attention_factor"] = stretch * yarn_magnitude(factor, 1);
  return out;
}

// Two sets of factors, one for each side of the original context.
Json longrope(const GgufKeys& k) {
  const int context = k.whole("context_length");
  const int original = k.whole("rope.scaling.original_context_length", context);
  Json out{{"rope_type", "longrope"},
           {"original_max_position_embeddings", original},
           {"factor", double(context) / std::max(original, 1)},
           {"short_factor", k.numbers("rope_factors_short.weight")},
           {"long_factor", k.numbers("rope_factors_long.weight")}};
  if (k.has("rope.scaling.attn_factor")) {
    const double factor = k.real("rope.scaling.attn_factor");
    out["short_mscale"] = factor;
    out["long_mscale"] = factor;
  }
  return out;
}

// The rule of Llama 3 comes as the divisors of the frequencies.
Json divided(const GgufKeys& k) {
  const Json factors = k.numbers("rope_freqs.weight");
  return {
      {"rope_type", "longrope"}, {"original_max_position_embeddings", k.whole("context_length")},
      {"factor", 1.0},           {"short_factor", factors},
      {"long_factor", factors},  {"short_mscale", 1.0},
      {"long_mscale", 1.0}};
}

void write_rope_rule(const GgufKeys& k, Json& j) {
  const std::string type = k.text("rope.scaling.type", "none");
  if (k.file().find("rope_freqs.weight"))
    j["rope_scaling"] = divided(k);
  else if (k.file().find("rope_factors_long.weight"))
    j["rope_scaling"] = longrope(k);  // the type is often not said
  else if (type == "linear")
    j["rope_scaling"] = linear(k);
  else if (type == "yarn")
    j["rope_scaling"] = yarn(k);
  else if (type != "none")
    k.refuse(concat("has the key ", in_quotes(k.key("rope.scaling.type")), " = ", in_quotes(type),
                    ", which this program does not have"),
             "none, linear, yarn, or longrope with its factors");
}

void write_ids(const GgufFile& file, Json& j) {
  for (const char* which : {"bos", "eos"}) {
    const std::string key = concat("tokenizer.ggml.", which, "_token_id");
    if (file.has(key))
      j[concat(which, "_token_id")] = file.whole(key);
  }
}

// The embedding says how many tokens there are, and what else is said must agree.
Index vocabulary(const GgufKeys& k, int hidden) {
  const GgufTensor& t = k.file().at("token_embd.weight");
  if (t.dims.size() != 2 || t.dims[1] != hidden) {
    k.refuse(concat("has the key ", in_quotes(k.key("embedding_length")), " = ", hidden,
                    " and the tensor 'token_embd.weight' of shape ", text_of(t.dims)));
  }
  const std::string list = "tokenizer.ggml.tokens";
  const Index listed = k.file().is_array(list) ? Index(k.file().texts(list).size()) : t.dims[0];
  const Index said = k.whole("vocab_size", int(std::min<Index>(t.dims[0], 1'000'000'000)));
  if (listed != t.dims[0] || said != t.dims[0]) {
    const bool of_list = listed != t.dims[0];
    k.refuse(concat("has ", of_list ? listed : said, " tokens by the key ",
                    in_quotes(of_list ? list : k.key("vocab_size")), " and ", t.dims[0],
                    " rows in the tensor 'token_embd.weight'"));
  }
  return t.dims[0];
}

void write_common(const GgufKeys& k, Json& j) {
  const int hidden = k.whole("embedding_length");
  const int heads = k.whole("attention.head_count");
  j["vocab_size"] = vocabulary(k, hidden);
  j["hidden_size"] = hidden;
  j["num_hidden_layers"] = k.layers();
  j["num_attention_heads"] = heads;
  j["num_key_value_heads"] = k.whole("attention.head_count_kv", heads);
  j["head_dim"] = head_size(k, hidden, heads);
  j["hidden_act"] = "silu";
  j["rms_norm_eps"] = epsilon(k);
  j["max_position_embeddings"] = k.whole("context_length");
  j["rope_theta"] = k.real("rope.freq_base", 10000);
  j["tie_word_embeddings"] = k.file().find("output.weight") == nullptr;
  j["attention_bias"] = k.anywhere("attn_q.bias") || k.anywhere("attn_qkv.bias");
  j["intermediate_size"] = k.whole("feed_forward_length", 0);
  write_rope_rule(k, j);
  write_ids(k.file(), j);
}

// Experts and choices, in the words of the file where they cannot be.
void check_experts(const GgufKeys& k) {
  const int experts = k.whole("expert_count", 0);
  if (experts == 0)
    return;
  const int used = k.whole("expert_used_count");
  if (used < 1 || used > experts) {
    k.refuse(concat("has the key ", in_quotes(k.key("expert_used_count")), " = ", used, " and ",
                    experts, " experts"),
             "between 1 and the number of experts");
  }
}

}  // namespace

Json gguf_config(const GgufFile& file, std::vector<std::string>& notes) {
  const GgufKeys k(file);
  const GgufArchitecture& architecture = gguf_architecture(k);
  check_experts(k);
  Json out = Json::object();
  write_common(k, out);
  architecture.write(k, out, notes);
  return out;
}

}  // namespace moe
