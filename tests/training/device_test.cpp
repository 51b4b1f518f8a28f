// A whole model trains and decodes on the CUDA backend's operations with the host engine of tests/backend, whose memory no host code
// can touch: the same losses as by the definition, so nothing in decoder, layer or trainer looks past a backend's operations.
#include <catch2/catch.hpp>

#include "lib/model/trainer.h"
#include "tests/backend/host_engine.h"

using namespace moe;

namespace {

constexpr int words = 19;

Batch batch_of(std::uint64_t number) {
  Rng rng = Rng(8).stream(number);
  Batch b;
  for (const Index length : {7, 12}) {
    for (Index t = 0; t < length; ++t) b.token.push_back(int(rng.below(words))), b.target.push_back(int(rng.below(words)));
    b.start.push_back(b.tokens());
  }
  b.valid.assign(b.token.size(), 1), b.valid.back() = 0;
  return b;
}

struct Outcome {
  std::vector<double> loss, norm;
  Matrix<float> logits;  // after a sequence was fed in two pieces
};
Outcome outcome_on(Backend<float>& backend, const std::string& more) {
  Decoder<float> model(model_config(concat("custom:vocabulary=", words, ",hidden=16,layers=2,heads=4,kv_heads=2,width=12,experts=5,context=16", more)), backend);
  model.initialise(4);
  Solo comm;
  Trainer trainer(model, {.steps = 10, .accumulate = 2, .lr = 0.01}, comm);
  Outcome out;
  for (int i = 0; i < 4; ++i) {
    const StepResult r = trainer.step(batch_of, true);
    out.loss.push_back(r.total_loss), out.norm.push_back(r.gradient_norm);
  }
  KeyValues<float> state;
  for (const auto& piece : {std::vector<int>{1, 2, 3, 4, 5}, {6, 7}}) {
    Batch b;
    b.token = piece, b.start = {0, Index(piece.size())};
    Decoder<float>::Tape tape;
    model.infer({.batch = b}, tape, {}, &state, &out.logits);
  }
  return out;
}

void compare(HostCuda& device, const std::string& more, double allowed) {
  INFO(device.name() << " " << more);
  const auto definition = make_backend("reference");
  const Outcome want = outcome_on(*definition, more), got = outcome_on(device, more);
  for (std::size_t i = 0; i < want.loss.size(); ++i) {
    CHECK(got.loss[i] == Approx(want.loss[i]).epsilon(allowed));
    CHECK(got.norm[i] == Approx(want.norm[i]).epsilon(10 * allowed));
  }
  REQUIRE(got.logits.size() == want.logits.size());
  if (device.rounding() > 0) return;  // four rounded steps of training lie between these logits
  for (Index i = 0; i < want.logits.size(); ++i) CHECK(got.logits.data()[i] == Approx(want.logits.data()[i]).epsilon(100 * allowed).margin(100 * allowed));
}

}  // namespace

TEST_CASE("a model trains and decodes where the host cannot touch its numbers") {
  HostCuda device(gpu::Choices{});
  for (const char* more : {",router={softmax:k=2},balance={switch:coef=0.01}", ",router={sigmoid:k=2,bias=1},balance={bias:rate=0.001},qk_norm=head"}) compare(device, more, 1e-5);
  HostCuda rounded(gpu::Choices{.half = true});
  compare(rounded, ",router={softmax:k=2}", 2e-2);
}
