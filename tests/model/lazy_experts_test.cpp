// Experts that are read from their file when rows need them: the same bytes as with all of them in
// memory, whatever a cache may hold; initial weights drawn as they are written; what a config.json
// asks for beyond its files.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/family/families.h"
#include "lib/files/file.h"
#include "lib/layer/expert_cache.h"
#include "lib/run/run_folder.h"
#include "tests/skip.h"

using namespace moe;

namespace {

namespace fs = std::filesystem;

struct Scratch {
  fs::path path = fs::temp_directory_path() / concat("moe-lazy-", ::getpid());
  Scratch() {
    fs::remove_all(path);
  }
  ~Scratch() {
    fs::remove_all(path);
  }
};

Batch some_tokens(int vocabulary, Index length) {
  Batch b;
  for (Index q = 0; q < 2; ++q) {
    for (Index t = 0; t < length; ++t) {
      b.token.push_back(int((q * 31 + t * t * 7 + t) % vocabulary));
      b.target.push_back(int(t % vocabulary));
    }
    b.start.push_back(b.tokens());
  }
  return b;
}

Holding cached(Index bytes) {
  return {.numbers = Keep::cached, .expert_bytes = bytes};
}

struct Answer {
  Matrix<float> logits, token_loss;
  std::vector<Matrix<int>> expert;
};
Answer answer(Decoder<float>& model, Index length = 24) {
  Answer out;
  Rng rng(1);
  Decoder<float>::Tape tape;
  model.infer(
      {.batch = some_tokens(model.config().vocabulary, length), .rng = &rng}, tape,
      [&](int, const MoeTape<float>& t, View<const float>) {
        out.expert.push_back(t.routing.expert);
      },
      nullptr, &out.logits);
  out.token_loss = tape.token_loss;
  return out;
}
void check_same(const Answer& a, const Answer& b) {
  CHECK(a.logits == b.logits);
  CHECK(a.token_loss == b.token_loss);
  CHECK(a.expert == b.expert);
}

fs::path written(const fs::path& folder, const std::string& spec, Backend<float>& backend,
                 DType weights = DType::f32, Storage experts = Storage::own) {
  Decoder<float> model(model_config(spec), backend, experts);
  model.initialise(3);
  RunState state;
  state.model = to_spec(model.config());
  return save_checkpoint(folder, model, nullptr, state, {.json = "{}", .config_json = "{}"},
                         weights);
}

void check_lazy(const fs::path& folder, const std::string& device,
                std::initializer_list<Index> limits) {
  const auto backend = make_backend(device);
  const LoadedModel eager = load_model(folder, *backend);
  const Answer wanted = answer(*eager.model);
  for (const Index limit : limits) {
    INFO(folder << " on " << device << " with " << limit << " bytes of experts");
    const LoadedModel lazy = load_model(folder, *backend, {.holding = cached(limit)});
    CHECK(lazy.holding.numbers == Keep::cached);
    CHECK(lazy.holding.expert_bytes == limit);
    CHECK_FALSE(lazy.model->moe_layers()[0]->expert_parameters().stored());
    check_same(answer(*lazy.model), wanted);
    check_same(answer(*lazy.model), wanted);  // with what the cache holds by now
    CHECK(eager.checkpoint.notes == lazy.checkpoint.notes);
  }
}

// Sums over rows as they lie are in another order than products of many rows.
void check_in_place(const fs::path& folder) {
  INFO(folder);
  const auto backend = make_backend("cpu");
  const LoadedModel eager = load_model(folder, *backend);
  const LoadedModel there = load_model(folder, *backend, {.holding = {.numbers = Keep::in_files}});
  CHECK(there.holding.numbers == Keep::in_files);
  const Answer wanted = answer(*eager.model);
  const Answer found = answer(*there.model);
  CHECK(found.expert == wanted.expert);
  REQUIRE(found.logits.size() == wanted.logits.size());
  float most = 0;
  for (const float v : wanted.logits.flat())
    most = std::max(most, std::abs(v));
  for (Index i = 0; i < wanted.logits.size(); ++i)
    CHECK(std::abs(found.logits.data()[i] - wanted.logits.data()[i]) <= 2e-5f * most);
}

}  // namespace

