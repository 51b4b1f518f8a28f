// Routing on a device has one definition, and it is what the routers of lib/router do: the same
// choices, weights, probabilities and gradients for every way to choose.
#include <catch2/catch.hpp>

#include <cmath>

#include "lib/backend/on_device.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"
#include "lib/router/device_rule.h"
#include "lib/router/excludes_experts.h"
#include "lib/router/router.h"
#include "lib/router/scores.h"
#include "tests/layer/padded.h"

using namespace moe;
using moe::test::padded_batch;

namespace {

struct Way {
  std::string spec;
  TopK how;
};

// Of a router that is no DeviceRule: none.
std::optional<TopK> rule_of(const Router& router) {
  const auto* rule = capability<DeviceRule>(router);
  return rule ? rule->top_k() : std::nullopt;
}

constexpr int experts = 12;
constexpr Index tokens = 60;

Matrix<double> noise(Rng& rng, Index rows, Index cols, bool halves) {
  Matrix<double> m(rows, cols);
  for (double& v : m.flat())
    v = halves ? double(rng.below(9)) / 2 - 2 : 4 * rng.uniform() - 2;
  return m;
}

// What both ways start from: scores, and gradients of weights and of summed probabilities.
struct Given {
  Matrix<double> z, dweight, dprob;
};

// What a way computes of it.
struct Result {
  Matrix<int> expert;
  Matrix<double> weight;
  Matrix<double> seen;  // probabilities, squared logsumexp, entropy of each token
  Matrix<double> dz;
};

// The router of lib/router, and the z loss (coefficient 0.3) by hand.
Result by_router(const Way& w, Router& router, const Given& given) {
  const Batch batch = padded_batch(tokens, 7);
  RouterInput in{.scores = {given.z}, .batch = batch};
  for (double& v : in.scores[0].flat())
    v /= w.how.temperature;
  const Routing routing = router.route(in);
  const Matrix<double> probability = router.probabilities(in, routing);
  Matrix<double> all(tokens, experts);
  for (Index t = 0; t < tokens; ++t)
    std::ranges::copy(given.dprob.row(0), all.row(t).begin());
  std::vector<Matrix<double>> dz{Matrix<double>(tokens, experts)};
  router.backward(in, routing, given.dweight, all, dz);
  Result out{routing.expert, routing.weight, Matrix<double>(tokens, experts + 2), dz[0]};
  for (Index t = 0; t < tokens; ++t) {
    const double lse = batch.is_valid(t) ? log_sum_exp(in.scores[0].row(t)) : 0;
    double entropy = 0;
    for (Index e = 0; e < experts; ++e) {
      const double p = probability(t, e);
      const double by_square =
          batch.is_valid(t) ? 0.6 * lse * std::exp(in.scores[0](t, e) - lse) : 0;
      out.seen(t, e) = p;
      out.dz(t, e) = (out.dz(t, e) + by_square) / w.how.temperature;
      entropy -= p > 0 ? p * std::log(p) : 0;
    }
    out.seen(t, experts) = lse * lse;
    out.seen(t, experts + 1) = entropy;
  }
  return out;
}

// The definition of the operations on a device.
Result by_definition(const Way& w, Router& router, const Given& given) {
  Matrix<int> valid(1, tokens, 1);
  valid(0, 7) = 0;
  const auto bias = router.correction_bias();
  const View<const double> beta{bias.data(), bias.empty() ? 0 : 1, Index(bias.size())};
  Result out{Matrix<int>(tokens, w.how.k), Matrix<double>(tokens, w.how.k),
             Matrix<double>(tokens, experts + 2), Matrix<double>(tokens, experts)};
  const auto definition = host_definition<double>();
  definition->top_k(given.z.view(), w.how, beta, std::as_const(valid).view(), out.expert.view(),
                    out.weight.view(), out.seen.view());
  definition->top_k_backward(given.z.view(), w.how, std::as_const(valid).view(),
                             std::as_const(out.expert).view(), given.dweight.view(),
                             given.dprob.view(), 0.3, out.dz.view());
  return out;
}

void compare(const Way& w, bool halves) {
  INFO(w.spec << (halves ? " with ties" : ""));
  Rng rng(3);
  const auto router = make_router(w.spec, experts);
  REQUIRE(rule_of(*router));
  CHECK(*rule_of(*router) == w.how);
  for (double& b : router->correction_bias())
    b = double(rng.below(7)) / 16;
  const Matrix<double> z = noise(rng, tokens, experts, halves);
  const Matrix<double> dweight = noise(rng, tokens, w.how.k, false);
  const Given given{z, dweight, noise(rng, 1, experts, false)};
  const Result want = by_router(w, *router, given);
  const Result got = by_definition(w, *router, given);
  CHECK(got.expert == want.expert);
  for (Index t = 0; t < tokens; ++t) {
    for (Index j = 0; j < w.how.k; ++j)
      CHECK(got.weight(t, j) == Approx(want.weight(t, j)).epsilon(1e-13));
    for (Index e = 0; e < experts; ++e) {
      CHECK(got.seen(t, e) == Approx(want.seen(t, e)).epsilon(1e-13));
      CHECK(got.dz(t, e) == Approx(want.dz(t, e)).epsilon(1e-11).margin(1e-13));
    }
    CHECK(got.seen(t, experts) == Approx(want.seen(t, experts)));
    CHECK(got.seen(t, experts + 1) == Approx(want.seen(t, experts + 1)));
  }
}

}  // namespace

