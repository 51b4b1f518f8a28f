// What a config.json says of single layers in words (layer_types, mlp_layer_types), and rules of
// rotary embedding that differ from one kind of layer to the next.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "lib/family/family.h"

namespace moe {

inline constexpr const char* full_attention = "full_attention";
inline constexpr const char* sliding_attention = "sliding_attention";

// The words of `key`, one a layer, or `usual` where it is absent or null. Words that are not
// `allowed`, and another number of words than layers, are refused by name.
std::vector<std::string> layer_words(const ConfigReader&, const char* key, int layers,
                                     const std::vector<std::string>& allowed,
                                     const std::function<std::string(int layer)>& usual);

// layer_types, and sliding_window where a layer has one: window and full_layers.
// `is_full`: where layer_types is absent.
void read_windows(const ConfigReader&, ModelConfig&, const std::function<bool(int layer)>& is_full);
void write_windows(const ModelConfig&, Json&);  // layer_types and sliding_window
// mlp_layer_types: which layers are MoE.
void read_feeds(const ConfigReader&, ModelConfig&, const std::function<bool(int layer)>& is_moe);
void write_feeds(const ModelConfig&, Json&);
// Layers without a window have no rotary embedding.
void turn_only_windows(ModelConfig&);

// The model's fields are those of layers with full attention; `windowed` has those of the others.
// rope_parameters with an entry for each kind is read into both. Call before mixers_of_kinds().
void read_ropes(const ConfigReader&, ModelConfig& c, ModelConfig& windowed);
// rope_parameters with an entry for each kind of layer that there is.
void write_ropes(const ModelConfig&, Json&);
// c.mixer: layers with a window have the fields of `windowed` where they differ.
void mixers_of_kinds(ModelConfig& c, const ModelConfig& windowed);
// The fields that attention has in the first layer with a window, or in the first that sees all; in
// layer 0 where there is none.
ModelConfig fields_of_kind(const ModelConfig&, bool windowed);

}  // namespace moe
