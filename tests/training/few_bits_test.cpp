// Training on a base whose experts are in few bits: gradients are those of the same numbers in
// memory, checkpoints keep the experts bit by bit, a stopped run goes on with the same bytes, and
// the experts are never held in f32.
#include <catch2/catch.hpp>

#include <malloc.h>

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lib/backend/difference.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/core/spec.h"
#include "lib/family/config_like.h"
#include "lib/family/quantised_config.h"
#include "lib/run/few_bits_experts.h"
#include "lib/run/run_tokenizer.h"
#include "lib/run/start_run.h"
#include "lib/run/step_memory.h"
#include "tests/files/scratch.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

constexpr int words = 64;
const std::vector<std::string> formats{"int8", "int8:block=32", "int4", "fp8", "mxfp4"};

using Fields = std::vector<std::pair<std::string, std::string>>;

ModelConfig small(const Fields& other = {}) {
  Spec spec(
      "custom:hidden=64,layers=2,heads=2,kv_heads=1,width=32,experts=4,context=12,shared_width=24,"
      "shared_gate=1,router={softmax:k=2,bias=1},balance={switch:coef=0.01;bias}");
  spec.set("vocabulary", concat(words));
  for (const auto& [field, value] : other)
    spec.set(field, value);
  return model_config(spec.given_text());
}

RunOptions options_of(const std::string& folder) {
  RunOptions o;
  o.data = {"clusters:vocabulary=64,clusters=4,valid=200"};
  o.folder = folder;
  o.train.steps = 4;
  o.train.sequences = 3;
  o.train.accumulate = 2;
  o.train.lr = 5e-3;
  o.train.seed = 7;
  o.save_every = 2;
  o.keep = 9;
  o.eval_every = 0;
  o.eval_tokens = 96;
  o.log_every = 1;
  return o;
}

RunContext on(Backend<float>& backend) {
  return {[&backend](const std::string&) -> Backend<float>& { return backend; },
          {.version = "0.0.0 (test)", .command = "test", .created_utc = "2020-01-01T00:00:00Z"}};
}

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  REQUIRE(!text.str().empty());
  return text.str();
}

// The model of a run with its experts in few bits, as moe edit --quantise writes it.
void write_base(const fs::path& folder, const LoadedModel& from, Decoder<float>& model,
                const std::string& format) {
  const std::string family = fit_like(model.config(), from.family).family;
  std::map<std::string, FewBitsFormat> of;
  for (const ExpertTensor& t : expert_tensors(model, family))
    of[t.tensor] = few_bits_format(format);
  std::vector<std::string> matrices;
  for (const NamedTensor& t : store(model, family)) {
    if (t.dims.size() == 2)
      matrices.push_back(t.name);
  }
  const Json config = quantization_config(of, matrices);
  const Json made = Json::object();
  const TokenizerFiles files{
      .json = "",
      .config_json = "",
      .kept = std::make_shared<const KeptFiles>(kept_files(from.checkpoint.path))};
  save_model(folder, model,
             {.state = &*from.state,
              .tokenizer = files,
              .type = [](const std::string&) { return DType::f32; },
              .made = made,
              .few_bits = of,
              .quantization_config = &config});
}

// A run of one step, and bases made from it: FOLDER/int8, ...
void write_bases(const test::Scratch& folder, Backend<float>& backend,
                 const std::vector<std::string>& which, const Fields& other = {}) {
  RunOptions o = options_of(folder / "run");
  o.train.steps = 1;
  TrainingObserver nobody;
  {
    const auto run = start_run(small(other), o, on(backend), nobody);
    train(*run, nobody);
  }
  const LoadedModel loaded = load_model(folder / "run", backend);
  for (const std::string& format : which)
    write_base(folder / format, loaded, *loaded.model, format);
}

Batch batch_of() {
  Batch b;
  b.start = {0, 11, 20};
  for (int t = 0; t < 20; ++t) {
    b.token.push_back(t * 7 % words);
    b.target.push_back((t * 5 + 3) % words);
  }
  return b;
}

struct Gradients {
  double loss = 0;
  std::map<std::string, Matrix<float>> of;
};
Gradients gradients(Decoder<float>& model, Backend<float>& b) {
  model.want_grads();
  model.clear_grads();
  Rng rng(5);
  const Batch batch = batch_of();
  const Pass pass{.batch = batch, .training = true, .rng = &rng};
  Decoder<float>::Tape tape;
  model.forward(pass, tape);
  Gradients out{.loss = tape.loss, .of = {}};
  model.backward(pass, tape);
  for (auto* p : model.parameters()) {
    if (p->grad().empty())
      continue;
    Matrix<float> g(p->value().rows, p->value().cols);
    b.to_host(p->grad().data, g.data(), std::size_t(g.size()) * sizeof(float));
    out.of[p->name()] = std::move(g);
  }
  return out;
}

bool is_expert(const std::string& parameter) {
  return parameter.find(".moe.experts.") != parameter.npos;
}

