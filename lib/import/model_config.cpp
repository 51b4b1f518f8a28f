// Fields of config.json under the names that families give them: see model_config.h.
#include "lib/import/model_config.h"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"

namespace moe {
namespace {

class Fields {
 public:
  Fields(const Json& json, std::string name) : json_(json), name_(std::move(name)) {}

  bool has(const char* key) const {
    return json_.contains(key) && !json_[key].is_null();
  }
  // The first of these that is there; a list stands for its first element.
  int whole(std::initializer_list<const char*> keys, int otherwise) const {
    for (const char* key : keys) {
      if (!has(key))
        continue;
      const Json& v = json_[key].is_array() && !json_[key].empty() ? json_[key][0] : json_[key];
      if (!v.is_number_integer() || v.get<std::int64_t>() < 0 || v.get<std::int64_t>() > 1 << 24)
        refuse(key);
      return v.get<int>();
    }
    return otherwise;
  }
  std::string text(const char* key) const {
    return has(key) && json_[key].is_string() ? json_[key].get<std::string>() : "";
  }
  bool is_true(const char* key) const {
    return has(key) && json_[key].is_boolean() && json_[key].get<bool>();
  }
  float real(const char* key, float otherwise) const {
    if (!has(key))
      return otherwise;
    if (!json_[key].is_number())
      refuse(key);
    return json_[key].get<float>();
  }
  std::vector<int> list(const char* key) const {
    std::vector<int> out;
    if (!has(key) || !json_[key].is_array())
      return out;
    for (const Json& v : json_[key]) {
      if (!v.is_number_integer())
        refuse(key);
      out.push_back(v.get<int>());
    }
    return out;
  }

 private:
  [[noreturn]] void refuse(const char* key) const {
    throw Error(Exit::input, concat(name_, " has an impossible value of ", key))
        .hint("config.json as it lies beside the weights");
  }
  const Json& json_;
  std::string name_;
};

bool in(const std::vector<int>& list, int i) {
  return std::find(list.begin(), list.end(), i) != list.end();
}

// Whether layer i has experts.
bool is_moe(const Fields& f, int i) {
  const std::vector<int> frequency = f.list("moe_layer_freq");
  if (!frequency.empty())
    return i < int(frequency.size()) && frequency[i] != 0;
  if (f.has("moe_layers") && !f.list("moe_layers").empty())
    return in(f.list("moe_layers"), i);
  if (f.has("expert_layer_period")) {
    const int period = std::max(1, f.whole({"expert_layer_period"}, 1));
    return i % period == f.whole({"expert_layer_offset"}, 0);
  }
  if (f.has("moe_layer_start_index") || f.has("moe_layer_interval")) {
    const int first = f.whole({"moe_layer_start_index"}, 0);
    const int interval = std::max(1, f.whole({"moe_layer_interval"}, 1));
    const bool behind = f.has("moe_layer_end_index") && i > f.whole({"moe_layer_end_index"}, i);
    return i >= first && !behind && (i + 1) % interval == 0;
  }
  const int step = std::max(1, f.whole({"interleave_moe_layer_step", "decoder_sparse_step"}, 1));
  const int every = f.has("first_k_dense_replace") ? f.whole({"moe_layer_freq"}, 1) : 1;
  return i >= f.whole({"first_k_dense_replace", "num_dense_layers"}, 0) &&
         i % std::max(1, every) == 0 && !in(f.list("mlp_only_layers"), i) && (i + 1) % step == 0;
}

void read_scores(const Fields& f, RecordedModel& c) {
  static constexpr std::string_view always[] = {"mixtral", "gpt_oss", "granitemoe", "phimoe",
                                                "minimax"};
  static constexpr std::string_view biased[] = {"deepseek_v3", "glm4_moe", "dots1", "kimi_k2",
                                                "glm4v_moe"};
  const bool has_bias =
      std::find(std::begin(biased), std::end(biased), c.model_type) != std::end(biased);
  const std::string scores = f.text("scoring_func");
  const bool sigmoid = scores == "sigmoid" || has_bias;
  c.score_fn = sigmoid                                 ? ScoreFn::sigmoid
               : scores.empty() || scores == "softmax" ? ScoreFn::softmax
                                                       : ScoreFn::other;
  c.groups = std::max(1, f.whole({"n_group"}, 1));
  c.topk_groups = std::max(1, f.whole({"topk_group"}, 1));
  c.needs_checkpoint = sigmoid || c.groups > 1 || f.text("topk_method") == "noaux_tc" ||
                       c.score_fn == ScoreFn::other;
  if (f.has("norm_topk_prob"))
    c.norm_topk = f.is_true("norm_topk_prob");
  else
    c.norm_topk = std::find(std::begin(always), std::end(always), c.model_type) != std::end(always);
  c.routed_scale = f.real("routed_scaling_factor", 1);
}

}  // namespace

bool RecordedModel::is_dense(int layer) const {
  return !std::binary_search(moe_layers.begin(), moe_layers.end(), layer);
}

namespace {

void read_sizes(const Fields& f, RecordedModel& c) {
  c.model_type = f.text("model_type");
  c.layers = f.whole({"num_hidden_layers", "n_layers", "num_layers", "n_layer"}, 0);
  c.experts = f.whole({"num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts",
                       "num_routed_experts"},
                      0);
  c.topk = f.whole({"num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k",
                    "moe_top_k", "top_k_experts", "experts_per_token", "num_selected_experts"},
                   0);
  c.shared = f.whole({"n_shared_experts", "num_shared_experts", "moe_num_shared_experts"}, 0);
}

}  // namespace

RecordedModel read_model_config(const std::filesystem::path& path) {
  const Json all = read_json(path);
  RecordedModel c;
  c.name = in_quotes(path);
  const auto refuse = [&](const std::string& why) {
    throw Error(Exit::input, concat(c.name, " ", why))
        .hint("config.json of the model that was recorded");
  };
  if (!all.is_object())
    refuse("is no model's configuration");
  const bool nested = all.contains("text_config") && all["text_config"].is_object();
  const Json& json = nested ? all["text_config"] : all;
  const Fields f(json, c.name);
  read_sizes(f, c);
  if (c.layers < 1 || c.layers > 4096 || c.experts < 1)
    refuse("does not say how many layers and experts the model has");
  if (c.topk > c.experts)
    refuse(concat("says that a token chooses ", c.topk, " of ", c.experts, " experts"));
  for (int i = 0; i < c.layers; ++i) {
    if (is_moe(f, i))
      c.moe_layers.push_back(i);
  }
  if (c.moe_layers.empty())
    refuse("is of a model without MoE layers");
  read_scores(f, c);
  return c;
}

}  // namespace moe
