// What balancers promise, by hand and by what they do to loads; the mistakes that are known of
// other systems (a loss that goes to zero with the scores, counts of another assignment, counts
// after drops, a softmax taken twice, unsorted first choices, drops that are not by position), each
// with a case that would show it here.
#include <catch2/catch.hpp>

#include <cmath>
#include <numeric>
#include <optional>

#include "lib/balance/balancer.h"
#include "lib/balance/conventions.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/layer/moe_layer.h"
#include "lib/layer/router_product.h"
#include "lib/router/capacity.h"
#include "lib/router/router.h"

using namespace moe;

namespace {

struct Routed {  // a router and a balancer on given logits
  Routed(const std::string& router_spec, Matrix<double> z, std::vector<Index> start = {})
      : router(make_router(router_spec, int(z.cols()))), logits(std::move(z)) {
    batch.token.assign(std::size_t(logits.rows()), 0);
    batch.start = start.empty() ? std::vector<Index>{0, logits.rows()} : std::move(start);
  }
  void route() {
    in.emplace(RouterInput{.scores = {logits}, .batch = batch, .training = true});
    routing = router->route(*in);
    p = router->probabilities(*in, routing);
  }
  double loss(const std::string& spec, Matrix<double>* dz = nullptr) {
    route();
    Matrix<double> dprob(p.rows(), p.cols());
    Matrix<double> dlogits(p.rows(), p.cols());
    Matrix<double> dnoise;
    Matrix<double> dweight;
    const double value = make_balancer(spec)->loss({*in, routing, p, int(p.cols()), {}, {}}, 1,
                                                   {dprob, dlogits, dnoise, dweight});
    std::vector<Matrix<double>> out{dlogits};
    router->backward(*in, routing, {}, dprob, out);
    if (dz)
      *dz = out[0];
    return value;
  }
  std::vector<std::int64_t> counts() {
    route();
    return count_experts(routing.expert, int(logits.cols()));
  }

  std::unique_ptr<Router> router;
  Matrix<double> logits, p;
  Batch batch;
  std::optional<RouterInput> in;
  Routing routing;
};

Matrix<double> skewed(Index tokens, Index experts, double skew, std::uint64_t seed = 4) {
  Matrix<double> z(tokens, experts);
  Rng rng(seed);
  for (Index t = 0; t < tokens; ++t) {
    for (Index e = 0; e < experts; ++e)
      z(t, e) = rng.normal() - skew * std::log(double(e + 1));
  }
  return z;
}

Matrix<double> rows(std::initializer_list<std::initializer_list<double>> all) {
  Matrix<double> z(Index(all.size()), Index(all.begin()->size()));
  double* at = z.data();
  for (const auto& row : all)
    at = std::copy(row.begin(), row.end(), at);
  return z;
}

}  // namespace

TEST_CASE("the selection bias moves against the load, by the sign or with the mean taken out") {
  for (const bool center : {false, true}) {
    const auto router = make_router("sigmoid:k=2,bias=1", 5);
    const auto bias = make_balancer(center ? "bias:rate=0.25,center=1" : "bias:rate=0.25");
    // mean 4: down, stay, stay, up, up
    bias->stepped(*router, std::vector<std::int64_t>{9, 4, 4, 3, 0}, 10);
    const std::vector<double> move = {-0.25, 0, 0, 0.25, 0.25};
    for (std::size_t e = 0; e < 5; ++e)
      CHECK(router->correction_bias()[e] == Approx(move[e] - (center ? 0.05 : 0)).margin(1e-15));
  }
}

TEST_CASE("quantile balancing evens a skewed load in a few steps and keeps its bias centred") {
  for (const std::string spec : {"softmax:k=2,bias=1,bias_on=logit", "softmax:k=2,bias=1",
                                 "sigmoid:k=3,bias=1", "sigmoid:k=1,bias=1,bias_on=logit"}) {
    Routed r(spec, skewed(512, 8, 1.5));
    const auto balance = make_balancer("quantile");
    const double mean = 512.0 * r.router->choices() / 8;
    CHECK(double(std::ranges::max(r.counts())) > 1.5 * mean);
    for (int step = 0; step < 60; ++step) {
      r.route();
      balance->take(balance->seen(*r.router, {*r.in, r.routing, r.p, 8, {}, {}}));
      balance->stepped(*r.router, {}, 0);
    }
    INFO(spec << ": largest load " << std::ranges::max(r.counts()) << " of " << mean);
    CHECK(double(std::ranges::max(r.counts())) < 1.05 * mean);
    const auto beta = r.router->correction_bias();
    CHECK(std::accumulate(beta.begin(), beta.end(), 0.0) == Approx(0).margin(1e-12));
  }
}

