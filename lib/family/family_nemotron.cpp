// Nemotron-H and Nemotron 3: every layer is one thing, Mamba-2, attention without positions, a MoE
// or a dense feed-forward, behind one norm. Experts have no gate, and from 120B on they read and
// write rows of a latent width.
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/mamba2_keys.h"
#include "lib/model/mixer_type.h"
#include "lib/model/rotary.h"

namespace moe {
namespace {

constexpr ExpertKeys expert_keys{"n_routed_experts", "num_experts_per_tok",
                                 "moe_intermediate_size"};
constexpr Mamba2Keys mamba2_keys{"mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size",
                                 "conv_kernel",     "use_conv_bias",  "use_bias"};

// The kinds of layers: how a pattern, lists before transformers 5 and lists of 5 say them.
struct Kind {
  char letter;
  const char* before;
  const char* now;
};
constexpr Kind mamba{'M', "mamba", "linear_attention"}, attends{'*', "attention", "full_attention"},
    sparse{'E', "moe", "moe"}, dense{'-', "mlp", "mlp"};
constexpr const Kind* kinds[] = {&mamba, &attends, &sparse, &dense};

std::vector<const Kind*> layers_of(const ConfigReader& r) {
  std::vector<const Kind*> out;
  const auto add = [&](const char* key, const std::string& word) {
    for (const Kind* kind : kinds) {
      if (word == kind->before || word == kind->now || word == std::string(1, kind->letter)) {
        out.push_back(kind);
        return;
      }
    }
    r.refuse(concat(key, " has '", word, "'"),
             "M or linear_attention, * or full_attention, E or moe, - or mlp");
  };
  if (r.has("layers_block_type")) {
    for (const std::string& word : r.texts("layers_block_type"))
      add("layers_block_type", word);
  } else if (r.has("hybrid_override_pattern")) {
    for (const char letter : r.text("hybrid_override_pattern"))
      add("hybrid_override_pattern", std::string(1, letter));
  } else {
    r.refuse("neither layers_block_type nor hybrid_override_pattern is there",
             "one of them says what each layer is");
  }
  if (out.empty())
    r.refuse("no layer is named");
  return out;
}

// The function of bodies without a gate.
Activation activation_in(const ConfigReader& r) {
  const std::string name = r.text("mlp_hidden_act", "relu2");
  for (const auto& [theirs, ours] : {std::pair{"relu2", Activation::relu2},
                                     {"relu", Activation::relu},
                                     {"silu", Activation::silu},
                                     {"gelu", Activation::gelu}}) {
    if (name == theirs)
      return ours;
  }
  r.cannot_compute(concat("mlp_hidden_act is '", name, "' and this program does not have it"),
                   "relu2, relu, silu or gelu");
  return Activation::relu2;
}

// Its class takes time_step_min for the least step and ignores time_step_limit.
std::string mamba_spec(const ConfigReader& r) {
  r.must_be("mamba_hidden_act", "silu");
  return mamba2_spec(r, mamba2_keys, r.positive("mamba_head_dim"),
                     {.least = r.real("time_step_min", 0.001)});
}

void read_experts_of(const ConfigReader& r, ModelConfig& c) {
  const int k = read_experts(r, c, expert_keys);
  c.moe.router = deepseek_sigmoid(r, c, k);
  c.moe.shared_width = r.whole("moe_shared_expert_intermediate_size", 0);
  c.moe.latent_width = r.has("moe_latent_size") ? r.positive("moe_latent_size") : 0;
}

void read(const ConfigReader& r, ModelConfig& c) {
  const std::vector<const Kind*> layers = layers_of(r);
  Json j = reworded(r, {{"rms_norm_eps", "layer_norm_epsilon"}});
  j["num_hidden_layers"] = layers.size();
  c.rope = rope_none;
  read_common(r.with(j), c);
  c.moe.activation = activation_in(r);
  std::vector<std::string> mixers, feeds;
  for (const Kind* kind : layers) {
    mixers.push_back(kind == &mamba ? mamba_spec(r) : kind == &attends ? "attention" : "none");
    feeds.push_back(kind == &sparse ? "moe" : kind == &dense ? "dense" : "none");
    if (kind == &dense)
      c.dense_width = r.positive("intermediate_size");
  }
  set_mixers(c, mixers);
  set_feeds(c, feeds);
  if (!c.dense)
    read_experts_of(r, c);
}

const Kind& kind_of(const ModelConfig& c, int layer, FeedKind feed) {
  if (feed == FeedKind::moe)
    return sparse;
  if (feed == FeedKind::dense)
    return dense;
  return has_mixer(c, layer, "mamba2") ? mamba : attends;
}

void write_experts_of(const ModelConfig& c, Json& j) {
  write_experts(c, j, expert_keys);
  write_groups(c, j);
  j["norm_topk_prob"] = norm_topk(c);
  j["routed_scaling_factor"] = router_facts(c).scale;
  j["n_shared_experts"] = 1;
  j["moe_shared_expert_intermediate_size"] = c.moe.shared_width;
  j["moe_latent_size"] = c.moe.latent_width > 0 ? Json(c.moe.latent_width) : Json(nullptr);
}

// The pattern for the authors' own code, the list for transformers 5.
void write(const ModelConfig& c, Json& j) {
  const std::vector<FeedKind> feeds = c.feeds();
  std::string pattern;
  Json list = Json::array();
  for (int l = 0; l < c.layers; ++l) {
    const Kind& kind = kind_of(c, l, feeds[std::size_t(l)]);
    pattern += kind.letter;
    list.push_back(kind.now);
    if (&kind == &dense)
      j["intermediate_size"] = c.dense_baseline_width();
  }
  j["hybrid_override_pattern"] = pattern;
  j["layers_block_type"] = list;
  j["time_step_min"] = write_mamba2(c, j, mamba2_keys).least;
  j["mamba_hidden_act"] = "silu";
  if (c.moe_layers() > 0)
    write_experts_of(c, j);
  j["mlp_hidden_act"] = name_of(c.moe.activation);
  j["layer_norm_epsilon"] = c.norm_eps;
  j["attention_bias"] = false;
  j["mlp_bias"] = false;
  j["rescale_prenorm_residual"] = false;
  for (const char* key : {"rms_norm_eps", "hidden_act", "rope_theta"})
    j.erase(key);
}

Names names() {
  return {.prefix = "backbone.",
          .embedding = "embeddings.weight",
          .final_norm = "norm_f",
          .below = {{"attention_norm", "norm.weight"},
                    {"feed_norm", "norm.weight"},
                    {"moe.router.weight", "mixer.gate.weight"},
                    {"moe.latent.in", "mixer.fc1_latent_proj.weight"},
                    {"moe.latent.out", "mixer.fc2_latent_proj.weight"}},
          .experts = "mixer.experts.",
          .shared = "mixer.shared_experts.",
          .dense = "mixer.",
          .correction_bias = "mixer.gate.e_score_correction_bias",
          .always_corrected = true,
          .begin = {{"mamba.", "mixer."}, {"self_attn.", "mixer."}}};
}

}  // namespace

FamilyRules nemotron_h_family() {
  return {read,
          write,
          names(),
          {.gate_up = "mixer.experts.up_proj",
           .down = "mixer.experts.down_proj",
           .gated = false,
           .prefix = "model."}};
}

}  // namespace moe
