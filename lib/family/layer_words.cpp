#include "lib/family/layer_words.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "lib/core/text.h"
#include "lib/model/mixer_type.h"

namespace moe {
namespace {

constexpr const char* sparse = "sparse";
constexpr const char* dense = "dense";

bool cuts(const ModelConfig& c, int layer) {
  return c.window > 0 && !c.sees_all(layer);
}

}  // namespace

std::vector<std::string> layer_words(const ConfigReader& r, const char* key, int layers,
                                     const std::vector<std::string>& allowed,
                                     const std::function<std::string(int)>& usual) {
  std::vector<std::string> out = r.texts(key);
  if (!r.has(key)) {
    for (int l = 0; l < layers; ++l)
      out.push_back(usual(l));
  }
  if (out.size() < std::size_t(layers)) {
    r.refuse(concat(key, " names ", out.size(), " layers and the model has ", layers),
             "one word a layer");
  }
  out.resize(std::size_t(layers));  // layers behind the last are those that predict further tokens
  for (const std::string& word : out) {
    if (std::ranges::find(allowed, word) == allowed.end()) {
      r.refuse(concat(key, " names '", word, "' and this program does not have it"),
               join(allowed, " or "));
    }
  }
  return out;
}

void read_windows(const ConfigReader& r, ModelConfig& c, const std::function<bool(int)>& is_full) {
  const std::vector<std::string> kinds =
      layer_words(r, "layer_types", c.layers, {full_attention, sliding_attention},
                  [&](int l) { return is_full(l) ? full_attention : sliding_attention; });
  if (std::ranges::count(kinds, sliding_attention) == 0)
    return;
  c.window = r.positive("sliding_window");
  for (int l = 0; l < c.layers; ++l) {
    if (kinds[std::size_t(l)] == full_attention)
      c.full_layers.push_back(l);
  }
}

void write_windows(const ModelConfig& c, Json& j) {
  Json kinds = Json::array();
  for (int l = 0; l < c.layers; ++l)
    kinds.push_back(cuts(c, l) ? sliding_attention : full_attention);
  j["layer_types"] = kinds;
  j["sliding_window"] = std::max(1, c.window);
}

void read_feeds(const ConfigReader& r, ModelConfig& c, const std::function<bool(int)>& is_moe) {
  const std::vector<std::string> kinds =
      layer_words(r, "mlp_layer_types", c.layers, {sparse, dense},
                  [&](int l) { return is_moe(l) ? sparse : dense; });
  set_moe_layers(c, [&](int l) { return kinds[std::size_t(l)] == sparse; });
}

void write_feeds(const ModelConfig& c, Json& j) {
  Json kinds = Json::array();
  for (int l = 0; l < c.layers; ++l)
    kinds.push_back(c.is_moe(l) ? sparse : dense);
  j["mlp_layer_types"] = kinds;
}

void turn_only_windows(ModelConfig& c) {
  c.no_rope_layers = std::exchange(c.full_layers, {});
  for (int l = 0; c.window == 0 && l < c.layers; ++l)
    c.no_rope_layers.push_back(l);
}

void read_ropes(const ConfigReader& r, ModelConfig& c, ModelConfig& windowed) {
  read_rope(r, c, full_attention);
  read_rope(r, windowed, sliding_attention);
}

void write_ropes(const ModelConfig& c, Json& j) {
  Json kinds = Json::object();
  for (int l = 0; l < c.layers; ++l) {
    const bool windowed = cuts(c, l);
    kinds[windowed ? sliding_attention : full_attention] =
        rope_parameters(fields_of_kind(c, windowed));
  }
  // classes ask for both
  for (const char* kind : {full_attention, sliding_attention}) {
    if (!kinds.contains(kind))
      kinds[kind] = kinds.front();
  }
  j["rope_parameters"] = kinds;
  j.erase("rope_scaling");
  j.erase("rope_theta");
}

void mixers_of_kinds(ModelConfig& c, const ModelConfig& windowed) {
  const std::string other = attention_spec(c, windowed);
  if (other == attention_spec(c, c) || c.window == 0)
    return;
  std::vector<std::string> all;
  for (int l = 0; l < c.layers; ++l)
    all.push_back(cuts(c, l) ? other : attention_spec(c, c));
  c.mixer = join(all, ";");
}

ModelConfig fields_of_kind(const ModelConfig& c, bool windowed) {
  for (int l = 0; l < c.layers; ++l) {
    if (cuts(c, l) == windowed)
      return attention_fields(c, l);
  }
  return attention_fields(c, 0);
}

}  // namespace moe
