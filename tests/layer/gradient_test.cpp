// Every router's example specs, and every balancer, capacity rule and activation, through a whole
// layer in f64: the gradient that backward returns against central differences of forward. Routing
// is piecewise constant, so a step that changes who is chosen or kept says nothing and is skipped;
// enough steps must remain.
#include <catch2/catch.hpp>

#include <cmath>
#include <cstdlib>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/layer/moe_layer.h"
#include "lib/router/capacity.h"
#include "lib/router/learns_from_text.h"
#include "lib/router/mixing.h"
#include "lib/router/replays_routes.h"
#include "lib/router/reroutes.h"
#include "lib/router/router.h"

using namespace moe;

namespace {

constexpr Index tokens = 12, hidden = 6;

Batch batch_of(bool padded) {
  Batch b;
  for (Index t = 0; t < tokens; ++t)
    b.token.push_back(int(t * 7 % 11));
  b.start = {0, 5, tokens};
  if (padded) {
    b.valid.assign(tokens, 1);
    b.valid[3] = 0;
    b.valid[tokens - 1] = 0;
  }
  return b;
}

struct World {
  explicit World(const LayerConfig& config, bool padded)
      : backend(make_reference<double>()),
        layer(config, *backend),
        batch(batch_of(padded)),
        x(tokens, hidden),
        c(tokens, hidden) {
    Rng rng(11);
    for (double& v : x.flat())
      v = rng.normal();
    for (double& v : c.flat())
      v = rng.normal();
    layer.collect(parameters);
    for (auto* p : parameters) {
      p->want_grad(*backend);
      for (double& v : p->mutate().flat())
        v = rng.normal() * 0.6;
    }
    if (config.gate_residual)
      previous = Matrix<double>(tokens, config.experts);
    for (double& v : previous.flat())
      v = rng.normal();
    layer.trim();
    std::size_t i = 0;
    for (double& v : layer.router().correction_bias())
      v = 0.05 * double(i++ % 3);
    bring(layer.router());
  }
  // What a router needs from outside: counts of token ids, recorded routes.
  void bring(Router& router) {
    if (auto* table = capability<LearnsFromText>(router))
      table->learn(std::vector<std::int64_t>{5, 0, 3, 3, 1, 1, 1, 9, 2, 0, 4});
    auto* replay = capability<ReplaysRoutes>(router);
    if (!replay)
      return;
    Recorded r{
        "a.h5",
        std::make_shared<const std::vector<std::uint32_t>>(batch.token.begin(), batch.token.end()),
        Matrix<int>(tokens, router.choices()), Matrix<float>(tokens, router.choices())};
    for (Index t = 0; t < tokens; ++t) {
      for (Index j = 0; j < router.choices(); ++j) {
        r.expert(t, j) = int((t * 5 + j) % router.experts());
        r.weight(t, j) = float(t % 4) / 4;
      }
    }
    replay->replay(std::move(r));
  }
  // sum of c*y and the balance losses; the same draws every time
  double loss(MoeTape<double>& tape) {
    Rng rng(5);
    if (auto* replay = capability<ReplaysRoutes>(layer.router()))
      replay->rewind();
    Matrix<double> y(tokens, hidden);
    layer.forward({.batch = batch, .training = true, .rng = &rng, .gate = {.previous = &previous}},
                  std::as_const(x).view(), y.view(), tape);
    double sum = 0;
    for (Index i = 0; i < y.size(); ++i)
      sum += y.data()[i] * c.data()[i];
    for (std::size_t b = 0; b < tape.losses.size(); ++b)
      sum += layer.balancers()[b]->coefficient() * tape.losses[b];
    return sum;
  }
  // Checks every third number of m against its gradient; returns how many steps could be compared.
  int compare(double* m, Index size, const double* grad, const Routing& chosen,
              const std::string& name) {
    int tried = 0;
    for (Index i = 0; i < size; i += 3) {
      const double kept = m[i];
      const double h = 1e-5;
      double value[2];
      bool same = true;
      for (int side = 0; side < 2; ++side) {
        m[i] = kept + (side ? -h : h);
        MoeTape<double> tape(batch);
        value[side] = loss(tape);
        same = same && tape.routing.expert == chosen.expert &&
               tape.routing.computed() == chosen.computed();
      }
      m[i] = kept;
      if (!same)
        continue;
      ++tried;
      const double want = (value[0] - value[1]) / (2 * h);
      INFO(name << "[" << i << "]: backward " << grad[i] << ", differences " << want);
      REQUIRE(std::abs(grad[i] - want) <= 1e-6 * std::max(1.0, std::abs(want)));
    }
    return tried;
  }

