// Writes a checkpoint folder of random weights and, beside it, the logits this program computes for a few tokens, for
// check_logits.py: write_model SPEC FOLDER. Built on request (target peers_write_model).
#include <iostream>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/model/families.h"

using namespace moe;

namespace {

// Weights of a size that makes routing and logits depend on everything.
void fill(Decoder<float>& model) {
  model.initialise(1);
  Rng rng(2);
  for (Parameter<float>* p : model.parameters())
    for (float& v : p->mutate().flat()) v = p->kind() == ParameterKind::vector ? v + float(0.2 * rng.normal()) : v * 4;
  for (MoeLayer<float>* m : model.moe_layers())
    for (double& v : m->router().correction_bias()) v = double(float(0.1 * rng.normal()));
}

// One row of logits for every token of one sequence, by asking for the last token of every beginning of it.
Tensor logits_of(Decoder<float>& model, const std::vector<int>& ids) {
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

void write(const std::string& spec, const std::filesystem::path& folder) {
  const ModelConfig config = model_config(spec);
  const Fit fit = fit_of(config);
  if (fit.family == "moe") throw Error(Exit::usage, spec + ": " + fit.reason);
  const auto backend = make_reference<float>();
  Decoder<float> model(config, *backend);
  fill(model);
  std::vector<int> ids;
  Rng rng(3);
  for (int t = 0; t < 48; ++t) ids.push_back(int(rng.below(config.vocabulary)));
  std::filesystem::create_directories(folder);
  write_json(folder / "config.json", config_json(model.config(), fit.family, {256, 256, -1}));
  const auto tensors = store(model, fit.family);
  write_sharded(folder, tensors);
  const NamedTensor logits("logits", logits_of(model, ids));
  write_safetensors(folder / "expected.safetensors", std::span(&logits, 1));
  write_json(folder / "ids.json", Json(ids));
  std::cout << spec << ": " << fit.family << ", " << tensors.size() << " tensors\n";
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) throw Error(Exit::usage, "write_model SPEC FOLDER");
  write(argv[1], argv[2]);
} catch (const Error& e) {
  std::cerr << e.what() << '\n';
  return int(e.code());
}
