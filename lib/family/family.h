// What a published family is to us: a function that turns its config.json into our switches, and
// the names of its tensors. One file a family where it is not trivial (family_*.cpp), one line in
// families.def.
#pragma once
#include <algorithm>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lib/core/tensor.h"
#include "lib/core/text.h"
#include "lib/files/config_reader.h"
#include "lib/model/config.h"
#include "lib/model/rope_axes.h"
#include "lib/router/facts.h"

namespace moe {

// Of the router of a model's MoE layers.
RouterFacts router_facts(const ModelConfig&);
// What a published class calls norm_topk_prob: whether the weights of a token's choices are divided
// by their sum. True of routers that have no such option.
bool norm_topk(const ModelConfig&);

// One tensor that holds several of our parameters of a layer, or one of them with its axes swapped.
struct Joined {
  std::string name;                // below the layer
  std::vector<std::string> parts;  // our names below the layer, in order along the output axis
  bool swapped = false;            // [.., in, out] where ours is [.., out, in]
  bool interleaved = false;        // the outputs of the parts in turn
  bool flat = false;               // experts and the axis after them are one: [E*I, H]
};

// One of our parameters of a layer that lies in several tensors: an equal share of its rows in
// each.
struct Divided {
  std::string part;                // our name below the layer
  std::vector<std::string> names;  // theirs, in order
  bool swapped = false;            // each with its axes swapped
};

// Which tensors of experts without a body stand in a file: those of our own form, gates and ups as
// transformers keeps them of identity experts, or none as published.
enum class Idle { all, gates, none };

struct Names {
  std::string prefix = "model.", layers = "layers.", embedding = "embed_tokens.weight",
              final_norm = "norm", output = "lm_head";
  // our name below the layer -> theirs, before the common ones
  std::map<std::string, std::string> below = {};
  std::string experts = "mlp.experts.", gate = "gate_proj", up = "up_proj", down = "down_proj";
  std::string shared = "mlp.shared_experts.", dense = "mlp.";
  std::string dense_too = "";  // where some writers put dense layers instead
  std::string correction_bias = "mlp.gate.e_score_correction_bias";
  bool always_corrected = false;           // the class has one always
  int correction_rows = 0;                 // it is [rows, E/rows]; 0: [E]
  bool correction_may_lack = false;        // a file without it has zeros
  std::string table = "mlp.gate.tid2eid";  // of a router that looks experts up by token id
  std::vector<Joined> joined = {};
  std::vector<Divided> divided = {};
  bool own_widths = false;  // tensors of narrow experts are as narrow, not as wide as the widest's
  std::string layers_too = "";  // what some writers put for `layers`
  // Beginnings of tensors beside the language model: encoders of pictures and sounds, what brings
  // their rows into it. They are left alone, and an edited model keeps them.
  std::vector<std::string> beside = {};
  std::string tower_key = "";  // of config.json: names a folder inside with an encoder of its own
  bool either_way = false;     // fused experts of a file may have their axes swapped or not
  // how names below the layer begin here in the place of how they usually do: {"mlp.", "mixer."};
  // the first that fits
  std::vector<std::pair<std::string, std::string>> begin = {};
  // tensors of another shape than our parameters, by the end of their name; 0 stands for all
  // numbers
  std::vector<std::pair<std::string, Dims>> shape = {};
  // other names that some writers have: our name -> theirs, below the layer or, of what stands in
  // no layer, below the prefix
  std::map<std::string, std::string> otherwise = {};
  std::string embedding_norm = "embed_norm";  // where there is one
  // A layer of the file is two of ours: "%" of a name, and what follows "self_attn.", says which.
  bool halves = false;
  std::pair<std::string, std::string> half = {"0", "1"};  // what "%" stands for
  Idle idle = Idle::all;
  bool embedding_is_output = false;  // one matrix, in the file under the name of the second
  // of gated bodies, before `below`
  std::map<std::string, std::string> gated = {};
  // Of an encoder's layers, one entry where there is an encoder; layers are then counted from 0 in
  // each of the two, and encoder_norm is its last norm.
  std::vector<Names> encoder = {};
  std::string encoder_norm = "encoder_norm";
  // of a model whose encoder has an embedding of its own: that, and the decoder's
  std::string encoder_embedding = "encoder_embed_tokens.weight", split_embedding = "";
};

// How transformers 5 holds a model in memory, and writes it where it is asked not to go back to the
// published layout (save_original_format=False): names below the layer that differ from it.
// gate_up is [E,2I,H], all gates of an expert before its ups; down is [E,H,I].
struct Packed {
  std::string gate_up = "", down = "";            // empty: as published
  bool gated = true;                              // false: gate_up holds the ups alone
  std::map<std::string, std::string> below = {};  // our names -> theirs
  std::string correction_bias = "";               // empty: as published
  std::string shared = "";                        // the same
  std::string prefix = "";                        // empty: as published
  void (*change)(Names&) = nullptr;               // what else is named or joined otherwise
};

// write() says in the family's keys what read() understands, on top of the common ones; where a
// class has a switch no key for, it writes what the class does. A model fits the family where
// read() gives the same model back. Null: transformers has no such class.
struct FamilyRules {
  void (*read)(const ConfigReader&, ModelConfig&);
  void (*write)(const ModelConfig&, Json&);
  Names names;
  Packed packed = {};
  // Of the language part of a larger model: a model is written so only where it was read so.
  bool whole = false;
};
#define FAMILY_AS(id, name, architecture, verified, about) FamilyRules id##_family();
#include "lib/family/families.def"
#undef FAMILY_AS
const FamilyRules& rules_of(const std::string& family);

// ---- what families have in common
struct SizeKeys {
  const char *hidden = "hidden_size", *layers = "num_hidden_layers", *heads = "num_attention_heads",
             *kv_heads = "num_key_value_heads", *context = "max_position_embeddings";
};
// Keys that a file leaves out have been given the values of its class (class_defaults.h).
void read_common(const ConfigReader&, ModelConfig&, const SizeKeys& = {});
// The configuration with some values under the keys that read_common() looks for, {"rms_norm_eps",
// "norm_eps"}: first the usual key, then that of the class.
using OtherKeys = std::vector<std::pair<const char*, const char*>>;
Json reworded(const ConfigReader&, const OtherKeys&);
// Of a class without attention: one head as wide as the model, which nothing reads.
void set_no_attention(Json& reworded, const ConfigReader&);
// Of a list with a word for each layer: those of `words`, else Error(input) naming the key. Exactly
// `layers` of them.
std::vector<std::string> layer_words(const ConfigReader&, const char* key, int layers,
                                     const std::vector<std::string>& words);
// The mixer and the feed-forward of each layer as lists (layer_list.h).
void set_mixers(ModelConfig&, const std::vector<std::string>& spec);
void set_feeds(ModelConfig&, const std::vector<std::string>& entry);
// The options of the first layer whose mixer has this name; those of no options where there is
// none.
Spec mixer_options(const ModelConfig&, const std::string& name);
// Whether the layer has that mixer.
bool has_mixer(const ModelConfig&, int layer, const std::string& name);
// quantization_config, here and in text_config: refused by name unless it can be undone
void check_weights(const ConfigReader&);
// rope_theta, rope_scaling or rope_parameters, partial_rotary_factor. Unknown rules are refused by
// name. Nothing where c.rope is "none" already: what a class without positions says there is idle.
void read_rope(const ConfigReader&, ModelConfig&);
// The same where rope_parameters may have an entry for each kind of layer: that of `kind`, whose
// fields c has.
void read_rope(const ConfigReader&, ModelConfig& c, const char* kind);
double turned_share(const ModelConfig&);   // partial_rotary_factor
Json rope_parameters(const ModelConfig&);  // rope_type, rope_theta and what the rule says
// under which key the rule stands: "rope_scaling", where it says something, else "rope_parameters"
const char* rope_place(const ConfigReader&);
void read_qwen_moe(const ConfigReader&, ModelConfig&);  // experts, which layers are dense
// use_sliding_window, which counts for the size of a cache and is not computed
void read_optional_window(const ConfigReader&, ModelConfig&);
// The text part of a model that sees images too. Read for its sizes it may stand alone.
ConfigReader text_part(const ConfigReader& whole);
// The text part as its class reads it where the whole model says whether the output matrix is the
// embedding; `tied`: what it takes where nobody does.
Json text_of_whole(const ConfigReader& whole, bool tied);
// What was written of a text goes below text_config, under this model_type.
void write_inside(Json&, const char* text_type);
// mrope_section where the rotary rule stands, else `usual`: the pairs that turn by each axis.
void read_axes(const ConfigReader& text, ModelConfig&, PairRule, const std::array<int, 3>& usual);
// rope_parameters with these pairs, in the place of the keys that most classes read.
void write_axes(const ModelConfig&, Json& text);
void write_rope(const ModelConfig&, Json&);  // rope_scaling, where it is not the plain rule
struct ExpertKeys {
  const char *experts, *k, *width;
};
void write_experts(const ModelConfig&, Json&, const ExpertKeys&);
std::vector<int> dense_layers(const ModelConfig&);
// returns k, checked against the number of experts
int read_experts(const ConfigReader&, ModelConfig&, const ExpertKeys&);
// Which layers are MoE, in our words: leading dense ones, and those that stand between.
void set_moe_layers(ModelConfig&, const std::function<bool(int layer)>& is_moe);

// Attention and layers of DeepSeek-V2 and V3.
void read_latent(const ConfigReader&, ModelConfig&);
// first_k_dense_replace, moe_layer_freq, shared experts
void read_deepseek_layers(const ConfigReader&, ModelConfig&);
void write_latent(const ModelConfig&, Json&);
// the router of V3, Kimi K2, GLM-4.5
std::string deepseek_sigmoid(const ConfigReader&, const ModelConfig&, int k);
// the same where scoring_func and topk_method are nothing that the class reads
std::string grouped_sigmoid(const ConfigReader&, const ModelConfig&, int k);
// "groups=4,..." behind a router's other options, or nothing; score: top2_sum or max
std::string read_group_options(const ConfigReader&, const ModelConfig&, int k, const char* score);
inline constexpr ExpertKeys deepseek_experts{"n_routed_experts", "num_experts_per_tok",
                                             "moe_intermediate_size"};
// experts, shared experts, groups, weights and the width of dense layers, in their words
void write_deepseek_routing(const ModelConfig&, Json&);
// n_group and topk_group; groups of one have no two best, which the classes add
void write_groups(const ModelConfig&, Json&);
Names mixtral_names();
Packed mixtral_packed();  // the same with "mlp." for "block_sparse_moe."
Packed qwen_packed();     // experts below "mlp.experts.", where they are published one by one

}  // namespace moe
