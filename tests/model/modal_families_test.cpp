// Whole multimodal models as files: two groups of experts in tensors of their own widths, other
// names of layers, encoders that an edited model keeps.
#include <unistd.h>
#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "lib/family/families.h"
#include "lib/family/layouts.h"
#include "lib/model/decoder.h"
#include "lib/router/router.h"
#include "lib/run/run_folder.h"

using namespace moe;

namespace {

namespace fs = std::filesystem;
using Files = std::map<std::string, Tensor>;

Json config_of(const char* family) {
  return read_json(fs::path(MOE_SOURCE_DIR) / "tests/model/families" / concat(family, ".json"))
      .at("config");
}

Files files_of(Decoder<float>& model, const Names& names) {
  Files out;
  for (const NamedTensor& t : store(model, names))
    out.emplace(t.name, t.make());
  return out;
}

Batch batch_of(const std::vector<std::uint8_t>& modality) {
  Batch b;
  for (std::size_t t = 0; t < modality.size(); ++t)
    b.token.push_back(int(t * 7 % 100));
  b.modality = modality;
  b.start = {0, b.tokens()};
  return b;
}
Matrix<float> logits_of(Decoder<float>& model, const Batch& batch) {
  Decoder<float>::Tape tape;
  Matrix<float> out;
  model.infer({.batch = batch}, tape, {}, nullptr, &out);
  return out;
}

struct Scratch {
  Scratch() : path(fs::temp_directory_path() / concat("moe-modal-", ::getpid())) {
    fs::create_directories(path);
  }
  ~Scratch() {
    fs::remove_all(path);
  }
  fs::path path;
};

void write_text(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace

TEST_CASE("experts of two groups lie in tensors of their own widths, and their routers apart") {
  Json config = config_of("ernie4_5_vl_moe");
  config["text_config"]["moe_intermediate_size"] = {12, 5};
  const Published read = config_from_json(config);
  CHECK(read.config.moe.experts == 12);
  CHECK(read.config.moe.width_of(5) == 12);
  CHECK(read.config.moe.width_of(6) == 5);
  CHECK(read.config.moe.shared_width == 24);
  const auto backend = make_reference<float>();
  Decoder<float> a(read.config, *backend);
  Decoder<float> b(read.config, *backend);
  a.initialise(1);
  for (MoeLayer<float>* layer : a.moe_layers()) {
    for (std::size_t e = 0; e < 12; ++e)
      layer->router().correction_bias()[e] = 0.05 * double(e % 5);
  }
  const Files files = files_of(a, names_of("ernie4_5_vl_moe"));
  const std::string at = "model.layers.1.mlp.";
  CHECK(files.at(at + "gate.weight").dims() == Dims{64, 6});
  CHECK(files.at(at + "gate.weight_1").dims() == Dims{64, 6});
  CHECK(files.at(at + "moe_statics.e_score_correction_bias").dims() == Dims{2, 6});
  CHECK(files.at(at + "experts.5.gate_proj.weight").dims() == Dims{12, 64});
  CHECK(files.at(at + "experts.6.up_proj.weight").dims() == Dims{5, 64});
  CHECK(files.at(at + "experts.6.down_proj.weight").dims() == Dims{64, 5});
  load(b, "ernie4_5_vl_moe", [&](const std::string& name, const Dims& dims) {
    CHECK(files.at(name).dims() == dims);
    return files.at(name);
  });
  const Batch seen = batch_of({0, 0, 1, 1, 1, 1, 0, 2, 2, 0});
  CHECK(logits_of(a, seen) == logits_of(b, seen));
  // what is no text has experts of its own
  CHECK_FALSE(logits_of(a, seen) == logits_of(a, batch_of(std::vector<std::uint8_t>(10, 0))));
}

TEST_CASE("layers are found under the other name that some writers have for them") {
  const Published read = config_from_json(config_of("kimi_k25"));
  const auto backend = make_reference<float>();
  Decoder<float> model(read.config, *backend);
  const auto found = [&](const std::string& layers) {
    Names names = names_of("kimi_k25");
    names.layers = layers;
    std::vector<std::string> tensors{"vision_tower.encoder.blocks.0.wo.weight"};
    for (const auto& [name, tensor] : files_of(model, names))
      tensors.push_back(name);
    std::ranges::sort(tensors);
    return names_as_found("kimi_k25", false, tensors).names.layers;
  };
  CHECK(found("layers.") == "layers.");
  CHECK(found("blocks.") == "blocks.");
}

TEST_CASE("Baidu's own configuration of ERNIE 4.5 VL is refused by its name") {
  CHECK_THROWS_WITH(
      config_from_json({{"model_type", "ernie4_5_moe_vl"}, {"moe_num_experts", {64, 64}}}),
      Catch::Matchers::Contains("'ernie4_5_moe_vl' is not read") &&
          Catch::Matchers::Contains("ernie4_5_vl_moe, is read"));
}

TEST_CASE("a whole model that was edited keeps its encoders and the rest of its configuration") {
  const Scratch scratch;
  const fs::path folder = scratch.path / "aria";
  fs::create_directories(folder);
  const Json config = config_of("aria");
  const auto backend = make_reference<float>();
  Decoder<float> made(config_from_json(config).config, *backend);
  made.initialise(2);
  std::vector<NamedTensor> tensors = store(made, "aria");
  Tensor eye(DType::f16, {3, 4});
  for (std::size_t i = 0; i < eye.mutable_bytes().size(); ++i)
    eye.mutable_bytes()[i] = std::byte(17 * i % 256);
  tensors.emplace_back("vision_tower.post_layernorm.weight", eye);
  // a kernel over time, height and width, of more sizes than a tensor in memory has
  tensors.emplace_back("vision_tower.patch.weight", DType::f16, Dims{1, 1, 3, 2, 2}, [&] {
    return Tensor(DType::f16, {1, 3, 2, 2});
  });
  write_safetensors(folder / "model.safetensors", tensors);
  write_text(folder / "config.json", config.dump());
  LoadedModel loaded = load_model(folder, *backend);
  for (const std::string& note : loaded.checkpoint.notes)
    CHECK(note.find("vision_tower") == note.npos);
  const TokenizerFiles kept{.kept = std::make_shared<const KeptFiles>(kept_files(folder))};
  const SavedModel saved = save_model(scratch.path / "out", *loaded.model,
                                      {.state = nullptr,
                                       .tokenizer = kept,
                                       .type = [](const std::string&) { return DType::bf16; },
                                       .usual = DType::bf16,
                                       .made = Json::object()});
  CHECK(saved.family == "aria");
  const Tensors out(scratch.path / "out");
  const Tensor same = out.get("vision_tower.post_layernorm.weight");
  CHECK(same.dtype() == DType::f16);
  CHECK(std::ranges::equal(same.bytes(), eye.bytes()));
  CHECK(out.at("vision_tower.patch.weight").dims == Dims{1, 1, 3, 2, 2});
  CHECK(out.get("language_model.lm_head.weight").dtype() == DType::bf16);
  const Json written = read_json(scratch.path / "out/config.json");
  CHECK(written.at("vision_config") == config.at("vision_config"));
  CHECK(written.at("model_type") == "aria");
  CHECK(load_model(scratch.path / "out", *backend).family == "aria");
}
