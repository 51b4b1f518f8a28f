// Models whose files hold matrices in few bits, looked at without widening: the same bytes as with
// every number in memory, whatever the pass, and nothing of those matrices in memory.
#include <nlohmann/json.hpp>

#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/files/gguf.h"
#include "lib/run/save_gguf.h"
#include "tests/checkpoint/help.h"
#include "tests/skip.h"

using namespace moe;
using namespace moe::test;

namespace {

const Loading as_fits{.holding = {.numbers = Keep::as_fits}};

struct Answer {
  Matrix<float> logits, token_loss;
  std::vector<Matrix<int>> expert;
};
// Of so many sequences.
Answer answer(Decoder<float>& model, Index sequences, Index length) {
  Batch b;
  for (Index q = 0; q < sequences; ++q) {
    for (Index t = 0; t < length; ++t) {
      b.token.push_back(int((q * 31 + t * t * 7 + t) % model.config().vocabulary));
      b.target.push_back(int((t + q) % model.config().vocabulary));
    }
    b.start.push_back(b.tokens());
  }
  Answer out;
  Rng rng(1);
  Decoder<float>::Tape tape;
  model.infer(
      {.batch = b, .rng = &rng}, tape,
      [&](int, const MoeTape<float>& t, View<const float>) {
        out.expert.push_back(t.routing.expert);
      },
      nullptr, &out.logits);
  out.token_loss = tape.token_loss;
  return out;
}
bool same(const Answer& a, const Answer& b) {
  return a.logits == b.logits && a.token_loss == b.token_loss && a.expert == b.expert;
}

// Matrices that are made when they are read.
int few_bits_matrices(Decoder<float>& model) {
  return int(std::ranges::count_if(model.parameters(),
                                   [](const Parameter<float>* p) { return p->made_when_read(); }));
}

void check_same(Decoder<float>& there, Decoder<float>& held, Index sequences, Index length) {
  INFO(sequences << " sequences of " << length);
  CHECK(same(answer(there, sequences, length), answer(held, sequences, length)));
}

fs::path written(const fs::path& file, const std::string& spec, const std::string& type) {
  const auto backend = make_backend("cpu");
  Decoder<float> model(model_config(spec), *backend);
  Rng rng(11);
  for (auto* p : model.parameters()) {
    const double centre = p->name().ends_with("norm") ? 1 : 0;
    for (float& v : p->mutate().flat())
      v = float(centre + 0.3 * rng.normal());
  }
  LoadedModel from;
  from.family = "olmoe";
  from.checkpoint.path = file.parent_path();
  save_gguf(file, model, from, type);
  return file;
}

// 1,056 rows are three pieces of a product.
const std::string wide =
    "olmoe-toy:hidden=64,heads=2,kv_heads=2,layers=2,width=1056,experts=4,context=320,vocabulary="
    "96,"
    "router={softmax:k=2,norm=0}";

class OnThreads {
 public:
  explicit OnThreads(int n) {
    set_threads(n);
  }
  ~OnThreads() {
    set_threads(before_);
  }

 private:
  int before_ = threads();
};

}  // namespace

TEST_CASE("GGUF files in few bits are read where they lie, and give the bytes of widened ones") {
  const Scratch s;
  const auto cpu = make_backend("cpu");
  for (const std::string type : {"Q8_0", "Q4_0"}) {
    INFO(type);
    const fs::path file = written(s / (type + ".gguf"), wide, type);
    const LoadedModel there = load_model(file, *cpu, as_fits);
    const LoadedModel held = load_model(file, *cpu);
    CHECK(there.holding.numbers == Keep::as_stored);
    CHECK(held.holding.numbers == Keep::in_memory);
    CHECK(there.checkpoint.notes == held.checkpoint.notes);
    // of two layers experts and attention, embedding and output
    CHECK(few_bits_matrices(*there.model) == 2 * (3 + 4) + 2);
    CHECK(few_bits_matrices(*held.model) == 0);
    check_same(*there.model, *held.model, 1, 1);  // four rows and fewer
    check_same(*there.model, *held.model, 2, 7);  // few tokens are decoded
    check_same(*there.model, *held.model, 2, 310);
  }
}

TEST_CASE("tiles of rows that share the decoding of a matrix keep their bytes") {
  const Scratch s;
  const auto cpu = make_backend("cpu");
  const fs::path file = written(s / "q.gguf", wide, "Q8_0");
  const LoadedModel there = load_model(file, *cpu, as_fits);
  const LoadedModel held = load_model(file, *cpu);
  // 2,170 rows are nine tiles, of every expert four or five; how many share a matrix depends on the
  // number of threads
  std::vector<Answer> all;
  for (const int threads : {1, 2, 3}) {
    const OnThreads on(threads);
    all.push_back(answer(*there.model, 7, 310));
  }
  all.push_back(answer(*held.model, 7, 310));
  for (const Answer& a : all)
    CHECK(same(a, all.back()));
}

TEST_CASE("recorded files in few bits give the bytes of their widened numbers") {
  int seen = 0;
  for (const char* const kind : {"golden/gguf", "golden/hf"}) {
    const fs::path golden = shared(kind);
    if (!fs::exists(golden))
      return skip("no " + golden.string());
    for (const auto& entry : fs::directory_iterator(golden)) {
      if (!entry.is_directory() || entry.path().filename() == "bad")
        continue;
      INFO(entry.path());
      for (const std::string device : {"cpu", "reference"}) {
        const auto backend = make_backend(device);
        const LoadedModel there = load_model(entry.path(), *backend, as_fits);
        if (there.holding.numbers != Keep::as_stored)
          continue;
        INFO(device);
        const LoadedModel held = load_model(entry.path(), *backend);
        CHECK(few_bits_matrices(*there.model) > 0);
        check_same(*there.model, *held.model, 2, 3);
        check_same(*there.model, *held.model, 2, 24);
        ++seen;
      }
    }
  }
  CHECK(seen > 20);
}

TEST_CASE("where operands are rounded to bf16 a GGUF file is widened, and rounded once") {
  const Scratch s;
  const fs::path file = written(s / "q.gguf", wide, "Q8_0");
  const auto half = make_backend("cpu:dtype=bf16");
  const bool rounds = half->operand_type() == DType::bf16;  // not on every processor
  CHECK(load_model(file, *half, as_fits).holding.numbers ==
        (rounds ? Keep::in_memory : Keep::as_stored));
}

TEST_CASE("a scale that is not finite is refused before a product reads it") {
  const Scratch s;
  const auto cpu = make_backend("cpu");
  const fs::path file = written(s / "q.gguf", wide, "Q8_0");
  const std::string bytes = slurp(file);
  for (const std::string name : {"blk.1.ffn_down_exps.weight", "blk.0.attn_k.weight"}) {
    const GgufFile whole(file);
    const GgufTensor& t = whole.at(name);
    std::string broken = bytes;
    const std::size_t last = std::size_t(t.offset + t.bytes - t.type->bytes);
    broken[last] = 0;
    broken[last + 1] = 0x7c;  // an infinity of f16
    put(s / "broken.gguf", broken);
    for (const Loading& wanted : {as_fits, Loading{}}) {
      CHECK_THROWS_WITH(load_model(s / "broken.gguf", *cpu, wanted),
                        Catch::Contains(name) && Catch::Contains("not finite"));
    }
  }
}