TEST_CASE("one step of quantile balancing by hand") {
  // k=1, T=4, E=2, so m=2. Thresholds (second largest z): 1 0 2 1. z - threshold: expert 0: 2 3 2
  // 0, expert 1: 0 0 0 1. Third largest: 2 and 0. The bias is minus that, centred: -1 and 1.
  Routed r("softmax:k=1,bias=1,bias_on=logit", rows({{3, 1}, {3, 0}, {4, 2}, {1, 2}}));
  r.route();
  const auto balance = make_balancer("quantile");
  balance->take(balance->seen(*r.router, {*r.in, r.routing, r.p, 2, {}, {}}));
  balance->stepped(*r.router, {}, 0);
  CHECK(r.router->correction_bias()[0] == -1);
  CHECK(r.router->correction_bias()[1] == 1);
  const auto refused = [](const std::string& router, std::vector<std::string> balance_specs,
                          const char* why) {
    const auto backend = make_reference<double>();
    CHECK_THROWS_WITH(MoeLayer<double>({.hidden = 4,
                                        .width = 4,
                                        .experts = 4,
                                        .router = router,
                                        .balance = std::move(balance_specs)},
                                       *backend),
                      Catch::Contains(why));
  };
  refused("softmax:k=2", {"quantile"}, "has none");
  refused("sigmoid:k=2,bias=1,groups=2,topk_groups=1", {"quantile"}, "does not rank all experts");
  refused("softmax:k=4,bias=1", {"quantile"}, "takes all 4 experts");
  refused("softmax:k=2,bias=1", {"quantile", "bias"}, "both move");
}

TEST_CASE("the loss of sigmoid scores does not fall because all scores are small") {
  Matrix<double> z = skewed(64, 6, 1);
  Matrix<double> low = z;
  for (double& v : low.flat())
    v -= 30;  // sigmoid(-30) = 1e-13, the same order
  Routed a("sigmoid:k=2", z);
  Routed b("sigmoid:k=2", low);
  CHECK(a.loss("switch:coef=1") > 1.05);
  CHECK(b.loss("switch:coef=1") > 1.05);
  // sums below the 1e-20 of the definition: what is pushed there must get no reward in f64 either
  for (double& v : low.flat())
    v -= 50;
  Routed c("sigmoid:k=2", low);
  Matrix<double> dz;
  c.loss("switch:coef=1", &dz);
  for (const double v : dz.flat())
    CHECK(std::isfinite(v));
}

TEST_CASE(
    "counts are of the choice that was made, counts=unbiased is the other assignment, by name") {
  Routed r("sigmoid:k=1,bias=1", rows({{2, 0, 0}, {2, 0, 0}, {2, 0, 0}}));
  r.router->correction_bias()[2] = 5;  // everyone now goes to expert 2
  Matrix<double> dz;
  const double s = 1 / (1 + std::exp(-2.0));
  const double low = 0.5 / (s + 1);
  const double high = s / (s + 1);
  CHECK(r.loss("switch:coef=1", &dz) == Approx(3 * low).epsilon(1e-12));
  CHECK((dz(0, 2) > 0 && dz(0, 0) < 0));  // pushes down the one that is loaded
  CHECK(r.loss("switch:coef=1,counts=unbiased", &dz) == Approx(3 * high).epsilon(1e-12));
  CHECK((dz(0, 0) > 0 && dz(0, 2) < 0));
}

TEST_CASE("drops do not change the loss unless counts=post_drop asks for it") {
  const auto value = [](const std::string& capacity, const std::string& balance) {
    const auto backend = make_reference<double>();
    MoeLayer<double> layer({.hidden = 4,
                            .width = 4,
                            .experts = 4,
                            .router = "softmax:k=1,norm=0",
                            .capacity = capacity,
                            .balance = {balance}},
                           *backend);
    std::vector<Parameter<double>*> all;
    layer.collect(all);
    Rng rng(3);
    for (auto* p : all) {
      for (double& v : p->mutate().flat())
        v = rng.normal();
    }
    Batch batch;
    batch.token.assign(16, 0);
    batch.start = {0, 16};
    Matrix<double> x(16, 4);
    Matrix<double> y(16, 4);
    for (double& v : x.flat())
      v = rng.normal();
    MoeTape<double> tape(batch);
    layer.forward({.batch = batch}, std::as_const(x).view(), y.view(), tape);
    return tape.losses[0];
  };
  for (const std::string scope : {"batch", "sequence"}) {
    CHECK(value("position:factor=0.5", "switch:scope=" + scope) ==
          value("none", "switch:scope=" + scope));
    CHECK(value("position:factor=0.5", "switch:counts=post_drop,scope=" + scope) <
          value("none", "switch:scope=" + scope));
  }
}

TEST_CASE("probabilities are softmax of the logits once, and first choices are first") {
  Matrix<double> z = rows({{4, 0, 1}, {4, 1, 0}, {0, 4, 1}, {5, 4, 0}});
  Routed r("softmax:k=2", z);
  r.route();
  for (Index t = 0; t < 4; ++t) {
    for (Index e = 0; e < 3; ++e) {
      CHECK(r.p(t, e) ==
            Approx(std::exp(z(t, e)) / (std::exp(z(t, 0)) + std::exp(z(t, 1)) + std::exp(z(t, 2))))
                .epsilon(1e-12));
    }
  }
  CHECK(r.routing.expert(3, 0) == 0);
  double p0 = 0;
  double p1 = 0;
  for (Index t = 0; t < 4; ++t) {
    p0 += r.p(t, 0) / 4;
    p1 += r.p(t, 1) / 4;
  }
  CHECK(r.loss("switch:coef=1,counts=top1") == Approx(3 * (0.75 * p0 + 0.25 * p1)).epsilon(1e-12));
}

