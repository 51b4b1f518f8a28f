// GGUF files as checkpoints: a tiny model of each architecture, written as llama.cpp's converter
// would and read back, gives the same configuration and the same logits as the published layout;
// what is not read is refused by name.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/edit/gguf_slice.h"
#include "lib/family/families.h"
#include "lib/family/gguf_config.h"
#include "lib/files/json.h"
#include "lib/model/rotary.h"
#include "lib/run/golden_models.h"
#include "lib/run/run_folder.h"
#include "tests/model/gguf_writer.h"
#include "tests/model/golden_folder.h"
#include "tests/skip.h"

using namespace moe;
using test::GgufBytes;
using test::GgufForm;
using test::GgufWriter;

namespace {

namespace fs = std::filesystem;

struct Scratch {
  fs::path path = fs::temp_directory_path() / concat("moe-gguf-", ::getpid());
  Scratch() {
    fs::remove_all(path);
    fs::create_directories(path);
  }
  ~Scratch() {
    fs::remove_all(path);
  }
  fs::path put(const GgufBytes& g) const {
    std::ofstream(path / "x.gguf", std::ios::binary) << g.bytes();
    return path / "x.gguf";
  }
};

void yarn_keys(GgufWriter& w, float factor, std::uint32_t original) {
  w.key("rope.scaling.type", std::string("yarn"));
  w.key("rope.scaling.factor", factor);
  w.key("rope.scaling.original_context_length", original);
  w.key("rope.scaling.yarn_beta_fast", 32.0f);
  w.key("rope.scaling.yarn_beta_slow", 1.0f);
}
void deepseek_keys(GgufWriter& w, float scale, std::uint32_t groups, std::uint32_t used,
                   std::uint32_t gating) {
  w.key("expert_weights_scale", scale);
  w.key("expert_group_count", groups);
  w.key("expert_group_used_count", used);
  w.key("expert_gating_func", gating);
}

// A recorded family, and how its file differs from what the writer does by itself.
struct Case {
  const char* record;
  GgufForm form;
  // what no file says becomes what the architecture stands for
  void (*patch)(Json& config) = [](Json&) {
  };
  void (*more)(GgufWriter&, const Json& config) = [](GgufWriter&, const Json&) {
  };
};

void same_mscale(Json& j) {
  j["rope_parameters"]["mscale"] = j["rope_parameters"]["mscale_all_dim"];
}
void latent_keys_of(GgufWriter& w, const Json& j) {
  const Json& rope = j.at("rope_parameters");
  yarn_keys(w, rope.at("factor"), rope.at("original_max_position_embeddings"));
  w.key("rope.scaling.yarn_log_multiplier", float(0.1 * rope.at("mscale_all_dim").get<double>()));
  const bool v2 = j.at("model_type") == "deepseek_v2";
  deepseek_keys(w, j.at("routed_scaling_factor"), j.at("n_group"), j.at("topk_group"), v2 ? 1 : 2);
  w.flag("expert_weights_norm", j.value("norm_topk_prob", false));
}

// Which layers have experts is said by the tensors, one layer at a time.
void qwen3(Json& j) {
  j["norm_topk_prob"] = true;
  j["decoder_sparse_step"] = 1;
  j["mlp_only_layers"] = Json::array({1});
}

void llama4(Json& j) {
  j["attention_chunk_size"] = 8192;
  j["no_rope_layer_interval"] = 4;
  j["floor_scale"] = 8192;
  j["attn_scale"] = 0.1;
  for (const char* key : {"no_rope_layers", "layer_types", "rope_parameters"})
    j.erase(key);
}

std::vector<Case> plain_cases() {
  return {
      {"mixtral", {.architecture = "llama", .laced = true}},
      {"mixtral", {.architecture = "llama", .laced = true, .single_experts = true}},
      {"mixtral", {.architecture = "llama", .laced = true, .fused_qkv = true}},
      {"llama",
       {.architecture = "llama", .laced = true},
       [](Json& j) {
         j.erase("rope_parameters");
       }},
      {"olmoe",
       {.architecture = "olmoe"},
       [](Json& j) {
         j["clip_qkv"] = nullptr;
       }},
      {"qwen2_moe",
       {.architecture = "qwen2moe", .fused_qkv = true},
       [](Json& j) {
         j["norm_topk_prob"] = false;
       }},
      {"qwen3_moe", {.architecture = "qwen3moe", .fused_experts = true}, qwen3},
      {"deepseek", {.architecture = "deepseek", .laced = true}},
      {"deepseek_v2", {.architecture = "deepseek2"}, same_mscale, latent_keys_of},
      {"deepseek_v2",
       {.architecture = "deepseek2", .latent_split = false},
       same_mscale,
       latent_keys_of},
      {"deepseek_v3", {.architecture = "deepseek2"}, same_mscale, latent_keys_of},
      {"hunyuan_v1_moe", {.architecture = "hunyuan-moe"}},
      {"minimax_m2", {.architecture = "minimax-m2"}},
      {"llama4_text", {.architecture = "llama4"}, llama4},
      {"phimoe",
       {.architecture = "phimoe"},
       [](Json& j) {
         j["router_jitter_noise"] = 0.01;
       }},
  };
}

void nothing(Json&) {}
void gpt_oss_keys(GgufWriter& w, const Json& j) {
  const Json& rope = j.at("rope_parameters");
  yarn_keys(w, rope.at("factor"), rope.at("original_max_position_embeddings"));
}
void granite_keys(GgufWriter& w, const Json& j) {
  w.key("embedding_scale", float(j.at("embedding_multiplier")));
  w.key("residual_scale", float(j.at("residual_multiplier")));
  w.key("logit_scale", float(j.at("logits_scaling")));
  w.key("attention.scale", float(j.at("attention_multiplier")));
}
void dbrx_keys(GgufWriter& w, const Json& j) {
  w.key("attention.clamp_kqv", float(j.at("attn_config").at("clip_qkv")));
}
void glm4_keys(GgufWriter& w, const Json& j) {
  deepseek_keys(w, j.at("routed_scaling_factor"), j.at("n_group"), j.at("topk_group"), 2);
  w.flag("expert_weights_norm", j.at("norm_topk_prob"));
}
void ernie_keys(GgufWriter& w, const Json& j) {
  w.key("interleave_moe_layer_step", std::uint32_t(j.value("moe_layer_interval", 1)));
}

std::vector<Case> cases_with_keys() {
  const std::string after = "post_attention_norm";
  return {
      {"gpt_oss", {.architecture = "gpt-oss", .feed_norm = after}, nothing, gpt_oss_keys},
      {"granitemoe", {.architecture = "granitemoe", .laced = true}, nothing, granite_keys},
      {"granitemoeshared", {.architecture = "granitemoe", .laced = true}, nothing, granite_keys},
      {"dbrx",
       {.architecture = "dbrx", .feed_norm = "attn_output_norm", .fused_qkv = true},
       nothing,
       dbrx_keys},
      {"glm4_moe", {.architecture = "glm4moe", .feed_norm = after}, nothing, glm4_keys},
      {"ernie4_5_moe", {.architecture = "ernie4_5-moe"}, nothing, ernie_keys},
  };
}

std::vector<Case> cases() {
  std::vector<Case> out = plain_cases();
  std::ranges::copy(cases_with_keys(), std::back_inserter(out));
  return out;
}

Json record_of(const char* family) {
  return read_json(fs::path(MOE_SOURCE_DIR) / "tests/model/families" / concat(family, ".json"));
}

// Numbers around 0, of norms around 1.
void fill(Decoder<float>& model) {
  Rng rng(3);
  for (const auto& p : model.inventory()) {
    const View<const float> v = p.parameter->value();
    Matrix<float> m(v.rows, v.cols);
    const bool norm = p.parameter->name().ends_with("norm");
    for (float& x : m.flat())
      x = float(norm ? 1 + 0.2 * rng.normal() : 0.2 * rng.normal());
    p.parameter->set(std::as_const(m).view());
  }
  for (MoeLayer<float>* layer : model.moe_layers()) {
    for (double& b : layer->router().correction_bias())
      b = double(float(0.2 * rng.normal()));
  }
}

Matrix<float> logits_of(Decoder<float>& model) {
  Batch batch;
  for (int i = 0; i < 2 * 20; ++i)
    batch.token.push_back((i * i * 7 + i) % model.config().vocabulary);
  batch.start = {0, 20, 40};
  Decoder<float>::Tape tape;
  Matrix<float> out;
  model.infer({.batch = batch}, tape, {}, nullptr, &out);
  return out;
}

// Logits of the same tokens, one after the other.
Matrix<float> decoded(Decoder<float>& model) {
  Matrix<float> out(20, model.config().vocabulary);
  DecoderState state;
  for (int i = 0; i < 20; ++i) {
    const Batch batch{
        .token = {(i * i * 7 + i) % model.config().vocabulary}, .start = {0, 1}, .past = {i}};
    Decoder<float>::Tape tape;
    Matrix<float> logits;
    model.infer({.batch = batch}, tape, {}, &state, &logits);
    std::ranges::copy(logits.flat(), out.row(i).begin());
  }
  return out;
}

// The largest difference, of the largest number.
double difference(const Matrix<float>& a, const Matrix<float>& b) {
  double far = 0;
  double size = 0;
  for (Index i = 0; i < a.size(); ++i) {
    far = std::max(far, std::abs(double(a.data()[i]) - double(b.data()[i])));
    size = std::max(size, std::abs(double(a.data()[i])));
  }
  return far / size;
}

bool equal(const Matrix<float>& a, const Matrix<float>& b) {
  return std::ranges::equal(a.flat(), b.flat());
}

std::string refusal(const fs::path& path) {
  const auto backend = make_backend("cpu");
  try {
    load_model(path, *backend);
  } catch (const Error& e) {
    CHECK(e.code() == Exit::input);
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("every architecture of GGUF gives the model that was converted") {
  const Scratch scratch;
  const auto backend = make_backend("cpu");
  std::set<std::string> seen;
  for (const Case& c : cases()) {
    INFO(c.record << " as " << c.form.architecture);
    Json config = record_of(c.record).at("config");
    c.patch(config);
    Decoder<float> model(config_from_json(config).config, *backend);
    fill(model);
    GgufWriter writer(model, c.form);
    c.more(writer, config);
    const fs::path path = scratch.put(writer.bytes());
    const LoadedModel back = load_model(path, *backend);
    CHECK(back.family == c.record);
    CHECK(to_spec(back.model->config()) == to_spec(model.config()));
    CHECK(equal(logits_of(*back.model), logits_of(model)));
    const LoadedModel there = load_model(path, *backend, {.holding = {.numbers = Keep::in_files}});
    CHECK(difference(logits_of(*there.model), logits_of(model)) < 1e-5);
    CHECK(difference(decoded(*there.model), decoded(model)) < 1e-5);
    if (model.config().moe_layers() > 0) {
      const LoadedModel lazy = load_model(path, *backend, {.holding = {.numbers = Keep::cached}});
      CHECK(equal(logits_of(*lazy.model), logits_of(model)));
    }
    seen.insert(c.form.architecture);
  }
  for (const std::string& name : gguf_architectures()) {
    INFO(name);
    // qwen3moe under another name
    CHECK((name == "qwen3vlmoe" || seen.count(name) == 1));
  }
}

TEST_CASE("divisors of the frequencies stand for the rule of Llama 3") {
  const Scratch scratch;
  const auto backend = make_backend("cpu");
  const Json config = record_of("llama").at("config");
  Decoder<float> model(config_from_json(config).config, *backend);
  const ModelConfig& c = model.config();
  REQUIRE(c.rope.starts_with("llama3"));
  fill(model);
  const Rotary plain = rotary_of("default", c.head_dim, c.rope_theta);
  const Rotary ruled = rotary_of(c.rope, c.head_dim, c.rope_theta);
  std::vector<float> divisors;
  for (std::size_t i = 0; i < plain.frequency.size(); ++i)
    divisors.push_back(float(plain.frequency[i] / ruled.frequency[i]));
  CHECK(std::ranges::max(divisors) > 1);
  GgufWriter writer(model, {.architecture = "llama", .laced = true});
  writer.vector("rope_freqs.weight", divisors);
  const LoadedModel back = load_model(scratch.put(writer.bytes()), *backend);
  CHECK(back.checkpoint.notes.empty());
  const Matrix<float> got = logits_of(*back.model);
  const Matrix<float> want = logits_of(model);
  double apart = 0;
  for (Index i = 0; i < got.size(); ++i)
    apart = std::max(apart, std::abs(double(got.data()[i]) - double(want.data()[i])));
  CHECK(apart < 1e-5);
}

TEST_CASE("experts cut out of a GGUF file leave the model that removing them makes") {
  const Scratch scratch;
  const auto backend = make_backend("cpu");
  Json config = record_of("mixtral").at("config");
  Decoder<float> model(config_from_json(config).config, *backend);
  fill(model);
  const std::vector<ExpertName> gone = expert_names("0:1,0:7,1:0,1:3,2:5,2:6");
  const Edited edited = remove_experts(model, gone);
  for (const GgufForm& form :
       {GgufForm{.architecture = "llama", .laced = true},
        GgufForm{.architecture = "llama", .laced = true, .fused_experts = true},
        GgufForm{.architecture = "llama", .laced = true, .single_experts = true}}) {
    const fs::path whole = scratch.put(GgufWriter(model, form).bytes());
    const fs::path cut = scratch.path / "cut.gguf";
    const auto changes = slice_gguf(whole, cut, gone);
    CHECK(changes.size() == gone.size() + 1);
    const LoadedModel back = load_model(cut, *backend);
    CHECK(back.model->config().moe.experts == 6);
    CHECK(equal(logits_of(*back.model), logits_of(*edited.model)));
    CHECK(fs::file_size(cut) < fs::file_size(whole));
    CHECK(slice_gguf(whole, cut, {}).size() == 1);
    CHECK(equal(logits_of(*load_model(cut, *backend).model), logits_of(model)));
    const auto refused = [&](const char* names) {
      try {
        slice_gguf(whole, cut, expert_names(names));
      } catch (const Error& e) {
        CHECK(e.code() == Exit::usage);
        return std::string(e.what());
      }
      return std::string();
    };
    CHECK(refused("0:1").find("layer 0 would keep 7") != std::string::npos);
    CHECK(refused("0:8,1:0,2:0").find("there is no expert 0:8") != std::string::npos);
    CHECK(refused("9:0").find("there is no expert 9:0") != std::string::npos);
  }
}

namespace {

struct Damaged {
  const Scratch scratch;
  std::unique_ptr<Backend<float>> backend = make_backend("cpu");
  std::unique_ptr<Decoder<float>> model;
  Damaged() {
    Json config = record_of("qwen3_moe").at("config");
    qwen3(config);
    config["mlp_only_layers"] = Json::array();
    model = std::make_unique<Decoder<float>>(config_from_json(config).config, *backend);
    fill(*model);
  }
  GgufBytes bytes() const {
    return GgufWriter(*model, {.architecture = "qwen3moe"}).bytes();
  }
  std::string said(const GgufBytes& g) const {
    return refusal(scratch.put(g));
  }
  // with a key replaced by another value
  std::string with_key(const std::string& name, std::uint32_t type,
                       const std::string& value) const {
    GgufBytes g = bytes();
    const std::string head = test::gguf_string(name);
    if (const auto at = g.keys.find(head); at != g.keys.npos)
      g.keys.replace(at, head.size(), test::gguf_string(std::string(name.size() - 1, 'x') + "y"));
    g.key(name, type, value);
    return said(g);
  }
};

bool has(const std::string& text, const std::string& words) {
  return text.find(words) != text.npos;
}

}  // namespace

TEST_CASE("what a GGUF file asks for beyond this program is refused by name") {
  const Damaged s;
  CHECK(s.said(s.bytes()).empty());
  using test::gguf_string;
  using test::raw;
  const auto with_text = [&](const char* key, const char* value) {
    return s.with_key(key, 8, gguf_string(value));
  };
  CHECK(has(with_text("general.architecture", "qwen9moe"), "'qwen9moe'"));
  CHECK(has(with_text("general.type", "adapter"), "'adapter'"));
  CHECK(has(with_text("qwen3moe.rope.scaling.type", "su"), "'qwen3moe.rope.scaling.type' = 'su'"));
  const auto with_number = [&](const char* key, std::uint32_t value) {
    return s.with_key(key, 4, raw(value));
  };
  CHECK(has(with_number("qwen3moe.expert_used_count", 9999), "'qwen3moe.expert_used_count'"));
  CHECK(has(with_number("qwen3moe.expert_used_count", 0), "'qwen3moe.expert_used_count'"));
  CHECK(has(with_number("qwen3moe.block_count", 4'000'000'000), "'qwen3moe.block_count'"));
  CHECK(has(with_number("qwen3moe.attention.head_count", 0), "'qwen3moe.attention.head_count'"));
  CHECK(has(with_number("qwen3moe.expert_gating_func", 4), "'qwen3moe.expert_gating_func'"));
  CHECK(has(with_number("qwen3moe.embedding_length", 1'000'000), "'qwen3moe.embedding_length'"));
  CHECK(has(with_number("qwen3moe.expert_count", 1'000'000), "'qwen3moe.expert_count'"));
  CHECK(has(with_number("qwen3moe.block_count", 1000), "'blk.3.attn_norm.weight'"));
  CHECK(has(with_number("qwen3moe.vocab_size", 5), "'qwen3moe.vocab_size'"));
  CHECK(has(with_number("qwen3moe.expert_feed_forward_length", 900'000'000), "describes a model"));
  CHECK(has(with_text("qwen3moe.embedding_length", "64"), "as string where"));
  const float nan = std::nanf("");
  CHECK(has(s.with_key("qwen3moe.attention.layer_norm_rms_epsilon", 6, raw(nan)), "no finite"));
  const std::string uneven = raw(std::uint32_t(4)) + raw(std::uint64_t(2)) + raw(4u) + raw(8u);
  CHECK(has(s.with_key("qwen3moe.attention.head_count", 9, uneven), "differ between layers"));
}

TEST_CASE("tensors of a GGUF file that do not make the model are refused by name") {
  const Damaged s;
  const auto without = [&](const std::string& name) {
    GgufBytes g = s.bytes();
    std::erase_if(g.tensors, [&](const GgufBytes::Tensor& t) { return t.name == name; });
    return s.said(g);
  };
  const auto of = [](GgufBytes& g, const std::string& name) -> GgufBytes::Tensor& {
    return *std::ranges::find(g.tensors, name, &GgufBytes::Tensor::name);
  };
  CHECK(has(without("blk.1.ffn_down_exps.weight"), "'blk.1.ffn_down_exps.weight' is missing"));
  CHECK(has(without("token_embd.weight"), "'token_embd.weight' is missing"));
  CHECK(has(without("blk.1.ffn_gate_inp.weight"), "'blk.1.ffn_"));
  GgufBytes g = s.bytes();
  std::swap(of(g, "blk.1.ffn_gate_inp.weight").dims[0], of(g, "blk.1.ffn_gate_inp.weight").dims[1]);
  CHECK(has(s.said(g), "'blk.1.ffn_gate_inp.weight'"));
  g = s.bytes();
  const float nan = std::nanf("");
  of(g, "blk.1.ffn_gate_inp.weight").data.replace(8, 4, test::raw(nan));
  CHECK(has(s.said(g), "not finite"));
  g = s.bytes();
  g.floats("blk.0.attn_gate.weight", {4}, {1, 2, 3, 4});
  CHECK(has(s.said(g), "'blk.0.attn_gate.weight'"));
  g = s.bytes();
  g.floats("blk.9.nextn.eh_proj.weight", {4}, {1, 2, 3, 4});
  CHECK(s.said(g).empty());
  g = s.bytes();
  of(g, "blk.0.attn_norm.weight").type = 26;
  CHECK(has(s.said(g), "'blk.0.attn_norm.weight'"));
}

TEST_CASE("a GGUF file with any bytes of its header changed opens or is refused") {
  const Damaged s;
  const std::string whole = s.bytes().bytes();
  const Index header = Index(whole.find("output_norm.weight"));  // near its end
  Rng rng(11);
  int refused = 0;
  for (int i = 0; i < 400; ++i) {
    std::string bytes = whole;
    for (Index n = 1 + rng.below(3); n > 0; --n)
      bytes[std::size_t(rng.below(header))] ^= char(1 + rng.below(255));
    std::ofstream(s.scratch.path / "y.gguf", std::ios::binary) << bytes;
    try {
      load_model(s.scratch.path / "y.gguf", *s.backend);
    } catch (const Error& e) {
      INFO(i << ": " << e.what());
      CHECK(e.code() == Exit::input);
      ++refused;
    }
  }
  CHECK(refused > 200);
}

TEST_CASE("recorded GGUF models give the logits of their classes, and malformed ones are refused") {
  test::check_golden_models("golden/gguf", 15, 21);
}
