// Which class holds which model; config.json and tensors written and read back; published
// checkpoints of the class authors against the logits those classes gave.
#include <unistd.h>
#include <catch2/catch.hpp>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/family/families.h"
#include "lib/model/decoder.h"
#include "lib/router/router.h"
#include "lib/run/golden_models.h"
#include "tests/model/golden_folder.h"
#include "tests/skip.h"

using namespace moe;

namespace {

Fit fit(const std::string& spec) {
  return fit_of(model_config(spec));
}

Batch sequences(Index count, Index length, int vocabulary) {
  Batch b;
  for (Index q = 0; q < count; ++q) {
    for (Index t = 0; t < length; ++t)
      b.token.push_back(int((q * 31 + t * 7) % vocabulary));
    b.start.push_back(b.tokens());
  }
  return b;
}
Matrix<float> last_logits(Decoder<float>& model, Batch batch) {
  if (model.config().encoder_layers > 0)
    batch.source = std::make_shared<const Batch>(batch);
  Decoder<float>::Tape tape;
  Matrix<float> out;
  model.infer({.batch = batch}, tape, {}, nullptr, &out);
  return out;
}

}  // namespace

TEST_CASE("each model goes to the class that computes it, or to none with the reason") {
  CHECK(fit("mixtral-toy").family == "mixtral");
  CHECK(fit("tiny:window=64").family == "mixtral");
  CHECK(fit("tiny:router={gshard:second=random}").family == "mixtral");
  CHECK(fit("olmoe-toy").family == "olmoe");
  CHECK(fit("deepseek-v3-toy").family == "glm4_moe");
  CHECK(fit("tiny:qk_norm=head,dense_layers=1,router={softmax:k=2,norm=0}").family == "qwen3_moe");
  CHECK(fit("tiny:shared_width=64,shared_gate=1").family == "qwen2_moe");
  CHECK(fit("tiny:dense=1").family == "llama");
  CHECK(fit("tiny:dense=1,window=32").family == "mistral");
  CHECK(fit("tiny:dense=1,qk_norm=head").family == "qwen3");
  CHECK(fit("tiny:dense=1,qkv_bias=1").family == "qwen2");
  CHECK(fit("tiny:dense=1,norm_after=1,qk_norm=full").family == "olmo2");
  CHECK(fit("tiny:norm_after=1,qk_norm=full").family == "flex_olmo");
  CHECK(fit("tiny:norm_after=1").reason ==
        "no published class computes this; mixtral comes nearest, with norm_after=0 instead of 1");
  CHECK(fit("tiny:qk_norm=full,sinks=1").reason.find("olmoe comes nearest") != std::string::npos);
  CHECK(fit("switch-toy").reason ==
        "no published class computes this; qwen3_moe comes nearest, with qk_norm=head instead of "
        "none, activation=swiglu instead of relu");
  CHECK(
      fit("deepseekmoe-toy").reason ==
      "no published class computes this; qwen2_moe comes nearest, with shared_gate=1 instead of 0");
  CHECK(fit("tiny:router={softmax:k=2,norm=0}").reason ==
        "no published class computes this; mixtral comes nearest, with router={softmax:k=2,norm=1} "
        "instead of {softmax:k=2,norm=0}");
  CHECK(fit("tiny:dense_layers=1").family == "moe");
  CHECK(fit("tiny:shared_width=64,shared_gate=1,qkv_bias=1,dense_at=2").family == "qwen2_moe");
  CHECK(fit("deepseek-v3-toy:qkv_bias=1,rotary_dim=16").family == "glm4_moe");
  CHECK(fit("tiny:qk_norm=full,clip_qkv=2,qkv_bias=1,o_bias=1").family == "olmoe");
  CHECK(fit("tiny:sinks=1").reason ==
        "no published class computes this; mixtral comes nearest, with sinks=0 instead of 1");
  CHECK(fit("tiny:norm=layer").family == "moe");
  CHECK(fit("tiny:router={softmax:k=2,temperature=2}").reason ==
        "no published class computes this; mixtral comes nearest, with router={softmax:k=2,norm=1} "
        "instead of {softmax:k=2,norm=1,temperature=2}");
  CHECK(fit("tiny:router={random:k=2},balance=none").reason ==
        "no published class computes this; mixtral comes nearest, with router={softmax:k=2,norm=1} "
        "instead of {random}");
  CHECK(fit("deepseek-v3-toy:shared_width=100").family == "moe");
  const std::string latent =
      "kv_heads=4,head_dim=0,kv_rank=32,nope_dim=16,rope_dim=8,value_dim=12,rope_interleaved=1";
  CHECK(fit("deepseek-v3-toy:" + latent).family == "deepseek_v3");
  // the class has shared experts always
  CHECK(fit("deepseek-v3-toy:" + latent + ",shared_width=0").family == "moe");
  CHECK(fit("deepseek-v3-toy:" + latent + ",rope={yarn:factor=8,original=32},attention_scale=0.3")
            .family == "deepseek_v3");
  // only a stretched context has a scale
  CHECK(fit("deepseek-v3-toy:" + latent + ",attention_scale=0.3").family == "moe");
  CHECK(fit("deepseekmoe-toy:" + latent).family == "deepseek_v2");
  CHECK(fit("tiny:embedding_scale=2").family == "granitemoe");
  CHECK(fit("tiny:embedding_scale=2,head_dim=64").family == "moe");
  CHECK(fit("tiny:norm=layer,clip_qkv=8").family == "dbrx");
  CHECK(fit("tiny:rope={yarn:factor=4,original=64}").family == "mixtral");
  CHECK(fit("tiny:rotary_dim=16").family == "moe");
  CHECK(fit("tiny:qk_norm=head,rope={fourier:pairs=5}").reason ==
        "no published class computes this; qwen3_moe comes nearest, with rope=default instead of "
        "{fourier:pairs=5}");
  CHECK(fit("tiny:mixer={short_conv*2;attention}").reason ==
        "no published class computes this; mixtral comes nearest, with mixer={attention} instead "
        "of {short_conv:kernel=3,bias=0*2;attention}");
}