TEST_CASE("experts read when used give the bytes of experts in memory") {
  const Scratch scratch;
  const auto backend = make_reference<float>();
  int n = 0;
  for (const std::string spec :
       {"nano:layers=3,experts=6,width=24", "nano:expert_bias=1,activation=gelu,shared_width=16",
        "nano:router={soft:k=2,slots=2},balance=none,experts=4", "olmoe-toy:hidden=64,layers=2",
        "deepseek-v3-toy:hidden=64,width=16,layers=3"}) {
    ++n;
    const fs::path folder =
        written(scratch.path / concat("run", n), spec, *backend, n % 2 ? DType::f32 : DType::bf16);
    check_lazy(folder, "cpu", {0, 100'000, 1'000'000'000});
    if (n == 1)
      check_lazy(folder, "reference", {0, 50'000});
    // matrices held as bf16; f32 where the processor has no such products
    check_lazy(folder, "cpu:dtype=bf16", {0, 100'000, 1'000'000'000});
  }
}

TEST_CASE("wide experts read in their file give the bytes of experts in memory") {
  const Scratch scratch;
  const auto backend = make_backend("cpu");
  // 1,100 rows are three tiles of a product; 600 tokens at one expert two tiles of rows
  for (const DType type : {DType::f32, DType::bf16}) {
    const fs::path folder = written(scratch.path / concat("wide", int(type)),
                                    "nano:layers=2,experts=5,width=1100,context=320,"
                                    "router={synthetic_load:k=1,hot=0.9},balance=none",
                                    *backend, type);
    for (const std::string device : {"cpu", "cpu:dtype=bf16"}) {
      const auto b = make_backend(device);
      const LoadedModel eager = load_model(folder, *b);
      const LoadedModel lazy = load_model(folder, *b, {.holding = cached(0)});
      check_same(answer(*lazy.model, 310), answer(*eager.model, 310));
      const bool in_place = b->operand_type() == DType::f32 || type == DType::bf16;
      CHECK((lazy.model->moe_layers()[0]->expert_parameters().cache->room() == 0) == in_place);
    }
  }
}

namespace {

// What was asked for and given back, in turn.
struct Heard {
  std::vector<std::vector<std::span<const std::byte>>> asked;
  std::vector<std::span<const std::byte>> forgotten;
};
class Listening final : public ReadAhead {
 public:
  explicit Listening(Heard& heard) : heard_(heard) {}
  void ask(std::vector<std::span<const std::byte>> bytes) override {
    heard_.asked.push_back(std::move(bytes));
  }
  void forget(std::span<const std::span<const std::byte>> bytes) override {
    for (const auto& part : bytes) {
      // nothing is read that was not asked for
      const bool known = std::ranges::any_of(heard_.asked, [&](const auto& call) {
        return std::ranges::any_of(call, [&](const auto& a) { return a.data() == part.data(); });
      });
      CHECK(known);
      heard_.forgotten.push_back(part);
    }
  }

 private:
  Heard& heard_;
};

}  // namespace

TEST_CASE("pages of experts are asked for before they are read, in the order of the file") {
  const Scratch scratch;
  const auto backend = make_backend("cpu");
  const fs::path folder =
      written(scratch.path, "nano:layers=3,experts=6,width=24,hidden=64", *backend, DType::bf16);
  const LoadedModel lazy = load_model(folder, *backend, {.holding = cached(0)});
  Heard heard;
  std::vector<const ExpertParameters<float>*> layers;
  for (MoeLayer<float>* layer : lazy.model->moe_layers())
    layers.push_back(&layer->expert_parameters());
  const auto cache = lazy.model->moe_layers()[0]->expert_parameters().cache;
  cache->read_ahead(layers, std::make_unique<Listening>(heard));
  answer(*lazy.model);
  // 3 layers of 6 experts of 3 matrices, and each layer once more before it is the next one's turn
  REQUIRE(heard.asked.size() >= 6);
  CHECK(heard.forgotten.size() == 3 * 6 * 3);
  for (const auto& call : heard.asked)
    CHECK(std::ranges::is_sorted(call, {}, [](const auto& part) { return part.data(); }));
  std::size_t bytes = 0;
  for (const auto& part : heard.forgotten)
    bytes += part.size();
  CHECK(bytes == 3 * 6 * 3 * 24 * 64 * 2);
}

TEST_CASE("published checkpoints, fused and quantised ones too, read expert by expert") {
  const fs::path golden = test::shared("golden/hf");
  if (!fs::exists(golden))
    return test::skip("no " + golden.string());
  int seen = 0;
  for (const auto& entry : fs::directory_iterator(golden)) {
    if (entry.path().filename() == "bad" || !fs::exists(entry.path() / "config.json"))
      continue;
    check_lazy(entry.path(), "cpu", {0, 20'000});
    check_in_place(entry.path());
    ++seen;
  }
  CHECK(seen > 5);
}

TEST_CASE("a cache keeps what was used last and computes every expert's rows") {
  const auto backend = make_backend("cpu");
  const ModelConfig c = model_config("nano:layers=1,experts=8");
  Decoder<float> whole(c, *backend);
  Decoder<float> lazy(c, *backend, Storage::elsewhere);
  whole.initialise(3);
  lazy.initialise(3);
  const Index expert = 3 * c.moe.width * c.hidden * Index(sizeof(float));
  const auto cache = std::make_shared<ExpertCache<float>>(*backend, 3 * expert, 8);
  lazy.moe_layers()[0]->expert_parameters().cache = cache;
  const Index rows = 12;
  Matrix<float> xs(rows, c.hidden);
  Matrix<float> want(rows, c.hidden);
  Matrix<float> got(rows, c.hidden);
  for (Index i = 0; i < xs.size(); ++i)
    xs.data()[i] = float(i % 17) / 8 - 1;
  const auto run = [&](std::vector<int> of_rows) {  // rows in order of their experts
    const Plan plan = backend->plan(View<const int>{of_rows.data(), rows, 1}, 8);
    ExpertTape<float> a, b;
    backend->experts(whole.moe_layers()[0]->expert_parameters().weights(), std::as_const(xs).view(),
                     plan, a, want.view());
    lazy.moe_layers()[0]->expert_parameters().forward(*backend, std::as_const(xs).view(), plan, b,
                                                      got.view());
    CHECK(want == got);
  };
  run({0, 0, 0, 0, 2, 2, 2, 2, 5, 5, 5, 5});
  CHECK((cache->room() == 3 && cache->misses() == 3 && cache->hits() == 0));
  run({2, 2, 2, 2, 2, 2, 5, 5, 5, 5, 5, 5});  // 0 was used longest ago
  CHECK((cache->misses() == 3 && cache->hits() == 2));
  run({1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2});  // 1 takes the place of 0, before that of 2
  CHECK((cache->misses() == 4 && cache->hits() == 3));
  run({1, 1, 2, 2, 2, 2, 5, 5, 5, 5, 5, 5});
  CHECK((cache->misses() == 4 && cache->hits() == 6));
  run({0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7});
  CHECK_THROWS_WITH(lazy.moe_layers()[0]->expert_parameters().weights(),
                    Catch::Contains("are not in memory and were used as if they were"));
}

TEST_CASE("a cache holds what its bytes hold: twice the experts in bf16") {
  const ModelConfig c = model_config("nano:layers=1,experts=8");
  const Index expert = 3 * c.moe.width * c.hidden * Index(sizeof(float));
  for (const std::string device : {"cpu", "cpu:dtype=bf16"}) {
    const auto backend = make_backend(device);
    Decoder<float> lazy(c, *backend, Storage::elsewhere);
    lazy.initialise(3);
    const auto cache = std::make_shared<ExpertCache<float>>(*backend, 3 * expert, 8);
    lazy.moe_layers()[0]->expert_parameters().cache = cache;
    answer(lazy);
    CHECK(cache->room() == (backend->operand_type() == DType::bf16 ? 6 : 3));
  }
}

TEST_CASE("weights drawn as they are written are those drawn at once") {
  const Scratch scratch;
  const auto backend = make_backend("cpu");
  // 245,760 numbers a parameter: several pieces
  for (const std::string spec : {"olmoe-toy:hidden=96,width=160,layers=2", "switch-toy:layers=2"}) {
    const ModelConfig c = model_config(spec);
    Decoder<float> at_once(c, *backend);
    Decoder<float> later(c, *backend, Storage::elsewhere);
    at_once.initialise(7);
    later.initialise(7);
    for (std::size_t i = 0; i < at_once.parameters().size(); ++i) {
      const Parameter<float>& a = *at_once.parameters()[i];
      const Parameter<float>& b = *later.parameters()[i];
      CHECK(a.to_host() == b.to_host());
      Matrix<float> some(1, a.value().cols);
      Matrix<float> same(1, a.value().cols);
      a.read(a.value().rows - 1, some.view());
      b.read(b.value().rows - 1, same.view());
      CHECK(some == same);
    }
  }
  const auto file = [](const fs::path& p) {
    return read_file(p / "model.safetensors", 100'000'000);
  };
  const std::string spec = "olmoe-toy:hidden=96,layers=2";
  CHECK(file(written(scratch.path / "a", spec, *backend)) ==
        file(written(scratch.path / "b", spec, *backend, DType::f32, Storage::elsewhere)));
  const fs::path half =
      written(scratch.path / "c", spec, *backend, DType::bf16, Storage::elsewhere);
  CHECK(read_json(half / "config.json")["torch_dtype"] == "bfloat16");
  const Tensors stored(half);
  for (const TensorInfo& t : stored.list())
    CHECK(t.dtype == DType::bf16);
}

TEST_CASE("numbers that are not finite, and sizes beyond the files, are refused") {
  const Scratch scratch;
  const auto backend = make_backend("cpu");
  Decoder<float> model(model_config("nano:layers=1"), *backend);
  model.initialise(3);
  Parameter<float>& down = model.moe_layers()[0]->expert_parameters().down;
  down.mutate()(down.value().rows - 1, 0) = std::numeric_limits<float>::infinity();
  RunState state;
  state.model = to_spec(model.config());
  const fs::path folder =
      save_checkpoint(scratch.path, model, nullptr, state, {.json = "{}", .config_json = "{}"});
  const LoadedModel lazy = load_model(folder, *backend, {.holding = cached(0)});
  CHECK_THROWS_WITH(answer(*lazy.model),
                    "tensor 'model.layers.0.block_sparse_moe.experts.7.w2.weight' holds numbers "
                    "that are not finite");
  CHECK_THROWS_WITH(refuse_infinite(*load_model(folder, *backend, {.holding = cached(0)}).model),
                    Catch::Contains("w2.weight' holds numbers that are not finite"));
  const fs::path plain = scratch.path / "plain";
  fs::create_directory(plain);
  fs::copy_file(folder / "model.safetensors", plain / "model.safetensors");
  Json config = read_json(folder / "config.json");
  config.erase("moe_training");
  config["vocab_size"] = 1'000'000'000;
  write_file(plain / "config.json", json_text(config));
  CHECK_THROWS_WITH(load_model(plain, *backend),
                    Catch::Contains("config.json describes a model of 128000"));
}
