// Layers of many experts, where the gradient of the weights goes to the chosen experts' rows of the
// router's matrix alone. A loss of next to no weight makes the same layer go the long way, through
// the scores of all experts, which central differences hold: the gradients must be the same.
#include <catch2/catch.hpp>
#include <cmath>

#include "lib/backend/reference.h"
#include "lib/core/rng.h"
#include "lib/layer/moe_layer.h"
#include "lib/router/router.h"
#include "tests/layer/padded.h"

using namespace moe;
using moe::test::padded_batch;

namespace {

constexpr Index tokens = 20, hidden = 5;
constexpr int experts = 512;

LayerConfig config_of(const std::string& router) {
  LayerConfig c{.hidden = hidden, .width = 2, .experts = experts};
  c.router = router;
  return c;
}

struct Gradients {
  std::vector<Matrix<double>> of;  // by x, then by every parameter
  Routing routing;
};

void draw(Rng& rng, std::span<double> numbers) {
  for (double& v : numbers)
    v = rng.normal();
}
Matrix<double> drawn(Rng& rng) {
  Matrix<double> m(tokens, hidden);
  draw(rng, m.flat());
  return m;
}
Gradients gradients_of(const LayerConfig& config) {
  const auto backend = make_reference<double>();
  MoeLayer<double> layer(config, *backend);
  Rng rng(2);
  std::vector<Parameter<double>*> parameters;
  layer.collect(parameters);
  for (auto* p : parameters) {
    p->want_grad(*backend);
    draw(rng, p->mutate().flat());
  }
  draw(rng, layer.router().correction_bias());
  const Batch batch = padded_batch(tokens, 3);
  const Matrix<double> x = drawn(rng);
  const Matrix<double> dy = drawn(rng);
  Matrix<double> y(tokens, hidden);
  Gradients out{{Matrix<double>(tokens, hidden)}, {}};
  const Pass pass{.batch = batch, .training = true, .rng = &rng};
  MoeTape<double> tape(batch);
  layer.forward(pass, x.view(), y.view(), tape);
  layer.backward(pass, tape, x.view(), dy.view(), out.of[0].view());
  out.routing = tape.routing;
  for (auto* p : parameters) {
    const View<const double> grad = p->grad();
    Matrix<double> g = Matrix<double>::unset(grad.rows, grad.cols);
    std::ranges::copy(grad.flat(), g.flat().begin());
    out.of.push_back(std::move(g));
  }
  return out;
}

void check_same(const Gradients& a, const Gradients& b) {
  REQUIRE(a.routing.expert == b.routing.expert);
  REQUIRE(a.of.size() == b.of.size());
  for (std::size_t i = 0; i < a.of.size(); ++i) {
    INFO("gradient " << i << ", the first is by the input");
    for (Index n = 0; n < a.of[i].size(); ++n) {
      const double want = b.of[i].data()[n];
      REQUIRE(std::abs(a.of[i].data()[n] - want) <= 1e-12 * std::max(1.0, std::abs(want)));
    }
  }
}

// Rows of the router's matrix, the first parameter, that have a gradient.
int moved_rows(const Gradients& g) {
  int n = 0;
  for (int e = 0; e < experts; ++e)
    n += std::ranges::any_of(g.of[1].row(e), [](double v) { return v != 0; });
  return n;
}

void check_short_way(LayerConfig config) {
  INFO(config.router << " capacity=" << config.capacity);
  const Gradients some = gradients_of(config);
  config.balance = {"z:coef=1e-30"};
  const Gradients all = gradients_of(config);
  check_same(some, all);
  CHECK(moved_rows(some) <= tokens * some.routing.choices());
  CHECK(moved_rows(all) == experts);
}

}  // namespace

TEST_CASE("of many experts the chosen ones get the gradient that the long way gives") {
  for (const char* router :
       {"softmax:k=2", "softmax:k=3,temperature=0.5,scale=2.5", "sigmoid:k=2",
        "sigmoid:k=4,norm=0,bias=1", "sqrtsoftplus:k=2", "sigmoid:k=2,groups=8,topk_groups=3"})
    check_short_way(config_of(router));
  LayerConfig cut = config_of("softmax:k=2");
  cut.capacity = "position:factor=1,weights=renormalize";
  check_short_way(cut);
  LayerConfig scaled = config_of("softmax:k=2");
  scaled.expert_scale = true;
  check_short_way(scaled);
}

TEST_CASE("a balancer without a loss leaves the short way, whatever moves other logits does not") {
  LayerConfig c = config_of("sigmoid:k=2,bias=1");
  c.balance = {"bias"};
  CHECK(moved_rows(gradients_of(c)) <= 2 * tokens);
  c = config_of("softmax:k=2,norm=0");
  CHECK(moved_rows(gradients_of(c)) == experts);
  c = config_of("softmax:k=2");
  c.capacity = "reroute:factor=1";
  CHECK(moved_rows(gradients_of(c)) == experts);
  c.capacity = "none";
  c.balance = {"switch"};
  CHECK(moved_rows(gradients_of(c)) == experts);
}
