// Checkpoint folders of random weights and, beside them, the logits this program computes for a few
// tokens: what check_logits.py opens in transformers.
#pragma once
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/family/families.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/router/router.h"

namespace moe::test {

// The presets that a published class can hold, and the switches that such classes have.
inline std::vector<std::string> written_models() {
  std::vector<std::string> out;
  for (const Preset& p : model_presets()) {
    if (fit_of(model_config(std::string(p.name))).family != "moe")
      out.emplace_back(p.name);
  }
  for (const char* spec :
       {"tiny:tied=1", "tiny:window=16", "deepseek-v3-toy:qk_norm=head,shared_width=128",
        "tiny:qk_norm=head,dense_layers=1,router={softmax:k=2,norm=0}",
        "tiny:shared_width=64,shared_gate=1,dense_layers=1",
        "tiny:shared_width=64,shared_gate=1,qkv_bias=1,dense_at=2",
        "deepseek-v3-toy:qkv_bias=1,rotary_dim=16",
        "tiny:qk_norm=full,clip_qkv=0.05,qkv_bias=1,o_bias=1",
        "tiny:qk_norm=head,qkv_bias=1,o_bias=1", "tiny:dense=1", "tiny:dense=1,window=16",
        "tiny:dense=1,qk_norm=head,head_dim=48", "tiny:dense=1,qkv_bias=1",
        "tiny:dense=1,norm_after=1,qk_norm=full,tied=1",
        "tiny:norm_after=1,qk_norm=full,router={softmax:k=3,norm=0}",
        "tiny:norm_after=1,qk_norm=full,qkv_bias=1,o_bias=1",
        // of other families
        "tiny:embedding_scale=6,residual_scale=0.5,logit_divisor=3,attention_scale=0.3,tied=1",
        "tiny:embedding_scale=6,residual_scale=0.5,logit_divisor=3,shared_width=40,qkv_bias=1,o_"
        "bias=1",
        "tiny:sinks=1,qkv_bias=1,o_bias=1,activation=swiglu_clamped,expert_bias=1,router_bias=1,"
        "window=16,full_layers=1;3,rope={yarn:factor=32,original=64,truncate=0}",
        "tiny:sinks=1,activation=swiglu_clamped,expert_bias=1,router_bias=1",
        "tiny:norm=layer_bias,router={sparsemixer:eps=0.1},balance=none,qkv_bias=1,o_bias=1,output_"
        "bias=1,window=16",
        "tiny:norm=layer_bias,router={sparsemixer},balance=none,rope={longrope:original=64,short=1;"
        "1.1;1.2;1.3;1.4;1.5;1.6;1.7;1.8;1.9;2;2.1;2.2;2.3;2.4;2.5,long=2;3;4;5;6;7;8;9;10;11;12;"
        "13;14;15;16;17,short_scale=1.1,long_scale=1.3}",
        "tiny:rope_interleaved=1,shared_width=384,dense_layers=1,router={softmax:k=3,bias=1},tied="
        "1",
        "tiny:rope_interleaved=1,shared_width=192,layers=5,dense_at=0;2;4,router={softmax:k=3}",
        "tiny:qk_norm=head_after,shared_width=192,qkv_bias=1,o_bias=1",
        "tiny:qk_norm=full,rotary_dim=16,router={sigmoid:k=3,bias=1}",
        "tiny:norm=layer,clip_qkv=0.05", "tiny:norm=layer,clip_qkv=8,router={softmax:k=3,norm=0}",
        "tiny:layers=5,rope_interleaved=1,chunk=16,no_rope_layers=2,qk_norm=length_after,stretch_"
        "floor=4,stretch_scale=0.3,router={sigmoid:k=1,norm=0},weight_on_input=1,shared_width=192,"
        "dense_at=0;3,"
        "rope={llama3:factor=8,low=1,high=4,original=32}",
        "deepseek-v3-toy:kv_heads=4,head_dim=0,q_rank=24,kv_rank=32,nope_dim=16,rope_dim=8,value_"
        "dim=12,rope_interleaved=1",
        "deepseek-v3-toy:kv_heads=4,head_dim=0,kv_rank=32,nope_dim=16,rope_dim=8,value_dim=12",
        "deepseek-v3-toy:kv_heads=4,head_dim=0,q_rank=24,kv_rank=32,nope_dim=16,rope_dim=8,value_"
        "dim=12,rope_interleaved=1,qkv_bias=1,o_bias=1,rope={yarn:factor=8,original=32},attention_"
        "scale=0.3",
        "tiny:kv_heads=4,head_dim=0,q_rank=24,kv_rank=32,nope_dim=16,rope_dim=8,value_dim=12,rope_"
        "interleaved=1,dense_layers=1,shared_width=384,router={softmax:k=3,norm=0,scale=4,groups=4,"
        "topk_groups=2,group_score=max}",
        "tiny:kv_heads=4,head_dim=0,kv_rank=32,nope_dim=16,rope_dim=8,value_dim=12,rope_"
        "interleaved=1,shared_width=192,router={softmax:k=3,norm=0}",
        // encoder-decoders
        "t5-toy:activation=geglu_tanh,tied=0,logit_divisor=1,pad_token=0,start_token=0",
        "switch-t5-toy:moe_every=1,router_bias=1,pad_token=0,start_token=0",
        "nllb-toy:pad_token=1,start_token=2,decoder_width=256,activation=gelu",
        // rules of rotary embedding that most classes share
        "tiny:rope={linear:factor=4}", "tiny:qk_norm=head,rope={yarn:factor=8,original=32}",
        "tiny:dense=1,qkv_bias=1,o_bias=1,rope={llama3:factor=4,original=64}"}) {
    out.emplace_back(spec);
  }
  return out;
}

// Weights of a size that makes routing and logits depend on everything, and alike at every width.
inline void fill_at_random(Decoder<float>& model) {
  model.initialise(1);
  Rng rng(2);
  const float gain = 4 * std::sqrt(128 / float(model.config().hidden));
  for (Parameter<float>* p : model.parameters()) {
    for (float& v : p->mutate().flat())
      v = p->kind() == ParameterKind::vector ? v + float(0.2 * rng.normal()) : v * gain;
  }
  for (MoeLayer<float>* m : model.moe_layers()) {
    for (double& v : m->router().correction_bias())
      v = double(float(0.1 * rng.normal()));
  }
}

// One row of logits for every token of one sequence, by asking for the last token of every
// beginning of it. The encoder of an encoder-decoder reads `source`.
inline Tensor logits_one_by_one(Decoder<float>& model, const std::vector<int>& ids,
                                const std::shared_ptr<const Batch>& source) {
  const Index tokens = Index(ids.size());
  const Index words = model.config().vocabulary;
  Tensor out(DType::f32, {tokens, words});
  DecoderState state;
  for (Index t = 0; t < tokens; ++t) {
    Batch batch;
    batch.token = {ids[std::size_t(t)]};
    batch.start = {0, 1};
    batch.source = t == 0 ? source : nullptr;
    Decoder<float>::Tape tape;
    Matrix<float> row;
    model.infer({.batch = batch}, tape, {}, &state, &row);
    std::ranges::copy(row.flat(), out.mutable_view<float>().row(t).begin());
  }
  return out;
}

inline void write_model(const std::string& spec, const std::filesystem::path& folder) {
  const ModelConfig config = model_config(spec);
  const Fit fit = fit_of(config);
  if (fit.family == "moe")
    throw Error(Exit::usage, spec + ": " + fit.reason);
  const auto backend = make_reference<float>();
  Decoder<float> model(config, *backend);
  fill_at_random(model);
  std::vector<int> ids;
  Rng rng(3);
  for (int t = 0; t < 48; ++t)
    ids.push_back(int(rng.below(config.vocabulary)));
  std::filesystem::create_directories(folder);
  write_json(folder / "config.json", config_json(model.config(), fit.family, {256, 256, -1}));
  const auto tensors = store(model, fit.family);
  write_sharded(folder, tensors);
  std::shared_ptr<const Batch> source;
  if (config.encoder_layers > 0) {
    auto rows = std::make_shared<Batch>();
    for (int t = 0; t < 40; ++t)
      rows->token.push_back(int(3 + rng.below(config.vocabulary - 3)));
    rows->start = {0, rows->tokens()};
    source = rows;
    write_json(folder / "source.json", Json(rows->token));
  }
  const NamedTensor logits("logits", logits_one_by_one(model, ids, source));
  write_safetensors(folder / "expected.safetensors", std::span(&logits, 1));
  write_json(folder / "ids.json", Json(ids));
  write_json(folder / "written.json", {{"spec", spec}, {"family", fit.family}});
}

}  // namespace moe::test
