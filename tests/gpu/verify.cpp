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

constexpr Index layer_tokens = 192;
constexpr Index layer_hidden = 48;

Matrix<float> noise(Rng& rng, Index rows, Index cols, double scale) {
  Matrix<float> m(rows, cols);
  for (float& v : m.flat())
    v = float(rng.normal() * scale);
  return m;
}

// A layer that learns to give fixed random targets, by AdamW.
class Learner {
 public:
  Learner(Backend<float>& b, Rng& rng) : b_(b), rng_(rng), layer_(config(), b) {
    layer_.collect(parameters_);
    for (auto* p : parameters_) {
      const Matrix<float> start = noise(rng, p->value().rows, p->value().cols, 0.15);
      p->set(start.view());
      p->want_grad(b);
      mean_.push_back(Array<float>::zeros(b, start.rows(), start.cols()));
      square_.push_back(Array<float>::zeros(b, start.rows(), start.cols()));
    }
    const Matrix<float> input = noise(rng, layer_tokens, layer_hidden, 1);
    input_ = Array<float>(b, input.view());
    target_ = noise(rng, layer_tokens, layer_hidden, 1);
    batch_.token.assign(std::size_t(layer_tokens), 0);
    batch_.start = {0, layer_tokens};
  }

  // The mean squared error before step number `step`, from 1.
  double step(Index step) {
    MoeTape<float> tape(batch_);
    const Pass pass{.batch = batch_, .training = true, .rng = &rng_};
    Array<float> y(b_, layer_tokens, layer_hidden), dx(b_, layer_tokens, layer_hidden);
    layer_.forward(pass, input_.view(), y.view(), tape);
    Matrix<float> d = y.to_host();
    double loss = 0;
    for (Index i = 0; i < d.size(); ++i) {
      d.data()[i] -= target_.data()[i];
      loss += double(d.data()[i]) * double(d.data()[i]) / double(d.size());
      d.data()[i] *= 2 / float(d.size());
    }
    const Array<float> dy(b_, std::as_const(d).view());
    layer_.backward(pass, tape, input_.view(), dy.view(), dx.view());
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      b_.adamw(parameters_[i]->mutate(), parameters_[i]->grad(), mean_[i].view(), square_[i].view(),
               {.lr = 3e-3, .step = step});
      parameters_[i]->clear_grad();
    }
    return loss;
  }

 private:
  static LayerConfig config() {
    LayerConfig c{.hidden = layer_hidden, .width = 64, .experts = 8};
    c.router = "softmax:k=2";
    c.balance = {"switch:coef=0.01"};
    return c;
  }

  Backend<float>& b_;
  Rng& rng_;
  MoeLayer<float> layer_;
  std::vector<Parameter<float>*> parameters_;
  std::vector<Array<float>> mean_, square_;
  Array<float> input_;
  Matrix<float> target_;
  Batch batch_;
};

std::vector<double> losses_on(const std::string& device) {
  const auto backend = make_backend(device);
  Rng rng(77);
  Learner learner(*backend, rng);
  std::vector<double> losses;
  for (Index step = 1; step <= 10; ++step)
    losses.push_back(learner.step(step));
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