TEST_CASE("a written configuration is read back exactly, and a changed one is refused") {
  std::vector<std::string> specs;
  for (const Preset& p : model_presets()) {
    specs.emplace_back(p.name);
    const ModelConfig c = model_config(std::string(p.name));
    const bool plain = c.kv_rank > 0 || c.feed.find("moa") != c.feed.npos;  // no such norm
    specs.push_back(concat(p.name, ":norm_eps=3e-6,rope_theta=5e5", plain ? "" : ",qk_norm=head"));
  }
  for (const std::string& spec : specs) {
    INFO(spec);
    const ModelConfig c = model_config(spec);
    const Json written = config_json(c, fit_of(c).family, {256, 257, -1});
    const Published back = config_from_json(parse_json(json_text(written), "config.json"));
    CHECK(to_spec(back.config) == to_spec(c));
    CHECK(back.family == fit_of(c).family);
    CHECK(back.tokenizer.eos == 257);
    CHECK(back.tokenizer.pad == -1);
  }
  Json j = config_json(model_config("tiny"), "mixtral");
  j["hidden_size"] = 96;
  CHECK_THROWS_WITH(config_from_json(j),
                    "config.json: hidden_size is 96 and moe_training says 128");
}

TEST_CASE("without our own key a configuration is read as its class reads it") {
  for (const std::string spec :
       {"mixtral-toy", "tiny:window=64,tied=1", "olmoe-toy", "deepseek-v3-toy",
        "deepseek-v3-toy:qk_norm=head,shared_width=128",
        "tiny:shared_width=64,shared_gate=1,dense_layers=1",
        "tiny:qk_norm=head,dense_layers=1,router={softmax:k=2,norm=0}",
        "tiny:shared_width=64,shared_gate=1,qkv_bias=1", "deepseek-v3-toy:qkv_bias=1,rotary_dim=16",
        "tiny:qk_norm=full,clip_qkv=2,qkv_bias=1,o_bias=1", "tiny:dense=1",
        "tiny:dense=1,window=32", "tiny:dense=1,qk_norm=head"}) {
    INFO(spec);
    ModelConfig c = model_config(spec);
    Json j = config_json(c, fit_of(c).family);
    j.erase("moe_training");
    const Published back = config_from_json(j);
    c.preset = "custom";
    c.moe.balance.clear();  // what a class does not know
    // those have no dense layers
    c.dense_width =
        j["model_type"] == "mixtral" || j["model_type"] == "olmoe" ? 0 : c.dense_baseline_width();
    if (c.dense)
      c.moe = back.config.moe;
    CHECK(to_spec(back.config) == to_spec(c));
  }
}