TEST_CASE("routing on a device is defined as the routers softmax and sigmoid do it") {
  const std::vector<Way> ways = {
      {"softmax:k=2", {.k = 2}},
      {"softmax:k=1,norm=0", {.k = 1, .norm = false}},
      {"softmax:k=12,scale=1.5", {.k = 12, .scale = 1.5}},
      {"softmax:k=3,temperature=0.7", {.k = 3, .temperature = 0.7}},
      {"softmax:k=2,bias=1", {.k = 2}},
      {"softmax:k=2,bias=1,bias_on=logit", {.k = 2, .bias_on_logit = true}},
      {"softmax:k=3,groups=4,topk_groups=2", {.k = 3, .groups = 4, .topk_groups = 2}},
      {"softmax:k=3,groups=4,topk_groups=2,group_score=top2_sum,bias=1",
       {.k = 3, .groups = 4, .topk_groups = 2, .top2_sum = true}},
      {"softmax:k=6,groups=3,group_mode=one", {.k = 6, .groups = 3}},
      {"sigmoid:k=2", {.sigmoid = true, .k = 2}},
      {"sigmoid:k=1,norm=0,scale=2", {.sigmoid = true, .k = 1, .norm = false, .scale = 2}},
      {"sigmoid:k=4,bias=1,groups=3,topk_groups=2,scale=2.5",
       {.sigmoid = true, .k = 4, .scale = 2.5, .groups = 3, .topk_groups = 2, .top2_sum = true}},
      {"sigmoid:k=4,bias=1,bias_on=logit,groups=3,topk_groups=1,group_score=max",
       {.sigmoid = true, .k = 4, .bias_on_logit = true, .groups = 3, .topk_groups = 1}},
      {"sigmoid:k=4,groups=2,group_mode=one,bias=1", {.sigmoid = true, .k = 4, .groups = 2}},
  };
  for (const Way& w : ways) {
    for (const bool halves : {false, true})
      compare(w, halves);
  }
}

TEST_CASE("a router says its rule for devices only where the rule is all of it") {
  for (const auto& e : routers().entries()) {
    if (e.name == "softmax" || e.name == "sigmoid")
      continue;
    for (const std::string& spec : split(e.examples, ' ')) {
      INFO(spec);
      std::unique_ptr<Router> made;
      CHECK_NOTHROW(made = make_router(spec, 6));
      CHECK((made && !rule_of(*made)));
    }
  }
  const auto excluding = make_router("softmax:k=2", 4);
  exclude_experts(*excluding, {0, 1, 0, 0});
  CHECK_FALSE(rule_of(*excluding));
  CHECK(rule_of(*make_router("softmax:k=2,groups=64", 128)));
  CHECK_FALSE(rule_of(*make_router("softmax:k=2,groups=128", 256)));
}
