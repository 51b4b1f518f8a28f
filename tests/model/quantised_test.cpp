// Quantised files through their families: FP8 in blocks under DeepSeek-V3's names, MXFP4 experts
// under gpt-oss's. Each is written here by plain loops, beside the same numbers in float32; both
// must give the same logits, bit for bit. What is not read is refused.
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/family/families.h"
#include "lib/run/run_folder.h"
#include "tests/checkpoint/help.h"

using namespace moe;
using namespace moe::test;

namespace {

// No size is a multiple of 128: every matrix has a ragged block, and most have a whole one before
// it.
const char* const latent =
    R"({"model_type": "deepseek_v3", "vocab_size": 40, "hidden_size": 160,)"
    R"( "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
  "max_position_embeddings": 64, "intermediate_size": 200, "moe_intermediate_size": 136,)"
    R"( "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
  "first_k_dense_replace": 1, "kv_lora_rank": 132, "q_lora_rank": 24, "qk_nope_head_dim": 24,)"
    R"( "qk_rope_head_dim": 12, "v_head_dim": 20, "n_group": 2, "topk_group": 1,
  "rope_theta": 10000.0, "rms_norm_eps": 1e-6, "routed_scaling_factor": 2.5, "norm_topk_prob": true,
  "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",)"
    R"( "weight_block_size": [128, 128]}})";
const char* const sinks =
    R"({"model_type": "gpt_oss", "vocab_size": 40, "hidden_size": 64,)"
    R"( "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,)"
    R"( "head_dim": 12,
  "max_position_embeddings": 64, "intermediate_size": 96, "num_local_experts": 4,)"
    R"( "num_experts_per_tok": 2, "sliding_window": 5, "rope_theta": 150000.0,
  "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,)"
    R"( "truncate": false},
  "quantization_config": {"quant_method": "mxfp4",)"
    R"( "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}})";

struct Pair {
  std::vector<NamedTensor> small, plain;  // quantised, and the same numbers in float32
  int quantised = 0;
};

// The code whose number is nearest; of two the first.
std::uint8_t nearest(std::span<const float> codes, float v) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < codes.size(); ++i) {
    if (std::abs(codes[i] - v) < std::abs(codes[best] - v))
      best = i;
  }
  return std::uint8_t(best);
}
std::vector<float> codes_of_e4m3() {
  std::vector<float> out;
  // no NaN is chosen
  for (int i = 0; i < 256; ++i)
    out.push_back((i & 127) == 127 ? -1e30f : f8_to_float(DType::f8_e4m3, std::uint8_t(i)));
  return out;
}

void add_fp8(Pair& out, const NamedTensor& t) {
  static const std::vector<float> codes = codes_of_e4m3();
  const Tensor full = t.make();
  const View<const float> v = full.view<float>();
  Tensor small(DType::f8_e4m3, t.dims);
  Tensor plain(DType::f32, t.dims);
  Tensor scales(DType::f32, {(v.rows + 127) / 128, (v.cols + 127) / 128});
  const View<float> scale = scales.mutable_view<float>();
  const View<float> back = plain.mutable_view<float>();
  for (Index r = 0; r < v.rows; ++r) {
    for (Index c = 0; c < v.cols; ++c)
      scale(r / 128, c / 128) = std::max(scale(r / 128, c / 128), std::abs(v(r, c)) / 448);
  }
  for (Index r = 0; r < v.rows; ++r) {
    for (Index c = 0; c < v.cols; ++c) {
      const float s = scale(r / 128, c / 128);
      const std::uint8_t code = nearest(codes, v(r, c) / s);
      small.mutable_bytes()[std::size_t(r * v.cols + c)] = std::byte(code);
      back(r, c) = codes[code] * s;
    }
  }
  out.small.emplace_back(t.name, std::move(small));
  out.small.emplace_back(t.name + "_scale_inv", std::move(scales));
  out.plain.emplace_back(t.name, std::move(plain));
  ++out.quantised;
}

// 32 numbers that lie `step` apart: 16 bytes of codes, and the power of two that scales them;
// `plain` gets the numbers that those stand for.
int to_mxfp4(const float* v, Index step, std::byte* blocks, float* plain) {
  const std::array<float, 16> codes = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                                       -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
  float largest = 0;
  for (Index i = 0; i < 32; ++i)
    largest = std::max(largest, std::abs(v[i * step]));
  const int power = int(std::ceil(std::log2(largest / 6)));
  for (Index i = 0; i < 32; ++i) {
    const std::uint8_t code = nearest(codes, std::ldexp(v[i * step], -power));
    blocks[i / 2] |= std::byte(code << (i % 2 * 4));
    plain[i * step] = std::ldexp(codes[code], power);
  }
  return power;
}

// (E, in, out) becomes blocks (E, out, in/32, 16) and scales (E, out, in/32).
void add_mxfp4(Pair& out, const NamedTensor& t) {
  const Tensor full = t.make();
  const float* v = full.view<float>().data;
  const Index experts = t.dims[0];
  const Index in = t.dims[1];
  const Index outs = t.dims[2];
  const Index groups = in / 32;
  Tensor blocks(DType::u8, {experts, outs, groups, 16});
  Tensor scales(DType::u8, {experts, outs, groups});
  Tensor plain(DType::f32, t.dims);
  for (Index g = 0; g < experts * outs * groups; ++g) {
    // in the numbers, whose steps are `outs`
    const Index e = g / groups / outs;
    const Index o = g / groups % outs;
    const Index first = (e * in + g % groups * 32) * outs + o;
    const int power = to_mxfp4(v + first, outs, blocks.mutable_bytes().data() + g * 16,
                               plain.mutable_view<float>().data + first);
    scales.mutable_bytes()[std::size_t(g)] = std::byte(power + 127);
  }
  out.small.emplace_back(t.name + "_blocks", std::move(blocks));
  out.small.emplace_back(t.name + "_scales", std::move(scales));
  out.plain.emplace_back(t.name, std::move(plain));
  ++out.quantised;
}