TEST_CASE("what a class does and this program does not is refused in a sentence") {
  const auto changed = [](const char* family_spec, const char* key, const Json& value) {
    const ModelConfig c = model_config(family_spec);
    Json j = config_json(c, fit_of(c).family);
    j.erase("moe_training");
    if (value.is_discarded())
      j.erase(key);
    else
      j[key] = value;
    return j;
  };
  const Json gone(Json::value_t::discarded);
  CHECK_THROWS_WITH(config_from_json(changed("tiny", "model_type", "mixtral_next")),
                    "config.json: model_type 'mixtral_next' is none that this program reads");
  CHECK_THROWS_WITH(config_from_json(changed("tiny", "num_experts_per_tok", gone)),
                    "config.json: num_experts_per_tok is missing");
  CHECK_THROWS_WITH(config_from_json(changed("tiny", "num_experts_per_tok", 9)),
                    "config.json: num_experts_per_tok is 9 and num_local_experts is 8");
  CHECK_THROWS_WITH(config_from_json(changed("tiny", "hidden_size", 1.5)),
                    "config.json: hidden_size is 1.5 and must be a whole number from 0 to 1e9");
  CHECK_THROWS_WITH(config_from_json(changed("tiny", "num_attention_heads", 3)),
                    Catch::Contains("num_attention_heads is 3 and num_key_value_heads is 2"));
  CHECK_THROWS_WITH(config_from_json(changed("tiny", "rope_scaling", {{"rope_type", "spiral"}})),
                    Catch::Contains("rope_scaling asks for the rope type 'spiral'"));
  CHECK_THROWS_WITH(config_from_json(changed("tiny", "rope_scaling", {{"rope_type", "yarn"}})),
                    "config.json, rope_scaling: factor is missing");
  CHECK_THROWS_WITH(
      config_from_json(changed("tiny", "quantization_config", {{"quant_method", "awq"}})),
      Catch::Contains("quant_method is 'awq'"));
  CHECK_THROWS_WITH(config_from_json(changed("deepseek-v3-toy", "scoring_func", "cosine")),
                    "config.json: scoring_func is 'cosine' and must be sigmoid");
  CHECK(config_from_json(changed("tiny:shared_width=64,shared_gate=1", "qkv_bias", gone))
            .config.qkv_bias);
  CHECK(config_from_json(changed("deepseek-v3-toy", "partial_rotary_factor", gone))
            .config.rotary_dim == 16);
  CHECK_THROWS_WITH(config_from_json(changed("switch-toy", "moe_training", gone)),
                    "config.json: moe_training is missing, which says what the model is");
  CHECK_THROWS_WITH(config_from_json(changed("tiny", "moe_training", {{"spec", "tyni"}})),
                    "config.json: no model named 'tyni'");
}

TEST_CASE(
    "tensors written under a family's names and loaded into another model give the same logits") {
  const auto backend = make_reference<float>();
  std::vector<std::string> specs{
      "nano:shared_width=32,shared_gate=1",
      "nano:expert_bias=1,router_bias=1,activation=gelu,shared_width=16",
      "nano:dense=1,tied=1",
      "nano:qk_norm=head,dense_layers=1",
      "nano:sinks=1,qkv_bias=1,o_bias=1,norm=layer_bias,output_bias=1",
      "nano:rope={fourier:pairs=5},qk_norm=head",
      "nano:mixer={short_conv;attention},rope={fourier:pairs=5}",
      "nano:mixer={short_conv:kernel=4,bias=1},dense_layers=1",
      "nano:kv_heads=4,q_rank=8,kv_rank=8,nope_dim=8,rope_dim=4,value_dim=8,qkv_bias=1"};
  for (const Preset& p : model_presets())
    specs.push_back(concat(p.name, ":hidden=32,heads=4,width=8,vocabulary=40"));
  for (const std::string& spec : specs) {
    INFO(spec);
    const ModelConfig c = model_config(spec);
    const std::string family = fit_of(c).family;
    Decoder<float> a(c, *backend);
    Decoder<float> b(c, *backend);
    a.initialise(1);
    for (auto* m : a.moe_layers()) {
      for (std::size_t e = 0; e < m->router().correction_bias().size(); ++e)
        m->router().correction_bias()[e] = 0.25 * double(e % 3);
    }
    std::map<std::string, Tensor> files;
    Index numbers = 0;
    Index parameters = 0;
    for (const NamedTensor& t : store(a, family)) {
      CHECK(files.emplace(t.name, t.make()).second);
      if (!t.name.ends_with("correction_bias") && !t.name.ends_with("tid2eid"))
        numbers += files[t.name].size();
    }
    for (auto* p : a.parameters())
      parameters += p->size();
    CHECK(numbers == parameters);
    load(b, family, [&](const std::string& name, const Dims& dims) {
      CHECK(files.at(name).dims() == dims);
      return files.at(name);
    });
    CHECK(last_logits(a, sequences(2, 9, 32)) == last_logits(b, sequences(2, 9, 32)));
    for (std::size_t i = 0; i < a.parameters().size(); ++i)
      CHECK(a.parameters()[i]->to_host() == b.parameters()[i]->to_host());
  }
}

