// What a plan says against what is there: our decoders, published files, hand-worked sizes; and
// what it refuses.
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "lib/core/error.h"
#include "lib/family/families.h"
#include "lib/model/decoder.h"
#include "lib/plan/cost.h"
#include "lib/plan/published.h"
#include "tests/skip.h"

using namespace moe;
using namespace moe::plan;
namespace fs = std::filesystem;

namespace {

// Parameters of the built decoder; correction biases are state there and parameters of the
// published file.
Count built(const ModelConfig& c) {
  const auto backend = make_backend("reference");
  Decoder<float> model(c, *backend);
  Count n = 0;
  for (const auto* p : model.parameters())
    n += p->size();
  return n;
}
Count corrections(const Architecture& a) {
  Count n = 0;
  for (const LayerShape& l : a.layers) {
    if (l.feed && l.feed->correction_bias)
      n += l.feed->experts;
  }
  return n;
}

std::string refusal(const Json& j) {
  try {
    describe(j, "config.json", "x");
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

Json mixtral() {
  return parse_json(find_published("Mixtral-8x7B")->config, "mixtral");
}

}  // namespace

TEST_CASE("a config.json that the decoder can run and the plan of it agree") {
  const char* sizes =
      R"("vocab_size":96,"hidden_size":32,"num_hidden_layers":3,)"
      R"("num_attention_heads":4,"num_key_value_heads":2,"max_position_embeddings":64)";
  const std::string configs[] = {
      R"({"model_type":"mixtral","intermediate_size":24,"num_local_experts":4,)"
      R"("num_experts_per_tok":2,)",
      R"({"model_type":"olmoe","intermediate_size":24,"num_experts":4,"num_experts_per_tok":2,)",
      R"({"model_type":"qwen2_moe","qkv_bias":false,"intermediate_size":40,)"
      R"("moe_intermediate_size":24,"shared_expert_intermediate_size":16,"num_experts":4,)"
      R"("num_experts_per_tok":2,)",
      R"({"model_type":"qwen3_moe","head_dim":16,"intermediate_size":40,"mlp_only_layers":[0],)"
      R"("moe_intermediate_size":24,"num_experts":4,"num_experts_per_tok":2,)"
      R"("tie_word_embeddings":true,)",
      R"({"model_type":"glm4_moe","partial_rotary_factor":1.0,"head_dim":8,)"
      R"("intermediate_size":40,"moe_intermediate_size":24,"n_routed_experts":4,)"
      R"("n_shared_experts":2,"num_experts_per_tok":2,"first_k_dense_replace":1,)",
      R"({"model_type":"llama","intermediate_size":40,)",
      R"({"model_type":"qwen3","head_dim":8,)"
      R"("intermediate_size":40,)"};
  for (const std::string& text : configs) {
    CAPTURE(text);
    const Json j = parse_json(text + sizes + "}", "config.json");
    const Published ours = config_from_json(j);
    const Architecture d = describe(j, "config.json", "x");
    CHECK(parameters(d).total - corrections(d) == built(ours.config));
    // and once more from the file that we write
    const Architecture again = describe(config_json(ours.config, ours.family), "config.json", "x");
    CHECK(parameters(again).total == parameters(d).total);
  }
}

TEST_CASE("a plan counts every number of a checkpoint that we write") {
  std::set<std::string> families;
  for (const std::string spec :
       {"mixtral-toy", "olmoe-toy", "deepseek-v3-toy:layers=2", "deepseek-v3-toy:qk_norm=head",
        "nano:shared_width=64,shared_gate=1,qkv_bias=1", "nano:qk_norm=head", "nano:dense=1",
        "nano:dense=1,qk_norm=head", "nano:norm=layer,clip_qkv=8",
        "nano:router={sigmoid:k=2},kv_rank=24,q_rank=20,nope_dim=8,rope_dim=8,value_dim=8,"
        "kv_heads=4,rope_interleaved=1,norm_eps=1e-6,shared_width=64",
        "nano:embedding_scale=2", "jacobs-toy"}) {
    const ModelConfig c = model_config(spec);
    const std::string family = fit_of(c).family;
    INFO(spec << " as " << family);
    const auto backend = make_backend("reference");
    Decoder<float> model(c, *backend);
    Count numbers = 0;
    for (const NamedTensor& t : store(model, family)) {
      Count n = 1;
      for (const Index d : t.dims)
        n *= d;
      numbers += n;
    }
    const Architecture a = describe(config_json(c, family), "config.json", "x");
    CHECK(parameters(a).total - (family == "moe" ? corrections(a) : 0) == numbers);
    families.insert(family);
  }
  CHECK(families.size() >= 8);
}

TEST_CASE("what changes no size does not keep a plan from reading a config.json") {
  const Json plain = mixtral();
  const Count total = parameters(describe(plain, "config.json", "x")).total;
  const std::pair<const char*, Json> settings[] = {
      {"hidden_act", "gelu"},
      {"quantization_config", {{"quant_method", "awq"}}},
      {"rope_scaling", {{"rope_type", "spiral"}}}};
  for (const auto& [key, value] : settings) {
    INFO(key);
    Json j = plain;
    j[key] = value;
    CHECK_THROWS_AS(config_from_json(j), Error);
    CHECK(parameters(describe(j, "config.json", "x")).total == total);
  }
  Json biased = plain;
  biased["mlp_bias"] = true;
  CHECK(refusal(biased) == "config.json: mlp_bias is true and this program has no such switch");
  Json windowed = parse_json(find_published("Qwen3-30B-A3B")->config, "qwen");
  windowed["use_sliding_window"] = true;
  windowed["sliding_window"] = 100;
  CHECK(cache(describe(windowed, "config.json", "x"), 1000).at_context == 48.0 * 2 * 4 * 128 * 100);
}

TEST_CASE("a plan counts every number of the golden checkpoints") {
  const fs::path golden = test::shared("golden/hf");
  if (!fs::exists(golden))
    return test::skip("no " + golden.string());
  int seen = 0;
  for (const auto& entry : fs::directory_iterator(golden)) {
    if (!fs::exists(entry.path() / "config.json"))
      continue;
    CAPTURE(entry.path().string());
    Count numbers = 0;
    Count bytes = 0;
    const Tensors tensors(entry.path());
    for (const TensorInfo& t : tensors.list()) {
      Count n = 1;
      for (const Index d : t.dims)
        n *= d;
      numbers += n;
      bytes += t.bytes;
    }
    const Architecture d = describe(read_json(entry.path() / "config.json"),
                                    (entry.path() / "config.json").string(), "golden");
    CHECK(parameters(d).total == numbers);
    if (entry.path().filename() == "mixtral")
      CHECK(weight_bytes(d, Format::f32) == double(bytes));
    ++seen;
  }
  CHECK(seen >= 11);
}

TEST_CASE("formats, caches and shares of models that were worked out by hand") {
  const Architecture v3 = describe(*find_published("DeepSeek-V3"));
  const Architecture oss = describe(*find_published("gpt-oss-120b"));
  const Architecture mix = describe(*find_published("Mixtral-8x7B"));
  CHECK(cache(v3, 1).per_token == 61 * (512 + 64));
  CHECK(cache(mix, 4096).at_context == 32.0 * 2 * 8 * 128 * 4096);
  // every other layer looks back 128
  CHECK(cache(oss, 4096).at_context == 2.0 * 8 * 64 * (18 * 128 + 18 * 4096));
  CHECK(weight_bytes(mix, Format::bf16) == 2.0 * 46'702'792'704);
  // A matrix of 576x7168 has 5x56 blocks, the ragged one included.
  CHECK(weight_bytes(WeightPiece{ModelPart::attention, 576, 7168}, Format::fp8) ==
        576.0 * 7168 + 4 * 5 * 56);
  CHECK(weight_bytes(WeightPiece{ModelPart::experts, 2, 33}, Format::mxfp4) == 2 * 2 * 17);
  CHECK(weight_bytes(WeightPiece{ModelPart::experts, 5, 33}, Format::int8) == 5 * 33 + 5 * 4);
  CHECK(weight_bytes(WeightPiece{ModelPart::router, 8, 64}, Format::fp8) == 2 * 8 * 64);
  // as its model card says
  CHECK(weight_bytes(oss, Format::mxfp4) / (1024.0 * 1024 * 1024) == Approx(60.8).margin(0.05));
  CHECK(weight_bytes(describe(*find_published("gpt-oss-20b")), Format::mxfp4) /
            (1024.0 * 1024 * 1024) ==
        Approx(12.8).margin(0.05));

  const Share whole = share(mix, {}, Format::bf16, 1);
  const Share spread = share(mix, {.experts = 8, .tensor = 2, .zero = 4}, Format::bf16, 1);
  CHECK(whole.weights == 2.0 * 46'702'792'704);
  CHECK(whole.weights + whole.gradients + whole.optimizer == 16.0 * 46'702'792'704);
  // norms and routers are not cut
  CHECK(spread.weights == Approx(whole.weights / 64).epsilon(1e-3));
  CHECK(spread.weights > whole.weights / 64);
  CHECK(spread.cache == whole.cache / 2);
  const double experts = 2.0 * double(parameters(mix).part[std::size_t(ModelPart::experts)]);
  CHECK(share(mix, {.experts = 8}, Format::bf16, 1).serving ==
        Approx(whole.weights - experts + experts / 8).epsilon(1e-12));

  // 2 choices of 8 experts on 4 devices: both elsewhere or not, each with 3/4; one copy: 3 devices,
  // each with 1 - C(6,2)/C(8,2)
  CHECK(all_to_all(mix, 4, 2).each == Approx(2 * 0.75 * 4096 * 2));
  CHECK(all_to_all(mix, 4, 2).once == Approx(3 * (1 - 15.0 / 28) * 4096 * 2));
  CHECK(all_to_all(mix, 1, 2).each == 0);
  CHECK(all_to_all(describe(*find_published("Llama-2-70B")), 8, 2).each == 0);
}

TEST_CASE("a plan refuses what it cannot know") {
  Json j = mixtral();
  j["model_type"] = "mixtral_next";
  CHECK(refusal(j) == "config.json: model_type 'mixtral_next' is none whose sizes are known");
  j = mixtral();
  j.erase("num_local_experts");
  CHECK(refusal(j) == "config.json: num_local_experts is missing");
  j = mixtral();
  j["num_experts_per_tok"] = 9;
  CHECK(refusal(j) == "config.json: num_experts_per_tok is 9 and num_local_experts is 8");
  j = mixtral();
  j["num_hidden_layers"] = 2'000'000;
  CHECK(refusal(j).find("num_hidden_layers is 2000000") != std::string::npos);
  for (const Json& bad :
       {Json(-1), Json(1e30), Json(0.5), Json("64"), Json(std::int64_t(1) << 60)}) {
    j = mixtral();
    j["hidden_size"] = bad;
    CHECK(refusal(j).find("hidden_size is ") != std::string::npos);
  }
  j = mixtral();
  for (const char* key : {"hidden_size", "intermediate_size", "vocab_size"})
    j[key] = 100'000'000;
  j["num_local_experts"] = 1'000'000;
  // more than 62 bits of parameters
  CHECK_THROWS_AS(parameters(describe(j, "config.json", "x")), Error);
  CHECK(refusal(Json::array()) == "config.json: this is not an object");
  const Architecture mix = describe(*find_published("Mixtral-8x7B"));
  const Architecture dense = describe(*find_published("T5-Base"));
  CHECK_THROWS_AS(check({.experts = 3}, mix), Error);
  CHECK_THROWS_AS(check({.experts = 16}, mix), Error);
  CHECK_THROWS_AS(check({.tensor = 5}, mix), Error);
  CHECK_THROWS_AS(check({.experts = 2}, dense), Error);
  CHECK_NOTHROW(check({.experts = 8, .tensor = 8, .zero = 3}, mix));
}