double loss_of(Decoder<float>& model) {
  Rng rng(5);
  const Batch batch = batch_of();
  Decoder<float>::Tape tape;
  model.forward({.batch = batch, .training = true, .rng = &rng}, tape);
  return tape.loss;
}

// The bytes of every tensor whose name has `part`.
std::map<std::string, std::string> tensors_with(const fs::path& folder, const std::string& part) {
  std::map<std::string, std::string> out;
  const Tensors tensors(folder);
  for (const TensorInfo& t : tensors.list()) {
    if (t.name.find(part) == t.name.npos)
      continue;
    const Tensor numbers = tensors.get(t.name);
    const auto bytes = numbers.bytes();
    out[concat(t.name, " ", name_of(t.dtype), " ", text_of(t.dims))] =
        std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return out;
}

// A number of /proc/self/status in MiB.
double of_process(const std::string& key) {
  std::ifstream in("/proc/self/status");
  std::string line;
  while (std::getline(in, line)) {
    if (line.starts_with(key + ":"))
      return std::stod(line.substr(key.size() + 1)) / 1024;
  }
  return -1;
}

}  // namespace

TEST_CASE("gradients beside experts in few bits are those beside the same numbers in memory") {
  const test::Scratch folder;
  const auto cpu = make_backend("cpu");
  write_bases(folder, *cpu, formats);
  for (const std::string device : {"reference", "cpu", "cpu:dtype=bf16"}) {
    const auto b = make_backend(device);
    for (const std::string& format : formats) {
      INFO(format << " on " << device);
      const LoadedModel stays = load_to_train(folder / format, *b);
      const LoadedModel held = load_model(folder / format, *b);
      REQUIRE(stays.holding.numbers == Keep::experts_as_stored);
      REQUIRE(held.holding.numbers == Keep::in_memory);
      Gradients got = gradients(*stays.model, *b);
      Gradients want = gradients(*held.model, *b);
      // f32 sums in another order; with bf16 operands the experts in memory are rounded once more
      const double allowed = device == "reference" ? 0 : device == "cpu" ? 1e-10 : 1e-3;
      CHECK(std::abs(got.loss - want.loss) <= std::sqrt(allowed) * want.loss);
      std::size_t frozen = 0;
      for (const auto& [name, g] : want.of) {
        if (is_expert(name)) {
          CHECK_FALSE(got.of.contains(name));
          ++frozen;
          continue;
        }
        REQUIRE(got.of.contains(name));
        const Difference d = difference<float>(got.of.at(name).view(), g.view());
        INFO(name << ": " << text_of(d));
        CHECK(d.within(allowed));
      }
      CHECK(frozen == 6);  // gate, up and down of two layers
      CHECK(got.of.size() + frozen == want.of.size());
    }
  }
}

TEST_CASE("gradients of router and shared experts are those of central differences") {
  const test::Scratch folder;
  const auto b = make_backend("reference");
  write_bases(folder, *b, {"int4"},
              {{"balance", "none"}, {"router", "softmax:k=4"}});  // no choice can flip
  const LoadedModel loaded = load_to_train(folder / "int4", *b);
  Decoder<float>& model = *loaded.model;
  const Gradients all = gradients(model, *b);
  int tried = 0;
  for (auto* p : model.parameters()) {
    const bool wanted = p->name().find(".moe.router") != std::string::npos ||
                        p->name().find(".moe.shared") != std::string::npos;
    if (!wanted)
      continue;
    const Matrix<float>& g = all.of.at(p->name());
    double squares = 0;
    for (const float v : g.flat())
      squares += double(v) * double(v);
    REQUIRE(squares > 0);
    // along the gradient, by a step that moves the loss by about 0.0004
    const double h = 2e-4 / squares;
    const Matrix<float> kept = p->to_host();
    const auto at = [&](double step) {
      Matrix<float> moved = kept;
      for (Index i = 0; i < moved.size(); ++i)
        moved.data()[i] += float(step * double(g.data()[i]));
      p->set(std::as_const(moved).view());
      return loss_of(model);
    };
    const double slope = (at(h) - at(-h)) / (2 * h);
    p->set(kept.view());
    INFO(p->name() << ": " << slope << " and " << squares);
    CHECK(slope == Approx(squares).epsilon(0.02));
    ++tried;
  }
  CHECK(tried == 10);  // router, gate, up, down and the shared gate of two layers
}