TEST_CASE("each name means the matrix that its class means by it") {
  const auto backend = make_reference<float>();
  const auto agree = [&](const std::string& spec, const std::string& name, const std::string& ours,
                         Index block, Index blocks) {
    INFO(spec << ": " << name);
    Decoder<float> model(model_config(spec), *backend);
    model.initialise(1);
    bool found = false;
    for (const NamedTensor& t : store(model, fit_of(model.config()).family)) {
      if (t.name != name)
        continue;
      found = true;
      const Tensor made = t.make();
      for (auto* p : model.parameters()) {
        if (p->name() == ours) {
          CHECK(std::ranges::equal(made.view<float>().flat(),
                                   p->value().block(block, p->value().rows / blocks).flat()));
        }
      }
    }
    CHECK(found);
  };
  const std::string mixtral = "model.layers.1.block_sparse_moe.experts.3.";
  const std::string qwen = "model.layers.1.mlp.";
  agree("nano", mixtral + "w1.weight", "layers.1.moe.experts.gate", 3, 8);
  agree("nano", mixtral + "w3.weight", "layers.1.moe.experts.up", 3, 8);
  agree("nano", mixtral + "w2.weight", "layers.1.moe.experts.down", 3, 8);
  agree("nano", "model.layers.1.block_sparse_moe.gate.weight", "layers.1.moe.router.weight", 0, 1);
  agree("nano:qk_norm=head", qwen + "experts.7.gate_proj.weight", "layers.1.moe.experts.gate", 7,
        8);
  agree("nano:shared_width=64,shared_gate=1", qwen + "shared_expert.up_proj.weight",
        "layers.1.moe.shared.up", 0, 1);
  agree("nano:shared_width=64,router={sigmoid:k=2}", qwen + "shared_experts.up_proj.weight",
        "layers.1.moe.shared.up", 0, 1);
  agree("nano:dense=1", qwen + "gate_proj.weight", "layers.1.dense.gate", 0, 1);
  agree("nano", "model.layers.0.self_attn.o_proj.weight", "layers.0.attention.o", 0, 1);
  agree("nano", "model.layers.0.post_attention_layernorm.weight", "layers.0.feed_norm", 0, 1);
}

TEST_CASE(
    "published checkpoints give the logits of their classes, and malformed ones the right "
    "reaction") {
  test::check_golden_models("golden/hf", 11, 17);
}

TEST_CASE(
    "the language parts of published multimodal models give what their classes gave, from the rows "
    "that these made") {
  test::check_golden_models("golden/modal/hf", 7, 0);
}

TEST_CASE("families without recorded outputs agree with the classes of transformers") {
  const char* python = std::getenv("MOE_PYTHON");
  if (!python)
    return test::skip("MOE_PYTHON names no python with torch and transformers");
  const auto folder = std::filesystem::temp_directory_path() / concat("moe-families-", ::getpid());
  // the second: those that no class is there for
  for (const char* script : {"make_family.py", "remake_family.py"}) {
    const std::string command =
        concat("'", python, "' '", MOE_SOURCE_DIR, "/tests/peers/", script, "' '", folder.string(),
               "' > '", folder.string(), ".log' 2>&1");
    INFO(command << "; see " << folder.string() << ".log");
    REQUIRE(std::system(command.c_str()) == 0);
  }
  const auto backend = make_backend("cpu");
  int compared = 0;
  for (const GoldenModelResult& r : verify_golden_models(folder, *backend)) {
    INFO(r.name << ": " << r.why);
    CHECK(r.passed);
    CHECK(r.logits > 0);
    ++compared;
  }
  CHECK(compared >= 26);
  std::filesystem::remove_all(folder);
  std::filesystem::remove(folder.string() + ".log");
}
