// Models written as GGUF files and read back by the reader of files that llama.cpp's converter
// made: the same logits from float32, each number within its rounding from the others, and a
// sentence for what such a file cannot say.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "lib/checkpoint/quant/dequantise.h"
#include "lib/checkpoint/quant/quantise.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/family/families.h"
#include "lib/family/gguf_export.h"
#include "lib/files/json.h"
#include "lib/model/config.h"
#include "lib/router/router.h"
#include "lib/run/save_gguf.h"

using namespace moe;

namespace {

namespace fs = std::filesystem;

struct Scratch {
  fs::path path = fs::temp_directory_path() / concat("moe-gguf-export-", ::getpid());
  Scratch() {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~Scratch() {
    fs::remove_all(path);
  }
};

Json recorded(const std::string& family) {
  return read_json(fs::path(MOE_SOURCE_DIR) / "tests/model/families" / (family + ".json"))
      .at("config");
}

void draw(Decoder<float>& model) {
  Rng rng(11);
  for (auto* p : model.parameters()) {
    const double centre = p->name().ends_with("norm") ? 1 : 0;
    for (float& v : p->mutate().flat())
      v = float(centre + 0.3 * rng.normal());
  }
  for (auto* layer : model.moe_layers()) {
    for (double& b : layer->router().correction_bias())
      b = double(float(0.1 * rng.normal()));
  }
}

Matrix<float> logits(Decoder<float>& model) {
  Batch batch;
  for (int t = 0; t < 12; ++t)
    batch.token.push_back((t * 37 + 5) % model.config().vocabulary);
  batch.start = {0, 12};
  Decoder<float>::Tape tape;
  Matrix<float> out;
  model.infer({.batch = batch}, tape, {}, nullptr, &out);
  return out;
}

LoadedModel from_family(const std::string& family, const fs::path& folder) {
  LoadedModel out;
  out.family = family;
  out.checkpoint.path = folder;
  return out;
}

// What of a recorded configuration no file can say becomes what llama.cpp does.
void say_less(Json& j) {
  const std::string type = j.at("model_type");
  if (type == "qwen2_moe")
    j["norm_topk_prob"] = false;
  if (type == "qwen3_moe")
    j["norm_topk_prob"] = true;
  if (type == "mistral")
    j["sliding_window"] = nullptr;
  if (type == "olmoe")
    j["clip_qkv"] = nullptr;
  if (type == "phimoe")
    j["router_jitter_noise"] = 0.01;
  if (type == "deepseek_v2" || type == "deepseek_v3" || type == "kimi_k2")
    j["rope_parameters"]["mscale"] = j["rope_parameters"]["mscale_all_dim"];
  if (type == "llama4_text") {
    j["attention_chunk_size"] = 8192;
    j["floor_scale"] = 8192;
    j.erase("layer_types");
    j["attn_scale"] = 0.1;
    j["no_rope_layer_interval"] = 4;
    j.erase("no_rope_layers");
    j.erase("rope_parameters");
  }
}

const GgmlType& type_named(const std::string& name) {
  for (const GgmlType& t : ggml_types()) {
    if (t.name == name)
      return t;
  }
  FAIL(name);
  throw 0;
}

}  // namespace

TEST_CASE("a model of each family that llama.cpp has comes back from a file with its logits") {
  const Scratch scratch;
  const auto backend = make_reference<float>();
  int written = 0;
  for (const Family& f : families()) {
    const std::string family(f.name);
    if (!gguf_architecture_of(family))
      continue;
    INFO(family);
    Json config = recorded(family);
    say_less(config);
    Decoder<float> model(config_from_json(config).config, *backend);
    draw(model);
    const fs::path file = scratch.path / (family + ".gguf");
    const SavedGguf saved = save_gguf(file, model, from_family(family, scratch.path), "F32");
    const LoadedModel back = load_model(file, *backend);
    const Matrix<float> here = logits(model);
    const Matrix<float> there = logits(*back.model);
    REQUIRE(here.size() == there.size());
    double worst = 0;
    for (Index i = 0; i < here.size(); ++i)
      worst = std::max(worst, double(std::abs(here.data()[i] - there.data()[i])));
    // the divisors of Llama 3's rule are rounded to float32 in the file
    const bool divisors = family == "llama";
    CHECK(worst <= (divisors ? 1e-3 : 0));
    ++written;
  }
  CHECK(written >= 17);
}

TEST_CASE("numbers of smaller types are those of the model within their rounding") {
  const Scratch scratch;
  const auto backend = make_reference<float>();
  Json config = recorded("qwen3_moe");
  say_less(config);
  Decoder<float> model(config_from_json(config).config, *backend);
  draw(model);
  for (const auto& [type, share] : {std::pair("BF16", 1.0 / 256), std::pair("F16", 1.0 / 2048),
                                    std::pair("Q8_0", 1.0 / 127), std::pair("Q4_0", 1.0 / 8)}) {
    INFO(type);
    const fs::path file = scratch.path / (std::string(type) + ".gguf");
    const SavedGguf saved = save_gguf(file, model, from_family("qwen3_moe", scratch.path), type);
    const LoadedModel back = load_model(file, *backend);
    const auto here = model.parameters();
    const auto there = back.model->parameters();
    bool rounded = false;
    for (std::size_t p = 0; p < here.size(); ++p) {
      INFO(here[p]->name());
      const Matrix<float> a = here[p]->to_host();
      const Matrix<float> b = there[p]->to_host();
      float most = 0;
      for (const float v : a.flat())
        most = std::max(most, std::abs(v));
      for (Index i = 0; i < a.size(); ++i) {
        const bool near = std::abs(a.data()[i] - b.data()[i]) <= share * double(most);
        if (!near)
          CHECK(a.data()[i] == b.data()[i]);
        rounded = rounded || a.data()[i] != b.data()[i];
      }
      const bool decides =
          here[p]->name().ends_with("norm") || here[p]->name().find("router") != std::string::npos;
      if (decides)
        CHECK(std::ranges::equal(a.flat(), b.flat()));
    }
    CHECK(rounded);
  }
}

TEST_CASE("in four bits the number furthest from 0 is -8 of the scale, whatever its sign") {
  std::vector<float> numbers(64);
  for (std::size_t i = 0; i < 64; ++i)
    numbers[i] = i < 32 ? 1 + float(int(i) - 31) / 4 : 0;  // -6.75 to 1
  const GgmlType& type = type_named("Q4_0");
  std::vector<std::byte> blocks;
  quantise(type, numbers, blocks);
  REQUIRE(blocks.size() == 2 * 18);
  CHECK(std::to_integer<int>(blocks[2]) == 0x50);  // -8 of 0.84375; behind it -2.75, which is -3
  std::vector<float> back(64);
  dequantise(type, blocks, back);
  for (std::size_t i = 0; i < 32; ++i)
    CHECK(back[i] == Approx(numbers[i]).margin(6.75 / 8 / 2 + 1e-3));
  CHECK(back[0] == Approx(-6.75).epsilon(1e-3));
  CHECK(back[40] == 0);
}

TEST_CASE("blocks of 32 share a scale, the largest of them over 127") {
  std::vector<float> numbers(64);
  for (std::size_t i = 0; i < 64; ++i)
    numbers[i] = i < 32 ? float(int(i) - 16) / 8 : 0;
  const GgmlType& type = type_named("Q8_0");
  std::vector<std::byte> blocks;
  quantise(type, numbers, blocks);
  REQUIRE(blocks.size() == 2 * 34);
  CHECK(std::to_integer<int>(blocks[2]) == 0x81);  // -127: the largest, -2
  CHECK(std::to_integer<int>(blocks[2 + 16]) == 0);
  std::vector<float> back(64);
  dequantise(type, blocks, back);
  for (std::size_t i = 0; i < 64; ++i)
    CHECK(back[i] == Approx(numbers[i]).margin(2.0 / 127 / 2 + 1e-3));
  CHECK(back[40] == 0);
  CHECK_FALSE(can_quantise(type_named("Q4_K")));
  CHECK_THROWS_WITH(quantise(type, std::span(numbers).first(33), blocks),
                    "33 numbers cannot be Q8_0");
}

TEST_CASE("what a GGUF file cannot say is refused by name, and nothing is left behind") {
  const Scratch scratch;
  const auto backend = make_reference<float>();
  const auto refused = [&](const std::string& family, const std::string& key, const Json& value,
                           const std::string& says) {
    Json config = recorded(family);
    say_less(config);
    config[key] = value;
    Decoder<float> model(config_from_json(config).config, *backend);
    INFO(family << " " << key);
    CHECK_THROWS_WITH(
        save_gguf(scratch.path / "x.gguf", model, from_family(family, scratch.path), "F32"),
        Catch::Contains(says));
    CHECK(fs::is_empty(scratch.path));
  };
  refused("olmoe", "clip_qkv", 4.0, "it would be read as clip_qkv=0 instead of 4");
  refused("qwen3_moe", "norm_topk_prob", false, "norm=1} instead of {softmax:k=");
  refused("qwen3", "hidden_size", 64, "llama.cpp has no architecture for qwen3 that");
}