TEST_CASE("checkpoints of a run on a base in few bits hold its experts bit by bit") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  write_bases(folder, *backend, formats);
  TrainingObserver nobody;
  for (const std::string& format : formats) {
    INFO(format);
    RunOptions o = options_of(folder / ("on_" + format));
    o.init = folder / format;
    o.train.trained = "router;shared";
    {
      const auto run = start_run(read_checkpoint_config(o.init).config, o, on(*backend), nobody);
      train(*run, nobody);
    }
    const fs::path base = find_checkpoint(folder / format).path;
    const fs::path end = folder / ("on_" + format) / "checkpoint-00000004";
    const auto experts = tensors_with(base, ".experts.");
    CHECK(experts.size() >= 2 * 3 * 4 * 2);  // numbers and scales
    CHECK(tensors_with(end, ".experts.") == experts);
    CHECK(tensors_with(end, "shared") != tensors_with(base, "shared"));
    CHECK(tensors_with(end, "embed") == tensors_with(base, "embed"));
    CHECK(nlohmann::json::parse(bytes_of(end / "config.json"))["quantization_config"] ==
          nlohmann::json::parse(bytes_of(base / "config.json"))["quantization_config"]);
    CHECK(load_model(end, *backend, {.holding = {.numbers = Keep::as_fits}}).holding.numbers ==
          Keep::as_stored);
    // stopped in between, the run ends with the same bytes
    fs::create_directory(folder / ("cut_" + format));
    fs::copy(folder / ("on_" + format), folder / ("cut_" + format),
             fs::copy_options::recursive | fs::copy_options::update_existing);
    fs::remove_all(folder / ("cut_" + format) / "checkpoint-00000004");
    {
      const auto run = resume_run(folder / ("cut_" + format), {}, on(*backend), nobody);
      REQUIRE(run);
      CHECK(run->setup.model->moe_layers()[0]->expert_parameters().up.made_when_read());
      train(*run, nobody);
    }
    for (const char* file : {"model.safetensors", "optimizer.safetensors", "config.json"}) {
      INFO(file);
      CHECK(bytes_of(folder / ("cut_" + format) / "checkpoint-00000004" / file) ==
            bytes_of(end / file));
    }
  }
}

TEST_CASE("experts in few bits keep their bytes under another router") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  write_bases(folder, *backend, {"int4"});
  RunOptions o = options_of(folder / "on");
  o.init = folder / "int4";
  o.train.trained = "router,shared,norms";
  ModelConfig config = read_checkpoint_config(o.init).config;
  config.moe.router = "sigmoid:k=1,bias=1";
  TrainingObserver nobody;
  {
    const auto run = start_run(config, o, on(*backend), nobody);
    train(*run, nobody);
  }
  const auto packed = [](const fs::path& at) {
    std::vector<std::string> out;
    for (const auto& [name, bytes] : tensors_with(at, "_packed"))
      out.push_back(bytes);
    std::ranges::sort(out);
    return out;
  };
  CHECK(packed(folder / "on" / "checkpoint-00000004") ==
        packed(find_checkpoint(folder / "int4").path));
}

TEST_CASE("what would train experts in few bits, or share them out, is refused") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  write_bases(folder, *backend, {"int8"});
  TrainingObserver nobody;
  RunOptions o = options_of(folder / "on");
  o.init = folder / "int8";
  const ModelConfig config = read_checkpoint_config(o.init).config;
  for (const std::string trained : {"all", "experts", "router;experts=1,3", "router,experts=1,3"}) {
    o.train.trained = trained;
    const std::string said = test::refusal([&] { start_run(config, o, on(*backend), nobody); });
    INFO(said);
    CHECK(said.find("are in few bits, which do not train") != said.npos);
    CHECK_FALSE(fs::exists(o.folder));
  }
  o.train.trained = "router";
  RunContext context = on(*backend);
  context.ranks.expert_ranks = 2;
  CHECK(test::refusal([&] { start_run(config, o, context, nobody); }).find("--ep") !=
        std::string::npos);
}

TEST_CASE("training on a base in few bits holds no f32 copy of its experts") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  write_bases(folder, *backend, {"int4"},
              {{"hidden", "256"}, {"width", "512"}, {"experts", "64"}, {"balance", "none"}});
  const ModelConfig config = read_checkpoint_config(folder / "int4").config;
  const double widened = 2.0 * 64 * 3 * 256 * 512 * 4 / (1 << 20);
  REQUIRE(widened > 190);  // MiB
  backend->give_back();
  ::malloc_trim(0);
  RunOptions o = options_of(folder / "on");
  o.init = folder / "int4";
  o.train.trained = "router;shared";
  const StepMemory stated =
      step_memory(config, o.train, {}, 1, few_bits_bytes(folder / "int4", "cpu"));
  CHECK(stated.mapped / (1 << 20) == Approx(widened / 4 * 0.625).epsilon(0.05));
  CHECK(stated.weights / (1 << 20) < 0.1 * widened);
  CHECK(stated.moments < stated.weights);
  if (!std::ofstream("/proc/self/clear_refs").write("5", 1).flush())
    return;  // a system that does not reset the peak
  const double before = of_process("VmRSS");
  TrainingObserver nobody;
  {
    const auto run = start_run(config, o, on(*backend), nobody);
    train(*run, nobody);
  }
  const double peak = of_process("VmHWM") - before;
  INFO("peak " << peak << " MiB above what was there, experts widened " << widened << " MiB");
#ifndef __SANITIZE_THREAD__  // which keeps as much again of what is touched
  CHECK(peak < 0.5 * widened);
#endif
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  CHECK(peak * (1 << 20) < stated.all() + stated.mapped + 40e6);
#endif
}
