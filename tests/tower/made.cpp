#include "tests/tower/made.h"

#include <unistd.h>

#include <fstream>

#include "lib/core/error.h"
#include "lib/tower/families.h"
#include "lib/tower/tower.h"

namespace moe::test {

namespace fs = std::filesystem;

namespace {

Json text(int hidden) {
  return {{"hidden_size", hidden}, {"rms_norm_eps", 1e-5}};
}

Made llama4() {
  const Json vision{
      {"hidden_size", 16},         {"intermediate_size", 64},    {"num_attention_heads", 2},
      {"num_hidden_layers", 2},    {"image_size", 16},           {"patch_size", 4},
      {"projector_input_dim", 20}, {"projector_output_dim", 20}, {"vision_output_dim", 20}};
  return {"llama4",
          {{"model_type", "llama4"}, {"text_config", text(12)}, {"vision_config", vision}},
          {{1, 4, 4}, {1, 4, 4}},
          12};
}

Made aria() {
  const Json vision{{"hidden_size", 24},      {"intermediate_size", 20}, {"num_attention_heads", 3},
                    {"num_hidden_layers", 3}, {"image_size", 16},        {"patch_size", 4}};
  return {"aria",
          {{"model_type", "aria"},
           {"text_config", text(12)},
           {"vision_config", vision},
           {"vision_feature_layer", -2},
           {"projector_patch_to_query_dict", {{"16", 5}, {"6", 3}}}},
          {{1, 4, 4}, {1, 2, 3}},
          12};
}

Json qwen_vision() {
  return {{"hidden_size", 16},       {"intermediate_size", 20},
          {"num_heads", 2},          {"depth", 4},
          {"patch_size", 3},         {"temporal_patch_size", 2},
          {"spatial_merge_size", 2}, {"num_position_embeddings", 25},
          {"out_hidden_size", 12},   {"deepstack_visual_indexes", Json::array({3, 0})}};
}

Made qwen() {
  return {
      "qwen3_vl_moe",
      {{"model_type", "qwen3_vl_moe"}, {"text_config", text(12)}, {"vision_config", qwen_vision()}},
      {{1, 4, 6}, {3, 2, 4}},
      12,
      2};
}

Made omni() {
  const Json audio{{"d_model", 12},         {"encoder_attention_heads", 3},
                   {"encoder_ffn_dim", 18}, {"encoder_layers", 2},
                   {"num_mel_bins", 10},    {"downsample_hidden_size", 4},
                   {"n_window_infer", 200}, {"output_dim", 12}};
  return {"qwen3_omni_moe_thinker",
          {{"model_type", "qwen3_omni_moe_thinker"},
           {"text_config", text(12)},
           {"vision_config", qwen_vision()},
           {"audio_config", audio}},
          {{1, 4, 6}, {3, 2, 4}},
          12,
          2};
}

Made ernie() {
  const Json vision{{"hidden_size", 16}, {"intermediate_size", 20}, {"num_heads", 2},
                    {"depth", 2},        {"patch_size", 3},         {"spatial_merge_size", 2}};
  return {"ernie4_5_vl_moe",
          {{"model_type", "ernie4_5_vl_moe"}, {"text_config", text(12)}, {"vision_config", vision}},
          {{1, 4, 6}, {5, 2, 4}},
          12};
}

Made kimi() {
  const Json vision{{"hidden_size", 16},        {"intermediate_size", 20},
                    {"num_attention_heads", 2}, {"num_hidden_layers", 2},
                    {"patch_size", 3},          {"pos_emb_height", 5},
                    {"pos_emb_width", 5},       {"merge_kernel_size", Json::array({1, 3})}};
  return {"kimi_k25",
          {{"model_type", "kimi_k25"},
           {"text_config", text(12)},
           {"projection_hidden_size", 16},
           {"vision_config", vision}},
          {{1, 4, 6}, {3, 2, 3}},
          12};
}

Made llava() {
  const Json clip{{"hidden_size", 16}, {"intermediate_size", 20}, {"num_attention_heads", 2},
                  {"image_size", 12},  {"num_hidden_layers", 3},  {"patch_size", 4}};
  return {"moe_llava_stablelm",
          {{"model_type", "moe_llava_stablelm"},
           {"hidden_size", 12},
           {"mm_hidden_size", 16},
           {"mm_image_tower", "tower"},
           {"mm_vision_select_layer", -2},
           {"mm_vision_select_feature", "cls_patch"},
           {"image_projector_type", "mlp3x_gelu"},
           {"tower", clip}},  // goes into a file of its own
          {{1, 3, 3}, {1, 3, 3}},
          12};
}

// The tensors of one folder, random. By hand: a convolution over time has five dimensions, more
// than our own writer takes.
void write_tensors(const fs::path& folder, std::span<const TowerTensor> tensors) {
  Json header = Json::object();
  std::string data;
  std::uint64_t stream = 100;
  for (const TowerTensor& t : tensors) {
    Index size = 1;
    for (const Index d : t.dims)
      size *= d;
    std::vector<double> numbers(std::size_t(size), 0.0);
    fill(numbers, ++stream, 0.5);
    const std::size_t first = data.size();
    for (const double v : numbers) {
      const float narrow = float(v);
      data.append(reinterpret_cast<const char*>(&narrow), sizeof narrow);
    }
    header[t.name] = {
        {"dtype", "F32"}, {"shape", t.dims}, {"data_offsets", Json::array({first, data.size()})}};
  }
  const std::string text = header.dump();
  const std::uint64_t length = text.size();
  std::ofstream out(folder / "model.safetensors", std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), sizeof length);
  out << text << data;
}

}  // namespace

Picture picture(int height, int width) {
  Picture p{.height = height, .width = width, .channels = 3, .pixel = {}};
  for (int i = 0; i < height * width * 3; ++i)
    p.pixel.push_back(std::uint8_t(i * 37 % 251));
  return p;
}

void fill(std::span<double> numbers, std::uint64_t stream, double scale) {
  std::uint64_t state = 0x9e3779b97f4a7c15ULL * (stream + 1);
  for (double& v : numbers) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    v = (double(state >> 11) / double(1ULL << 53) * 2 - 1) * scale;
  }
}

std::vector<Made> made_models() {
  return {llama4(), aria(), qwen(), ernie(), kimi(), omni(), llava()};
}

Made made_model(const std::string& name) {
  for (const Made& m : made_models()) {
    if (m.name == name)
      return m;
  }
  throw Error(Exit::bug, "no model is called " + name);
}

MadeFolder::MadeFolder(const Made& made, bool with_tensors) {
  path_ = fs::temp_directory_path() / ("moe-tower-" + made.name + "-" + std::to_string(getpid()));
  fs::remove_all(path_);
  fs::create_directories(path_);
  write_json(path_ / "config.json", made.config);
  if (made.config.contains("tower")) {
    fs::create_directories(path_ / "tower");
    write_json(path_ / "tower" / "config.json", made.config["tower"]);
  }
  if (!with_tensors)
    return;
  TowerTensors<float> asked;
  const TowerConfig config{ConfigReader(made.config, "config.json", ReadFor::sizes), path_};
  tower_families<float>().at(made.name).make(config, asked);
  std::vector<TowerTensor> own;
  std::vector<TowerTensor> inside;  // of the folder "tower"
  for (const TowerTensor& t : asked.asked()) {
    const bool elsewhere = made.config.contains("tower") && t.part == "vision encoder";
    (elsewhere ? inside : own).push_back(t);
  }
  write_tensors(path_, own);
  if (!inside.empty())
    write_tensors(path_ / "tower", inside);
}

MadeFolder::~MadeFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace moe::test
