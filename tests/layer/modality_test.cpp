// Experts by modality: who may choose whom, and the losses that keep modalities apart, by central
// differences.
#include <catch2/catch.hpp>
#include <cmath>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/modality.h"
#include "lib/core/rng.h"
#include "lib/router/router.h"

using namespace moe;

namespace {

constexpr Index tokens = 20;

// A picture, its question, a sound.
Batch rows_of_three() {
  Batch b;
  b.token.assign(tokens, 0);
  b.start = {0, tokens};
  for (Index t = 0; t < tokens; ++t)
    b.modality.push_back(t < 8 ? modality::image : t < 15 ? modality::text : modality::audio);
  b.valid.assign(tokens, 1);
  b.valid[2] = 0;
  return b;
}

Matrix<double> drawn(Index cols, std::uint64_t seed) {
  Rng rng(seed);
  Matrix<double> z(tokens, cols);
  for (double& v : z.flat())
    v = 1.5 * rng.normal();
  return z;
}

struct Loss {
  double value = 0;
  Matrix<double> dz;
};

Loss loss_of(Router& router, const std::string& balancer, const Batch& batch,
             const Matrix<double>& z) {
  const RouterInput in{.scores = {z}, .batch = batch};
  const Routing r = router.route(in);
  const Matrix<double> p = router.probabilities(in, r);
  Matrix<double> dprob(tokens, z.cols());
  Matrix<double> dlogits(tokens, z.cols());
  Matrix<double> none;
  const auto made = make_balancer(balancer);
  Loss out;
  out.value = made->coefficient() *
              made->loss({in, r, p, router.experts(), {}, {}}, 1, {dprob, dlogits, none, none});
  std::vector<Matrix<double>> dscores{dlogits};
  router.backward(in, r, {}, dprob, dscores);
  out.dz = dscores[0];
  return out;
}

void check_slope(const std::string& spec, const std::string& balancer) {
  INFO(spec << " with " << balancer);
  const auto router = make_router(spec, 8);
  const Batch batch = rows_of_three();
  Matrix<double> z = drawn(8, 5);
  const Loss here = loss_of(*router, balancer, batch, z);
  constexpr double step = 1e-6;
  double largest = 0;
  for (Index i = 0; i < z.size(); ++i) {
    const double before = z.data()[i];
    z.data()[i] = before + step;
    const double up = loss_of(*router, balancer, batch, z).value;
    z.data()[i] = before - step;
    const double down = loss_of(*router, balancer, batch, z).value;
    z.data()[i] = before;
    CHECK(here.dz.data()[i] == Approx((up - down) / (2 * step)).margin(2e-8));
    largest = std::max(largest, std::abs(here.dz.data()[i]));
  }
  CHECK(largest > 1e-3);
}

}  // namespace

TEST_CASE("a row chooses among the experts of its modality and those that all share") {
  const Batch batch = rows_of_three();
  const auto spec =
      GENERATE(as<std::string>{}, "softmax:k=2,experts=text:0-3/image:4-6/all:7",
               "softmax:k=2,bias=1,experts=text:0-3/image:4-6/all:6-7",
               "sigmoid:k=2,bias=1,bias_on=logit,experts=text:0-3/image:4-6/audio:5-6/all:7",
               "cosine:k=2,experts=text:0-3/image:4-6/audio:2-3/all:7");
  INFO(spec);
  const bool few = spec.find("audio") == spec.npos && spec.find("6-7") == spec.npos;
  const auto router = make_router(spec, 8);
  for (double& b : router->correction_bias())
    b = 3;  // far above any score: it must not let a barred expert in
  const RouterInput in{.scores = {drawn(8, 3)}, .batch = batch};
  if (few) {
    CHECK_THROWS_WITH(router->route(in),
                      "a row of audio may choose 1 of the 8 experts and needs 2");
    return;
  }
  const Routing r = router->route(in);
  for (Index t = 0; t < tokens; ++t) {
    double weight = 0;
    for (Index j = 0; j < 2; ++j) {
      const int e = r.expert(t, j);
      weight += r.weight(t, j);
      if (t == 2) {
        CHECK(e == -1);
      } else if (batch.modality[std::size_t(t)] == modality::text) {
        CHECK((e <= 3 || e >= 6));
      } else if (batch.modality[std::size_t(t)] == modality::image) {
        CHECK(e >= 4);
      }
    }
    CHECK(weight == Approx(t == 2 ? 0 : 1));
    double sum = 0;
    for (int e = 0; e < 8; ++e) {
      sum += r.score(t, e);
      if (r.barred(t, e))
        CHECK(r.score(t, e) == 0);
    }
    if (spec.starts_with("softmax"))
      CHECK(sum == Approx(t == 2 ? 0 : 1));
  }
}