  std::unique_ptr<Backend<double>> backend;
  MoeLayer<double> layer;
  Batch batch;
  Matrix<double> x, c, previous;
  std::vector<Parameter<double>*> parameters;
};

struct Points {
  int tried = 0, skipped = 0;
};

Points check(const LayerConfig& config, bool padded = false) {
  INFO(config.router << " / " << join(config.balance) << " / " << config.capacity << " / "
                     << name_of(config.activation));
  World w(config, padded);
  MoeTape<double> tape(w.batch);
  w.loss(tape);
  Rng rng(5);
  Matrix<double> dx(tokens, hidden);
  Matrix<double> dprevious(w.previous.rows(), w.previous.cols());
  w.layer.backward(
      {.batch = w.batch, .training = true, .rng = &rng, .gate = {.previous = &w.previous}}, tape,
      std::as_const(w.x).view(), std::as_const(w.c).view(), dx.view(), {.dprevious = &dprevious});
  int tried = w.compare(w.x.data(), w.x.size(), dx.data(), tape.routing, "x");
  const auto third = [](Index n) {
    return int((n + 2) / 3);
  };
  int possible = third(w.x.size()) + third(w.previous.size());
  tried +=
      w.compare(w.previous.data(), w.previous.size(), dprevious.data(), tape.routing, "previous");
  for (auto* p : w.parameters) {
    tried += w.compare(p->mutate().data, p->size(), p->grad().data, tape.routing, p->name());
    possible += third(p->size());
  }
  CHECK(tried > possible / 2);
  return {tried, possible - tried};
}

LayerConfig small() {
  return {.hidden = hidden, .width = 5, .experts = 6};
}

}  // namespace

TEST_CASE("every router's gradient agrees with central differences") {
  std::string all;
  for (const auto& entry : routers().entries()) {
    Points sum;
    for (const std::string& spec : split(entry.examples, ' ')) {
      LayerConfig c = small();
      c.router = spec;
      const auto router = make_router(spec, c.experts);
      if (!router->projections().empty() && !capability<Mixing>(*router))
        c.balance = {"switch:coef=0.3", "z:coef=0.1"};
      for (const Points p : {check(c), check(c, true)}) {
        sum.tried += p.tried;
        sum.skipped += p.skipped;
      }
    }
    all += concat("| `", entry.name, "` | ", sum.tried, " | ", sum.skipped, " |\n");
  }
  if (std::getenv("MOE_POINTS"))
    WARN("| router | points compared | skipped |\n|---|---|---|\n" << all);
}

TEST_CASE("every balancer's gradient agrees with central differences") {
  for (const auto& entry : balancers().entries()) {
    for (const std::string& spec : split(entry.examples, ' ')) {
      int fitting = 0;
      for (const char* router : {"softmax:k=2,bias=1", "sigmoid:k=2,bias=1", "noisy:k=2", "relu"}) {
        LayerConfig c = small();
        c.router = router;
        c.balance = {spec};
        const auto backend = make_reference<double>();
        try {
          MoeLayer<double>(c, *backend);
        } catch (const Error&) {
          continue;  // the two do not go together
        }
        ++fitting;
        check(c, true);
      }
      CHECK(fitting > 0);
    }
  }
}

TEST_CASE("every capacity rule's gradient agrees with central differences") {
  for (const auto& entry : capacities().entries()) {
    for (const std::string& spec : split(entry.examples, ' ')) {
      for (const char* router : {"softmax:k=2,norm=0", "sigmoid:k=2", "gshard:second=random"}) {
        LayerConfig c = small();
        c.router = router;
        c.capacity = spec;
        if (make_capacity(spec)->reroutes() &&
            !capability<Reroutes>(*make_router(router, c.experts))) {
          const auto backend = make_reference<double>();
          CHECK_THROWS_WITH(MoeLayer<double>(c, *backend), Catch::Contains("reroute"));
          continue;
        }
        check(c, true);
      }
    }
  }
}

TEST_CASE("every activation, with biases, shared experts and weights on the input") {
  for (const std::string& name : activation_names()) {
    LayerConfig c = small();
    c.activation = activation_of(name);
    c.expert_bias = c.router_bias = true;
    c.shared_width = 4;
    check(c, true);
    c.shared_gate = true;
    check(c);
    c.weight_on_input = true;
    check(c);
  }
}

TEST_CASE("jitter touches the router only and has the right gradient") {
  LayerConfig c = small();
  c.router = "softmax:k=2,norm=0,jitter=0.2,temperature=0.7";
  check(c);
}