TEST_CASE("drops by position are by position where every weight is the same") {
  Routing r;
  r.expert = Matrix<int>(6, 1, 0);
  r.weight = Matrix<double>(6, 1, 1.0);
  Batch batch;
  batch.token.assign(6, 0);
  batch.start = {0, 6};
  const RouterInput in{.batch = batch};
  const auto router = make_router("softmax:k=1", 2);
  make_capacity("position:factor=1")->apply(r, in, *router);  // room for 3
  for (Index t = 0; t < 6; ++t)
    CHECK(r.kept(t, 0) == (t < 3 ? 0 : -1));
}

TEST_CASE("the gradient reaches the router with the coefficient that was given") {
  Matrix<double> one, ten, none;
  Routed r("softmax:k=2", skewed(64, 6, 1));
  r.loss("switch:coef=1", &one);
  r.loss("switch:coef=10", &ten);
  r.loss("switch:coef=0", &none);
  double largest = 0;
  for (Index i = 0; i < one.size(); ++i) {
    CHECK(ten.data()[i] == Approx(10 * one.data()[i]).margin(1e-15));
    CHECK(none.data()[i] == 0);
    largest = std::max(largest, std::abs(one.data()[i]));
  }
  // E/(k T^2) p_j (n_j - sum n p) of one entry
  const auto n = r.counts();
  double mean = 0;
  for (std::size_t e = 0; e < 6; ++e)
    mean += double(n[e]) * r.p(7, Index(e));
  CHECK(one(7, 2) ==
        Approx(6.0 / (2 * 64 * 64) * r.p(7, 2) * (double(n[2]) - mean)).epsilon(1e-10));
  CHECK(largest > 1e-4);
}

TEST_CASE("what systems report for the same batch") {
  RoutedBatch even;  // two layers, each token its own two experts, all logits of the chosen alike
  even.k = 2;
  even.start = {0, 4, 8};
  for (int l = 0; l < 2; ++l) {
    Matrix<double>& z = even.logits.emplace_back(8, 4);
    for (Index t = 0; t < 8; ++t) {
      for (Index j = 0; j < 2; ++j)
        z(t, (t + j) % 4) = double(40 - j);
    }
  }
  for (const Convention& c : balance_conventions(even)) {
    INFO(c.name);
    CHECK(c.value == Approx(c.at_balance).epsilon(0.02));
  }
  RoutedBatch skew;
  skew.k = 2;
  skew.start = {0, 20, 64};
  for (const double s : {1.0, 2.0})
    skew.logits.push_back(skewed(64, 6, s, std::uint64_t(s)));
  const auto all = balance_conventions(skew);
  Routed a("softmax:k=2", skew.logits[0], skew.start);
  Routed b("softmax:k=2", skew.logits[1], skew.start);
  const auto ours = [&](const char* spec) {
    return a.loss(spec) + b.loss(spec);
  };
  const auto value = [&](const std::string& name) {
    return std::ranges::find(all, name, &Convention::name)->value;
  };
  CHECK(value("switch, layers added") == Approx(ours("switch")));
  CHECK(value("switch, mean of layers") == Approx(ours("switch") / 2));
  CHECK(value("first choices") == Approx(ours("switch:counts=top1")));
  CHECK(value("each sequence") == Approx(ours("switch:scope=sequence")));
  Routed c("sigmoid:k=2", skew.logits[0], skew.start);
  Routed d("sigmoid:k=2", skew.logits[1], skew.start);
  CHECK(value("sigmoid, each sequence") == Approx(c.loss("switch:scope=sequence,counts=unbiased") +
                                                  d.loss("switch:scope=sequence,counts=unbiased")));
  // flatter: reports balance where there is none
  CHECK(value("layers stacked, softmax twice") < value("layers stacked"));
  CHECK_THROWS_WITH(balance_conventions({skew.logits, skew.start, 7}), Catch::Contains("k=7"));
}

TEST_CASE("the loss over pairs that articles print is 2 for any routing and moves no logit") {
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    Rng rng(seed);
    Matrix<double> z(12, 5);
    for (double& v : z.flat())
      v = 3 * rng.normal();
    Routed r("softmax:k=2", z);
    Matrix<double> dz;
    CHECK(r.loss("pairwise:coef=0.7", &dz) == Approx(2));
    for (const double v : dz.flat())
      CHECK(std::abs(v) < 1e-12);
    // Switch's loss of the same routing does both
    Matrix<double> moved;
    CHECK(r.loss("switch:coef=0.7", &moved) > 1.01);
    CHECK(std::ranges::any_of(moved.flat(), [](double v) { return std::abs(v) > 1e-3; }));
  }
}
