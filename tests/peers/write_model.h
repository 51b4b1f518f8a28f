// Checkpoint folders of random weights and, beside them, the logits this program computes for a few tokens: what check_logits.py
// opens in transformers.
#pragma once
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/model/families.h"

namespace moe::test {

// The presets that a published class can hold, and the switches that such classes have.
inline std::vector<std::string> written_models() {
  std::vector<std::string> out;
  for (const Preset& p : model_presets())
    if (fit_of(model_config(std::string(p.name))).family != "moe") out.emplace_back(p.name);
  for (const char* spec : {"tiny:tied=1", "tiny:window=16", "deepseek-v3-toy:qk_norm=head,shared_width=128", "tiny:qk_norm=head,dense_layers=1,router={softmax:k=2,norm=0}",
                           "tiny:shared_width=64,shared_gate=1,dense_layers=1", "tiny:shared_width=64,shared_gate=1,qkv_bias=1,dense_at=2", "deepseek-v3-toy:qkv_bias=1,rotary_dim=16",
                           "tiny:qk_norm=full,clip_qkv=0.05,qkv_bias=1,o_bias=1", "tiny:qk_norm=head,qkv_bias=1,o_bias=1", "tiny:dense=1", "tiny:dense=1,window=16", "tiny:dense=1,qk_norm=head,head_dim=48"})
    out.emplace_back(spec);
  return out;
}

// Weights of a size that makes routing and logits depend on everything, and alike at every width.
inline void fill_at_random(Decoder<float>& model) {
  model.initialise(1);
  Rng rng(2);
  const float gain = 4 * std::sqrt(128 / float(model.config().hidden));
  for (Parameter<float>* p : model.parameters())
    for (float& v : p->mutate().flat()) v = p->kind() == ParameterKind::vector ? v + float(0.2 * rng.normal()) : v * gain;
  for (MoeLayer<float>* m : model.moe_layers())
    for (double& v : m->router().correction_bias()) v = double(float(0.1 * rng.normal()));
}

// One row of logits for every token of one sequence, by asking for the last token of every beginning of it.
inline Tensor logits_one_by_one(Decoder<float>& model, const std::vector<int>& ids) {
  const Index tokens = Index(ids.size()), words = model.config().vocabulary;
  Tensor out(DType::f32, {tokens, words});
  KeyValues<float> state;
  for (Index t = 0; t < tokens; ++t) {
    Batch batch;
    batch.token = {ids[std::size_t(t)]}, batch.start = {0, 1};
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
  if (fit.family == "moe") throw Error(Exit::usage, spec + ": " + fit.reason);
  const auto backend = make_reference<float>();
  Decoder<float> model(config, *backend);
  fill_at_random(model);
  std::vector<int> ids;
  Rng rng(3);
  for (int t = 0; t < 48; ++t) ids.push_back(int(rng.below(config.vocabulary)));
  std::filesystem::create_directories(folder);
  write_json(folder / "config.json", config_json(model.config(), fit.family, {256, 256, -1}));
  const auto tensors = store(model, fit.family);
  write_sharded(folder, tensors);
  const NamedTensor logits("logits", logits_one_by_one(model, ids));
  write_safetensors(folder / "expected.safetensors", std::span(&logits, 1));
  write_json(folder / "ids.json", Json(ids));
  write_json(folder / "written.json", {{"spec", spec}, {"family", fit.family}});
}

}  // namespace moe::test
