// Cases of a whole MoE layer: outputs, gradients, balance losses. Routing is decided on the host
// from scores that two backends round differently; the layers are small enough that no choice is
// that near a tie.
#include <memory>

#include "lib/check/inputs.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"
#include "lib/layer/moe_layer.h"
#include "lib/router/router.h"

namespace moe::check {
namespace {

Batch batch_of(Index tokens, bool padded) {
  Batch b;
  for (Index t = 0; t < tokens; ++t)
    b.token.push_back(int(t * 7 % 11));
  b.start = {0, tokens / 3, tokens};
  if (padded) {
    b.valid.assign(std::size_t(tokens), 1);
    b.valid[std::size_t(tokens / 2)] = 0;
    b.valid.back() = 0;
  }
  return b;
}

struct World {
  World(Backend<float>& b, const LayerConfig& c, Index tokens, bool padded)
      : layer(c, b), batch(batch_of(tokens, padded)) {
    Inputs in(b, 61);
    x = in.noise(tokens, c.hidden);
    dy = in.noise(tokens, c.hidden);
    y = in.unset(tokens, c.hidden);
    dx = in.unset(tokens, c.hidden);
    layer.collect(parameters);
    for (auto* p : parameters) {
      const Array<float> value = in.noise(p->value().rows, p->value().cols, 0.3);
      p->set(value.to_host().view());
      p->want_grad(b);
    }
  }
  void run() {
    Rng rng(62);
    tape = std::make_unique<MoeTape<float>>(batch);
    const Pass pass{.batch = batch, .training = true, .rng = &rng};
    layer.forward(pass, std::as_const(x).view(), y.view(), *tape);
    layer.backward(pass, *tape, std::as_const(x).view(), std::as_const(dy).view(), dx.view());
  }
  std::vector<Output> results(Backend<float>& b) {
    auto all = outputs({{"y", &y}, {"dx", &dx}});
    for (auto* p : parameters) {
      Matrix<float> g(p->value().rows, p->value().cols);
      b.to_host(p->grad().data, g.data(), std::size_t(g.size()) * sizeof(float));
      all.push_back({p->name(), std::move(g)});
    }
    Matrix<float> losses(1, Index(tape->losses.size()));
    for (Index i = 0; i < losses.cols(); ++i)
      losses(0, i) = float(tape->losses[std::size_t(i)]);
    all.push_back({"losses", std::move(losses)});
    return all;
  }

  MoeLayer<float> layer;
  Batch batch;
  Array<float> x, dy, y, dx;
  std::vector<Parameter<float>*> parameters;
  std::unique_ptr<MoeTape<float>> tape;
};

Case layer(const LayerConfig& c, Index tokens, bool padded) {
  const auto prepare = [=](Backend<float>& b) {
    const auto w = std::make_shared<World>(b, c, tokens, padded);
    return Trial{[w] { w->run(); },
                 [w, &b] {
                   return w->results(b);
                 }};
  };
  const int k = make_router(c.router, c.experts)->choices();
  return {
      "layer",
      concat("T=", tokens, " H=", c.hidden, " I=", c.width, " E=", c.experts, " ", c.router,
             c.balance.empty() ? "" : " ", join(c.balance, " "), " ", c.capacity, " ",
             moe::name_of(c.activation), c.shared_width ? " shared" : "", padded ? " padded" : ""),
      prepare,
      1e-9,
      18.0 * double(tokens) * double(c.width * c.hidden) * k,
      0};
}

}  // namespace

std::vector<Case> layer_cases(bool bench) {
  LayerConfig c{.hidden = 24, .width = 20, .experts = 6};
  c.balance = {"switch:coef=0.3", "z:coef=0.1"};
  if (bench) {
    std::vector<Case> all;
    for (const auto& [hidden, width, experts, k] :
         std::vector<std::array<int, 4>>{{512, 1024, 8, 2}, {512, 128, 64, 8}}) {
      c.hidden = hidden;
      c.width = width;
      c.experts = experts;
      c.router = concat("softmax:k=", k);
      all.push_back(layer(c, 2048, false));
    }
    return all;
  }
  std::vector<Case> all{layer(c, 40, false), layer(c, 40, true)};
  c.router = "sigmoid:k=3";
  c.capacity = "position:factor=0.8";
  c.activation = Activation::gelu;
  c.expert_bias = c.router_bias = true;
  c.shared_width = 9;
  c.shared_gate = true;
  all.push_back(layer(c, 50, true));
  c.weight_on_input = true;
  c.activation = Activation::relu2;
  c.shared_gate = false;
  all.push_back(layer(c, 50, false));
  c = {.hidden = 16, .width = 8, .experts = 5};
  c.router = "dense";
  all.push_back(layer(c, 30, false));
  c.router = "round_robin:k=2";
  all.push_back(layer(c, 1, false));
  return all;
}

}  // namespace moe::check
