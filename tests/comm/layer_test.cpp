// A MoE layer whose experts are shared out to ranks: every way of sending rows, and weights, has
// the bytes of a rank that holds all experts, whoever comes late. Small enough for sanitizers.
#include <catch2/catch.hpp>

#include <memory>

#include "lib/comm/threads.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/layer/moe_layer.h"
#include "tests/comm/slow.h"

using namespace moe;
using namespace moe::test;

namespace {

constexpr int experts = 6;
constexpr int ranks = 4;
constexpr Index hidden = 8;

Matrix<float> normal(Rng& rng, Index rows, Index cols) {
  Matrix<float> m(rows, cols);
  for (float& v : m.flat())
    v = float(0.5 * rng.normal());
  return m;
}

// A layer with the rows of one rank, forwards and backwards.
class LayerOfRank {
 public:
  LayerOfRank(int rank, Index tokens)
      : backend_(make_backend("reference")), layer_(config(), *backend_) {
    layer_.collect(parameters_);
    Rng weights(7);
    for (Parameter<float>* p : parameters_)
      p->set(normal(weights, p->value().rows, p->value().cols).view());
    batch_.start = {0, tokens};
    batch_.token.assign(std::size_t(tokens), 3);
    Rng rows = Rng(9).stream(std::uint64_t(rank));
    x_ = Array<float>(*backend_, normal(rows, tokens, hidden).view());
    dy_ = Array<float>(*backend_, normal(rows, tokens, hidden).view());
    y_ = Array<float>(*backend_, tokens, hidden);
    dx_ = Array<float>(*backend_, tokens, hidden);
  }
  void share_out(Comm& group, const CrossingWay& way) {
    layer_.share_out(group, 0, way);
  }
  void step() {
    for (Parameter<float>* p : parameters_) {
      if (!p->shared_out())
        p->want_grad(*backend_);
    }
    Rng rng(8);
    MoeTape<float> tape(batch_);
    const Pass pass{.batch = batch_, .training = true, .rng = &rng};
    layer_.forward(pass, std::as_const(x_).view(), y_.view(), tape);
    layer_.backward(pass, tape, std::as_const(x_).view(), std::as_const(dy_).view(), dx_.view());
  }
  // Outputs, gradients of rows, and those of what every rank holds.
  std::vector<Matrix<float>> at_home(const LayerOfRank& shared) {
    std::vector<Matrix<float>> out = {y_.to_host(), dx_.to_host()};
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      if (!shared.parameters_[i]->shared_out())
        out.push_back(host(parameters_[i]->grad()));
    }
    return out;
  }
  // Gradients of all experts, of a layer that holds them, where those of `shared` lie.
  std::vector<Matrix<float>> of_experts(const LayerOfRank& shared) {
    std::vector<Matrix<float>> out;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const Parameter<float>& kept = *shared.parameters_[i];
      if (kept.shared_out())
        out.push_back(host(parameters_[i]->grad().slice(kept.first_held(), kept.held_rows())));
    }
    return out;
  }
  // Gradients that rank `of` gave to the experts here.
  std::vector<Matrix<float>> taken(int of) {
    std::vector<Matrix<float>> out;
    for (const Array<float>& gradient : layer_.crossing()->take_gradients(of))
      out.push_back(gradient.to_host());
    return out;
  }
  void send_gradients() {
    if (layer_.crossing()->moves_weights())
      layer_.crossing()->send_gradients(std::vector<bool>(ranks, true));
  }

 private:
  static LayerConfig config() {
    LayerConfig c{.hidden = hidden, .width = 12, .experts = experts};
    c.router = "softmax:k=3,groups=2,topk_groups=1";
    return c;
  }
  static Matrix<float> host(View<float> v) {
    Matrix<float> m(v.rows, v.cols);
    std::ranges::copy(v.flat(), m.flat().begin());
    return m;
  }

  std::unique_ptr<Backend<float>> backend_;
  MoeLayer<float> layer_;
  std::vector<Parameter<float>*> parameters_;
  Batch batch_;
  Array<float> x_, dy_, y_, dx_;
};

// Rank 2 has no more than one token: some owners get no row of it.
Index tokens_of(int rank) {
  return rank == 2 ? 1 : 5 + 4 * rank;
}

void compare(Comm& comm, const CrossingWay& way) {
  LayerOfRank shared(comm.rank(), tokens_of(comm.rank()));
  shared.share_out(comm, way);
  shared.step();
  shared.send_gradients();
  for (int r = 0; r < ranks; ++r) {
    LayerOfRank alone(r, tokens_of(r));
    alone.step();
    if (shared.taken(r) != alone.of_experts(shared))
      throw Error(Exit::failed, concat("rank ", comm.rank(), ": gradients of rank ", r));
    if (r == comm.rank() && shared.at_home(shared) != alone.at_home(shared))
      throw Error(Exit::failed, concat("rank ", r, ": its rows or the router's gradients"));
  }
}

std::vector<CrossingWay> all_ways() {
  const std::vector<int> nodes = {0, 0, 1, 1};
  return {{}, {.send = Send::once}, {.send = Send::nodes, .nodes = nodes}, {.move = Move::weights}};
}

}  // namespace

TEST_CASE("a layer shared out has the bytes of one that holds all experts, whoever comes late") {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const bool flows = seed % 3 != 2;  // else all is moved at once
    const CrossingWay way = all_ways()[seed % 4];
    CAPTURE(seed);
    CHECK_NOTHROW(as_threads(
        ranks, [&](Comm& comm) { compare(comm, way); }, 60,
        [&](std::shared_ptr<Transport> inner) {
          return std::make_shared<Slow>(std::move(inner), seed, flows);
        }));
  }
}