TEST_CASE(
    "experts that compute nothing, experts of several widths and the gate residual have the right "
    "gradient") {
  LayerConfig c = small();
  c.types = expert_types_of("ffn*2;constant*2;copy;zero");
  c.balance = {"switch:coef=0.3"};
  c.zc_tau = 0.75;
  check(c, true);
  c.gate_residual = true;
  c.zc_exclude_zero = true;
  c.zc_capacity = true;
  c.capacity = "position:factor=0.9,weights=renormalize";
  check(c, true);
  c.capacity = "reroute:factor=0.8";
  c.router = "softmax:k=2,temperature=0.7";
  check(c);
  c.types = expert_types_of("ffn*6");
  c.zc_tau = 1;
  c.zc_exclude_zero = c.zc_capacity = false;
  c.widths = widths_of("5;1*3;2;4");
  check(c, true);
}

TEST_CASE("what pads a narrow expert stays zero and a copy is a copy") {
  LayerConfig c = small();
  c.router = "round_robin:k=1";
  c.types = expert_types_of("ffn*3;constant;copy;zero");
  c.widths = widths_of("5;2;1;5*3");
  World w(c, false);
  MoeTape<double> tape(w.batch);
  Matrix<double> y(tokens, hidden), dx(tokens, hidden);
  const Pass pass{.batch = w.batch};
  w.layer.forward(pass, std::as_const(w.x).view(), y.view(), tape);
  w.layer.backward(pass, tape, std::as_const(w.x).view(), std::as_const(w.c).view(), dx.view());
  for (Index t = 0; t < tokens; ++t) {
    for (Index h = 0; h < hidden; ++h) {
      if (t % 6 == 4)
        CHECK((y(t, h) == w.x(t, h) && dx(t, h) == w.c(t, h)));
      if (t % 6 == 5)
        CHECK((y(t, h) == 0 && dx(t, h) == 0));
    }
  }
  auto& up = w.layer.expert_parameters().up;
  for (int e = 0; e < c.experts; ++e) {
    for (Index r = 0; r < 5; ++r) {
      for (Index h = 0; h < hidden; ++h) {
        if (r >= c.width_of(e))
          CHECK((up.value()(e * 5 + r, h) == 0 && up.grad()(e * 5 + r, h) == 0));
      }
    }
  }
  CHECK(list_text(c.types) == "ffn*3;constant;copy;zero");
  CHECK(list_text(c.widths) == "5;2;1;5*3");
}

TEST_CASE("what cannot be is refused in a sentence") {
  CHECK_THROWS_WITH(make_router("softmax:k=9", 8), "softmax: k=9 is more than the 8 experts");
  CHECK_THROWS_WITH(make_router("sofmax", 8), "no router named 'sofmax'");
  CHECK_THROWS_WITH(make_router("softmax:kk=2", 8), "softmax has no option 'kk'");
  CHECK_THROWS_WITH(make_router("sigmoid:k=2,groups=3", 8),
                    "sigmoid: 8 experts do not split into 3 equal groups");
  LayerConfig c = small();
  c.balance = {"bias"};
  const auto backend = make_reference<double>();
  CHECK_THROWS_WITH(MoeLayer<double>(c, *backend), Catch::Contains("has none"));
  const auto refused = [&](const LayerConfig& config, const char* why) {
    CHECK_THROWS_WITH(MoeLayer<double>(config, *backend), Catch::Contains(why));
  };
  c = small();
  c.router = "soft";
  c.balance = {"switch"};
  refused(c, "makes no discrete choices");
  c = small();
  c.router = "soft";
  c.capacity = "position";
  refused(c, "bounds the load of experts itself");
  c = small();
  c.types = expert_types_of("ffn*4;zero");
  refused(c, "expert_types names 5 experts and the layer has 6");
  c = small();
  c.widths = widths_of("5*7");
  refused(c, "widths names 7 experts and the layer has 6");
  c = small();
  c.router = "hash";
  c.gate_residual = true;
  refused(c, "gate_residual=1");
  c = small();
  c.router = "top_p:p=0.5";
  c.types = expert_types_of("ffn*5;zero");
  c.zc_exclude_zero = true;
  refused(c, "zc_exclude_zero=1");
  CHECK_THROWS_WITH(expert_types_of("ffn*3;ghost"), "no type of expert named 'ghost'");
  CHECK_THROWS_WITH(widths_of("5;0"), Catch::Contains("not a number of 1 or more"));
}