// As the published files: norms, embedding, head, router and biases stay as they are.
Pair quantise(Decoder<float>& model, const std::string& family) {
  Pair out;
  for (const NamedTensor& t : store(model, family)) {
    const bool experts = t.name.ends_with("gate_up_proj") || t.name.ends_with("down_proj");
    if (family == "gpt_oss" && experts) {
      add_mxfp4(out, t);
    } else if (family == "deepseek_v3" && t.dims.size() == 2 &&
               t.name.find("_proj") != t.name.npos) {
      add_fp8(out, t);
    } else {
      out.small.push_back(t);
      out.plain.push_back(t);
    }
  }
  return out;
}

Matrix<float> logits_of(Decoder<float>& model) {
  Batch batch;
  for (int t = 0; t < 22; ++t)
    batch.token.push_back(t * 7 % 40);
  batch.start = {0, 9, 22};
  Decoder<float>::Tape tape;
  model.infer({.batch = batch}, tape, {});
  Array<float> out(model.backend(), batch.tokens(), model.config().vocabulary);
  model.logits(tape.normed.view(), out.view());
  return out.to_host();
}
Matrix<float> logits_of(const fs::path& folder, const std::string& config,
                        const std::vector<NamedTensor>& tensors, Backend<float>& backend) {
  fs::create_directories(folder);
  put(folder / "config.json", config);
  write_safetensors(folder / "model.safetensors", tensors);
  const LoadedModel loaded = load_model(folder, backend);
  CHECK(loaded.checkpoint.notes == std::vector<std::string>{});  // scales are part of the model
  return logits_of(*loaded.model);
}
float apart(const Matrix<float>& a, const Matrix<float>& b) {
  float worst = 0;
  for (Index i = 0; i < a.size(); ++i)
    worst = std::max(worst, std::abs(a.data()[i] - b.data()[i]));
  return worst;
}

void check_family(const std::string& config, const std::string& family, int quantised, float least,
                  float most) {
  const auto backend = make_backend("cpu");
  Decoder<float> model(config_from_json(parse_json(config, "config.json")).config, *backend);
  model.initialise(1);
  for (Parameter<float>* p : model.parameters()) {
    for (float& v : p->mutate().flat())
      v *= p->kind() == ParameterKind::vector ? 1.0f : 3.0f;
  }
  const Pair files = quantise(model, family);
  CHECK(files.quantised == quantised);
  const Scratch s;
  const Matrix<float> small = logits_of(s / "small", config, files.small, *backend);
  const Matrix<float> plain = logits_of(s / "plain", config, files.plain, *backend);
  CHECK(small == plain);
  // rounding moves logits, and a wrong scale would move them further
  const float rounded = apart(small, logits_of(model));
  CHECK(rounded > least);
  CHECK(rounded < most);
}

}  // namespace

TEST_CASE(
    "a DeepSeek-V3 checkpoint in FP8 blocks with ragged edges gives the logits of the same numbers "
    "in float32") {
  check_family(latent, "deepseek_v3", 28, 1e-4f, 0.5f);
}

TEST_CASE(
    "a gpt-oss checkpoint with MXFP4 experts gives the logits of the same numbers in float32") {
  check_family(sinks, "gpt_oss", 4, 1e-4f, 0.5f);
}

TEST_CASE("weights stored in another way are refused with file, key and name") {
  const auto said = [](const char* config, const Json& quantisation, bool inside = false) {
    Json j = parse_json(config, "config.json");
    j["quantization_config"] = quantisation;
    if (inside)
      j = {{"model_type", "llama4"}, {"text_config", j}};
    const Outcome o = outcome([&] { config_from_json(j, "x/config.json"); });
    CHECK(o.code == Exit::input);
    return o.what;
  };
  for (const std::string method : {"gptq", "awq", "bitsandbytes", "fbgemm_fp8", "modelopt"}) {
    CHECK_THAT(said(sinks, {{"quant_method", method}, {"bits", 4}}),
               Catch::StartsWith("x/config.json, quantization_config: quant_method is '" + method +
                                 "', which this program does not read"));
  }
  CHECK_THAT(said(latent, {{"load_in_4bit", true}}),
             Catch::Contains("load_in_4bit is true, so the weights are stored by 'bitsandbytes'"));
  CHECK_THAT(said(latent, {{"bits", 4}}),
             Catch::Contains("quantization_config: quant_method is missing"));
  CHECK_THAT(said(latent, {{"quant_method", 8}}),
             Catch::Contains("quant_method is 8 and must be a text"));
  CHECK_THAT(said(latent, "fp8"),
             Catch::Contains("quantization_config is \"fp8\" and must be an object"));
  CHECK_THAT(said(latent, {{"quant_method", "fp8"}, {"weight_block_size", {64, 128}}}),
             Catch::Contains("weight_block_size is [64,128] and must be [128,128]"));
  CHECK_THAT(said(latent, {{"quant_method", "fp8"}, {"weight_block_size", nullptr}}),
             Catch::Contains("weight_block_size is null, one scale for a whole tensor"));
  CHECK_THAT(
      said(sinks, {{"quant_method", "gptq"}}, true),
      Catch::StartsWith("x/config.json, text_config, quantization_config: quant_method is 'gptq'"));
}
