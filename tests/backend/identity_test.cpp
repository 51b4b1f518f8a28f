// What must hold whatever the backend: one expert is a dense feed-forward, permuted tokens give
// permuted rows, and every choice is either computed or dropped.
#include <catch2/catch.hpp>

#include <numeric>

#include "lib/backend/difference.h"
#include "lib/core/rng.h"
#include "lib/layer/moe_layer.h"
#include "tests/backend/devices.h"

using namespace moe;

namespace {

Matrix<float> noise(Index rows, Index cols, std::uint64_t seed) {
  Rng rng(seed);
  Matrix<float> m(rows, cols);
  for (float& v : m.flat())
    v = float(rng.normal() * 0.4);
  return m;
}
Batch batch_of(Index tokens) {
  Batch b;
  b.token.assign(std::size_t(tokens), 1);
  b.start = {0, tokens};
  return b;
}
template <class Layer>
void fill(Layer& layer) {
  std::vector<Parameter<float>*> all;
  layer.collect(all);
  std::uint64_t seed = 1;
  for (auto* p : all) {
    const Matrix<float> value = noise(p->value().rows, p->value().cols, seed++);
    p->set(value.view());
  }
}
struct Run {
  Matrix<float> y;
  Routing routing;
  Matrix<int> offset;
};
Run forward(Backend<float>& b, const LayerConfig& c, const Matrix<float>& x) {
  MoeLayer<float> layer(c, b);
  fill(layer);
  const Batch batch = batch_of(x.rows());
  MoeTape<float> tape(batch);
  const Array<float> on_device(b, x.view());
  Array<float> y(b, x.rows(), x.cols());
  layer.forward({.batch = batch}, on_device.view(), y.view(), tape);
  return {y.to_host(), tape.routing, tape.slots.plan.offset.to_host()};
}

}  // namespace

TEST_CASE("one expert is a dense feed-forward") {
  for (const std::string& name : devices()) {
    INFO(name);
    const auto b = make_backend(name);
    const Matrix<float> x = noise(50, 12, 9);
    LayerConfig c{.hidden = 12, .width = 20, .experts = 1};
    c.router = "softmax:k=1";
    MoeLayer<float> layer(c, *b);
    FeedForward<float> dense(*b, "dense.", c.activation, c.width, c.hidden);
    fill(dense);
    std::vector<Parameter<float>*> from, to;
    dense.collect(from);
    layer.expert_parameters().collect(to);
    for (std::size_t i = 0; i < from.size(); ++i) {
      const Matrix<float> value = from[i]->to_host();
      to[i]->set(value.view());
    }
    const Batch batch = batch_of(x.rows());
    MoeTape<float> tape(batch);
    FeedForward<float>::Tape dense_tape;
    const Array<float> on_device(*b, x.view());
    Array<float> y(*b, 50, 12);
    Array<float> want(*b, 50, 12);
    layer.forward({.batch = batch}, on_device.view(), y.view(), tape);
    dense.forward(batch, on_device.view(), want.view(), dense_tape);
    CHECK(difference(std::as_const(y).view(), std::as_const(want).view()).within(0));
    CHECK(want.to_host() != Matrix<float>(50, 12));
  }
}

TEST_CASE("permuted tokens give permuted rows") {
  for (const std::string& name : devices()) {
    INFO(name);
    const auto b = make_backend(name);
    LayerConfig c{.hidden = 12, .width = 20, .experts = 6};
    const Matrix<float> x = noise(77, 12, 9);
    Matrix<float> turned(77, 12);
    Matrix<float> want(77, 12);
    const Matrix<float> y = forward(*b, c, x).y;
    for (Index t = 0; t < 77; ++t) {
      std::ranges::copy(x.row(t * 10 % 77), turned.row(t).begin());
      std::ranges::copy(y.row(t * 10 % 77), want.row(t).begin());
    }
    const Matrix<float> got = forward(*b, c, turned).y;
    CHECK(difference(got.view(), std::as_const(want).view()).within(1e-12));
  }
}

TEST_CASE("every choice is computed or dropped") {
  for (const std::string& name : devices()) {
    for (const char* capacity : {"none", "position:factor=0.5", "prob:factor=0.75"}) {
      INFO(name << " " << capacity);
      const auto b = make_backend(name);
      LayerConfig c{.hidden = 12, .width = 4, .experts = 6};
      c.capacity = capacity;
      const Run run = forward(*b, c, noise(77, 12, 9));
      const Matrix<int>& kept = run.routing.computed();
      const auto dropped = std::ranges::count(kept.flat(), -1);
      Index load = 0;
      for (int e = 0; e < 6; ++e) {
        load += run.offset(0, e + 1) - run.offset(0, e);
        CHECK(run.offset(0, e + 1) - run.offset(0, e) == std::ranges::count(kept.flat(), e));
      }
      CHECK(load + dropped == 77 * 2);
      CHECK((dropped > 0) == (std::string(capacity) != "none"));
    }
  }
}