TEST_CASE("what experts= cannot mean is refused in a sentence") {
  const auto refused = [](const std::string& spec, const std::string& why) {
    INFO(spec);
    CHECK_THROWS_WITH(make_router(spec, 8), Catch::Contains(why));
  };
  refused("softmax:k=2,experts=text:0-3", "leaves expert 4 to nobody");
  refused("softmax:k=2,experts=text:0-8", "there are no experts 0-8 among 8");
  refused("softmax:k=2,experts=smell:0-7", "'smell' is not a modality");
  refused("softmax:k=2,experts=text", "'text' is not MODALITY:VALUE");
  refused("softmax:k=2,experts=text:a-b", "'a-b' is not a range of expert ids");
  refused("softmax:k=3,experts=text:0-1/image:2-7", "rows of text may choose among 2 experts");
  refused("softmax:k=2,groups=2,experts=text:0-3/image:4-7", "both limit the choice");
  refused("expert_choice:experts=text:0-3/image:4-7", "a softmax over all experts");
  refused("expert_choice:score=sigmoid,experts=text:0-3/all:4-7", "expert 4 is of 4 modalities");
  CHECK_THROWS_WITH(make_balancer("switch:by=modality,scope=sequence"),
                    Catch::Contains("does not keep their modalities apart"));
  CHECK_THROWS_WITH(make_balancer("limoe:least=0.5"), Catch::Contains("must be at least 1"));
}

TEST_CASE("expert choice by modality: every expert takes its share of its own rows") {
  const Batch batch = rows_of_three();
  const auto router =
      make_router("expert_choice:factor=1,score=sigmoid,experts=text:0-2/image:3-5/audio:6-7", 8);
  const Routing r = router->route({.scores = {drawn(8, 9)}, .batch = batch});
  const std::vector<std::int64_t> n = count_experts(r.expert, 8);
  CHECK(n == std::vector<std::int64_t>{3, 3, 3, 3, 3, 3, 3, 3});  // of 7, 7 and 5 rows
  for (Index t = 0; t < tokens; ++t) {
    for (const int e : r.expert.row(t)) {
      if (e < 0)
        continue;
      const int owner = e <= 2 ? modality::text : e <= 5 ? modality::image : modality::audio;
      CHECK(owner == batch.modality[std::size_t(t)]);
      CHECK(t != 2);
    }
  }
}

TEST_CASE("losses by modality have the slopes of central differences") {
  for (const std::string router :
       {"softmax:k=2", "softmax:k=2,experts=text:0-3/image:2-6/audio:5-6/all:7"}) {
    check_slope(router, "switch:coef=1,by=modality,factors=text:1/image:0.5/audio:2");
    check_slope(router, "limoe:local=1,global=text:0.7/image:2,least=text:6/image:4");
    check_slope(router, "z:coef=1");
    check_slope(router, "entropy:coef=1");
  }
}

TEST_CASE("a modality that spreads over enough experts is left alone") {
  const auto router = make_router("softmax:k=1", 8);
  const Batch batch = rows_of_three();
  const Matrix<double> even(tokens, 8);  // every row even over all 8
  CHECK(loss_of(*router, "limoe:local=0,global=1,least=7.9", batch, even).value == 0);
  CHECK(loss_of(*router, "limoe:local=0,global=1,least=16", batch, even).value ==
        Approx(3 * std::log(2.0)));
  CHECK(loss_of(*router, "limoe:local=text:1,global=0", batch, even).value ==
        Approx(std::log(8.0)));
}

TEST_CASE("the orthogonal loss has the slope of central differences and is 0 at right angles") {
  const auto loss = make_balancer("orthogonal:coef=1,groups=2");
  Rng rng(4);
  Matrix<double> w(6, 5);
  for (double& v : w.flat())
    v = rng.normal();
  Matrix<double> dw(6, 5);
  loss->matrix_loss(w, 1, dw);
  constexpr double step = 1e-6;
  for (Index i = 0; i < w.size(); ++i) {
    Matrix<double> up = w;
    Matrix<double> down = w;
    Matrix<double> unused(6, 5);
    up.data()[i] += step;
    down.data()[i] -= step;
    const double slope =
        (loss->matrix_loss(up, 1, unused) - loss->matrix_loss(down, 1, unused)) / (2 * step);
    CHECK(dw.data()[i] == Approx(slope).margin(1e-8));
  }
  Matrix<double> apart(4, 4);
  for (Index i = 0; i < 4; ++i)
    apart(i, i) = 1 + double(i);
  Matrix<double> none(4, 4);
  CHECK(make_balancer("orthogonal:coef=1")->matrix_loss(apart, 1, none) == 0);
}

TEST_CASE("a correction bias moves against the load among the experts of the same rows") {
  const auto router = make_router("softmax:k=1,bias=1,experts=text:0-2/image:3-5/all:6-7", 8);
  CHECK(router->choice_sets() == std::vector<int>{0, 0, 0, 1, 1, 1, 2, 2});
  CHECK(make_router("softmax:k=1", 8)->choice_sets().empty());
  const std::vector<std::int64_t> counts{1, 2, 3, 100, 200, 300, 7, 7};
  make_balancer("bias:rate=0.5")->stepped(*router, counts, 0);
  const auto beta = router->correction_bias();
  CHECK(std::vector<double>(beta.begin(), beta.end()) ==
        std::vector<double>{0.5, 0, -0.5, 0.5, 0, -0.5, 0, 0});
}
