// Is it right: every case against the definition, every case twice, and ten steps of a layer that
// trains.
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "lib/check/check.h"
#include "lib/core/rng.h"
#include "lib/layer/moe_layer.h"
#include "tests/gpu/rows.h"

namespace moe::gpu_check {

void run_cases(const std::string& device, Rows& rows) {
  const auto backend = make_backend(device);
  int count = 0;
  for (const Case& c : cases()) {
    outcome(c, *backend);
    ++count;
  }
  rows.say(concat(device, ": ran ", count, " cases"));
}

void verify(const std::string& device, Rows& rows) {
  const auto backend = make_backend(device);
  const auto definition = make_backend("reference");
  int passed = 0;
  int all = 0;
  for (const Case& c : cases()) {
    const Verdict v = compare(c, *backend, *definition);
    ++all;
    passed += v.passed;
    if (!v.passed)
      rows.say("FAILED " + v.sentence());
  }
  rows.judge(concat(device, ": cases against the definition"), concat(passed), concat("all ", all),
             passed == all && all > 0);
}

void same_bytes(const std::string& device, Rows& rows) {
  const auto backend = make_backend(device);
  int same = 0;
  int all = 0;
  for (const Case& c : cases()) {
    const auto first = outcome(c, *backend);
    const auto again = outcome(c, *backend);
    bool equal = first.size() == again.size() && !first.empty();
    for (std::size_t i = 0; equal && i < first.size(); ++i) {
      const auto a = first[i].value.flat();
      const auto b = again[i].value.flat();
      equal = a.size() == b.size() &&
              (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
    }
    ++all;
    same += equal;
    if (!equal)
      rows.say(concat("FAILED: other bytes the second time: ", c.operation, " ", c.shape));
  }
  rows.judge(concat(device, ": cases with the same bytes twice"), concat(same), concat("all ", all),
             same == all && all > 0);
}

namespace {

// A layer that learns to give fixed random targets: its mean squared error at each of ten steps of
// AdamW.
std::vector<double> losses_on(const std::string& device) {
  const auto backend = make_backend(device);
  Backend<float>& b = *backend;
  const Index tokens = 192;
  const Index hidden = 48;
  LayerConfig config{.hidden = hidden, .width = 64, .experts = 8};
  config.router = "softmax:k=2";
  config.balance = {"switch:coef=0.01"};
  MoeLayer<float> layer(config, b);
  Rng rng(77);
  const auto noise = [&](Index r, Index c, double scale) {
    Matrix<float> m(r, c);
    for (float& v : m.flat())
      v = float(rng.normal() * scale);
    return m;
  };
  std::vector<Parameter<float>*> parameters;
  layer.collect(parameters);
  std::vector<Array<float>> mean, square;
  for (auto* p : parameters) {
    const Matrix<float> start = noise(p->value().rows, p->value().cols, 0.15);
    p->set(start.view());
    p->want_grad(b);
    mean.push_back(Array<float>::zeros(b, start.rows(), start.cols()));
    square.push_back(Array<float>::zeros(b, start.rows(), start.cols()));
  }
  const Matrix<float> x = noise(tokens, hidden, 1);
  const Matrix<float> target = noise(tokens, hidden, 1);
  const Array<float> there(b, x.view());
  Batch batch;
  batch.token.assign(std::size_t(tokens), 0);
  batch.start = {0, tokens};
  std::vector<double> losses;
  for (Index step = 1; step <= 10; ++step) {
    MoeTape<float> tape(batch);
    const Pass pass{.batch = batch, .training = true, .rng = &rng};
    Array<float> y(b, tokens, hidden), dx(b, tokens, hidden);
    layer.forward(pass, there.view(), y.view(), tape);
    Matrix<float> d = y.to_host();
    double loss = 0;
    for (Index i = 0; i < d.size(); ++i) {
      d.data()[i] -= target.data()[i];
      loss += double(d.data()[i]) * double(d.data()[i]) / double(d.size());
      d.data()[i] *= 2 / float(d.size());
    }
    losses.push_back(loss);
    const Array<float> dy(b, std::as_const(d).view());
    layer.backward(pass, tape, there.view(), dy.view(), dx.view());
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      b.adamw(parameters[i]->mutate(), parameters[i]->grad(), mean[i].view(), square[i].view(),
              {.lr = 3e-3, .step = step});
      parameters[i]->clear_grad();
    }
  }
  return losses;
}

}  // namespace

void ten_steps(const std::string& device, Rows& rows) {
  const auto want = losses_on("reference");
  const auto got = losses_on(device);
  const auto again = losses_on(device);
  const double allowed = make_backend(device)->rounding() > 0 ? 2e-2 : 1e-4;
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double off = std::abs(got[i] - want[i]) / want[i];
    worst = off <= worst ? worst : off;  // a NaN stays
    rows.say(concat(device, " step ", i + 1, ": loss ", got[i], ", reference ", want[i]));
  }
  const bool learns = want.back() < 0.98 * want.front();
  rows.judge(concat(device, ": ten losses of a training layer"),
             concat("off by ", number_text(float(worst))), concat("<= ", allowed),
             worst <= allowed && learns);
  rows.judge(concat(device, ": the same ten losses twice"), got == again ? "same bytes" : "differ",
             "same bytes", got == again);
}

}  // namespace moe::gpu_check
