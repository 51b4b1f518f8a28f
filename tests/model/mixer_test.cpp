// Every mixer of the registry on its own, in f64: gradients against central differences, what a row
// may depend on, decoding in pieces, sizes. Then lists of mixers, and the short convolution against
// numbers worked out elsewhere.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>

#include "lib/backend/backend.h"
#include "lib/core/batch.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/layer/parameter.h"
#include "lib/model/config.h"
#include "lib/model/mixer_type.h"
#include "lib/trace/golden.h"

using namespace moe;

namespace {

const std::string least =
    "custom:vocabulary=11,kv_heads=1,layers=1,width=2,experts=2,context=16,mixer={";

// One mixer alone, its parameters drawn.
struct World {
  explicit World(const std::string& spec, int hidden = 8)
      : config(
            model_config(concat(least, spec, "},hidden=", hidden, ",heads=", hidden > 2 ? 2 : 1))),
        backend(make_reference<double>()),
        mixer(std::move(make_mixers(config, *backend, shared)[0].mixer)) {
    mixer->collect(all);
    for (auto& [name, entry] : shared.entry)
      entry.part->collect(all);
    Rng rng(4);
    for (const ModelParameter<double>& p : all) {
      for (double& v : p.parameter->mutate().flat())
        v = p.start.value + 0.5 * rng.normal();
    }
  }
  Matrix<double> run(const Batch& batch, const Matrix<double>& x, MixerPast* past = nullptr) {
    Matrix<double> y(x.rows(), x.cols());
    mixer->forward(batch, x.view(), y.view(), past);
    return y;
  }
  Parameter<double>& at(const std::string& name) {
    for (const ModelParameter<double>& p : all) {
      if (p.parameter->name() == name)
        return *p.parameter;
    }
    throw Error(Exit::bug, concat("no parameter ", name));
  }

  ModelConfig config;
  std::unique_ptr<Backend<double>> backend;
  SharedParts<double> shared;
  std::unique_ptr<Mixer<double>> mixer;
  std::vector<ModelParameter<double>> all;
};

Batch batch_of(std::vector<Index> start) {
  Batch b;
  b.token.assign(std::size_t(start.back()), 0);
  b.start = std::move(start);
  return b;
}
Matrix<double> noise(Index rows, Index cols, std::uint64_t seed) {
  Rng rng(seed);
  Matrix<double> m(rows, cols);
  for (double& v : m.flat())
    v = rng.normal();
  return m;
}
double inner(const Matrix<double>& a, const Matrix<double>& b) {
  double sum = 0;
  for (Index i = 0; i < a.size(); ++i)
    sum += a.data()[i] * b.data()[i];
  return sum;
}
double apart(std::span<const double> a, std::span<const double> b) {
  double most = a.size() == b.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

std::vector<std::string> examples() {
  std::vector<std::string> out;
  for (const auto& e : mixers().entries()) {
    for (const std::string& spec : split(e.examples, ' '))
      out.push_back(spec);
  }
  return out;
}

void agree(double& number, double got, const std::function<double()>& loss) {
  const double kept = number;
  const double h = 1e-5;
  number = kept + h;
  const double above = loss();
  number = kept - h;
  const double below = loss();
  number = kept;
  const double want = (above - below) / (2 * h);
  INFO("backward " << got << ", differences " << want);
  REQUIRE(std::abs(got - want) <= 1e-6 * std::max(1.0, std::abs(want)));
}

std::filesystem::path shared_file(const char* name) {
  const char* set = std::getenv("MOE_SHARED");
  const std::filesystem::path root =
      set ? std::filesystem::path(set) : std::filesystem::path(MOE_SOURCE_DIR) / ".." / "shared";
  return root / "golden" / "mixers" / name;
}

}  // namespace

TEST_CASE("every mixer's gradients agree with central differences") {
  for (const std::string& spec : examples()) {
    INFO(spec);
    World w(spec);
    const Batch batch = batch_of({0, 5, 5, 6, 12});
    Matrix<double> x = noise(12, 8, 1);
    const Matrix<double> dy = noise(12, 8, 2);
    const auto loss = [&] {
      return inner(w.run(batch, x), dy);
    };
    Matrix<double> y(12, 8);
    Matrix<double> dx(12, 8, NAN);
    for (const ModelParameter<double>& p : w.all)
      p.parameter->want_grad(*w.backend);
    const auto tape = w.mixer->forward(batch, std::as_const(x).view(), y.view(), nullptr);
    w.mixer->backward(batch, *tape, std::as_const(x).view(), dy.view(), dx.view());
    for (Index i = 0; i < x.size(); i += 7)
      agree(x.data()[i], dx.data()[i], loss);
    for (const ModelParameter<double>& p : w.all) {
      INFO(p.parameter->name());
      CHECK(inner(p.parameter->to_host(), p.parameter->to_host()) > 0);
      if (!p.parameter->trained())  // it moves choices alone, and those stay where they are
        continue;
      for (Index i = 0; i < p.parameter->size(); i += std::max<Index>(1, p.parameter->size() / 9))
        agree(p.parameter->mutate().data[i], p.parameter->grad().data[i], loss);
    }
  }
}

TEST_CASE("in every mixer a row depends on earlier rows of its own sequence only") {
  for (const std::string& spec : examples()) {
    INFO(spec);
    World w(spec);
    const Batch batch = batch_of({0, 5, 12});
    Matrix<double> x = noise(12, 8, 1);
    const Matrix<double> before = w.run(batch, x);
    for (double& v : x.row(8))
      v += 1;
    const Matrix<double> after = w.run(batch, x);
    for (Index t = 0; t < 12; ++t) {
      INFO("row " << t);
      if (t < 8)
        CHECK(apart(before.row(t), after.row(t)) == 0);
      else if (t < 10)
        CHECK(apart(before.row(t), after.row(t)) > 1e-3);
    }
    Matrix<double> first(5, 8);
    std::ranges::copy(x.flat().first(40), first.data());
    CHECK(apart(w.run(batch_of({0, 5}), first).row(4), before.row(4)) <= 1e-13);
  }
}

TEST_CASE("every mixer decodes in pieces what it computes at once") {
  for (const std::string& spec : examples()) {
    INFO(spec);
    World w(spec);
    const Matrix<double> x = noise(12, 8, 1);
    const Matrix<double> want = w.run(batch_of({0, 5, 12}), x);
    const auto state = w.mixer->new_state(2);
    std::vector<Index> start{0, 0, 0};
    // rows of each sequence in turn, among them none and more than a short kernel
    for (const auto& [first, second] : {std::pair<Index, Index>{1, 4}, {0, 1}, {3, 0}, {1, 2}}) {
      const Batch part = batch_of({0, first, first + second});
      const Index from[] = {start[1], 5 + start[2] - start[1]};
      Matrix<double> rows(first + second, 8);
      for (Index t = 0; t < rows.rows(); ++t) {
        const Index row = t < first ? from[0] + t : from[1] + t - first;
        std::ranges::copy(x.row(row), rows.row(t).begin());
      }
      MixerPast past{*state, start};
      const Matrix<double> got = w.run(part, rows, &past);
      for (Index t = 0; t < rows.rows(); ++t) {
        const Index row = t < first ? from[0] + t : from[1] + t - first;
        CHECK(apart(got.row(t), want.row(row)) <= 1e-12);
      }
      start = grown(part, start);
    }
    CHECK(start == std::vector<Index>{0, 5, 12});
  }
}

TEST_CASE("every mixer states the sizes that it has") {
  for (const std::string& spec : examples()) {
    INFO(spec);
    World w(spec);
    const MixerShape shape = mixer_shapes(w.config).at(0).value();
    PieceList pieces;
    add_pieces(shape, w.config.hidden, pieces);
    Count stated = 0;
    Count multiplied = 0;
    for (const WeightPiece& p : pieces.all) {
      stated += p.rows * p.cols * p.count;
      multiplied += p.multiplied ? p.rows * p.cols * p.count : 0;
    }
    Index matrices = 0;
    Index all = 0;
    for (const ModelParameter<double>& p : w.all) {
      all += p.parameter->size();
      if (p.parameter->kind() == ParameterKind::matrix)
        matrices += p.parameter->size();
      CHECK_FALSE(p.published.empty());
    }
    CHECK(multiplied == matrices);
    CHECK(stated == all);
    CHECK(shape.tape_numbers > 0);
    CHECK(cached_per_token(shape) + state_numbers(shape) > 0);
  }
}

TEST_CASE("a list of mixers is a pattern over the layers") {
  const auto layers = [](const std::string& list, int n) {
    return join(layer_mixers(list, n), " ");
  };
  CHECK(layers("", 2) == "attention attention");
  CHECK(layers("short_conv*2;attention", 5) ==
        "short_conv short_conv attention short_conv short_conv");
  CHECK(layers("short_conv:kernel=4,bias=1*2;attention", 3) ==
        "short_conv:kernel=4,bias=1 short_conv:kernel=4,bias=1 attention");
  CHECK(resolved_mixers("short_conv*2;attention", 6) == "short_conv:kernel=3,bias=0*2;attention");
  CHECK(resolved_mixers("short_conv;short_conv:kernel=3", 2) == "short_conv:kernel=3,bias=0");
  CHECK(resolved_mixers("attention*2;attention", 4).empty());
  CHECK_THROWS_WITH(resolved_mixers("atention", 2), "no mixer named 'atention'");
  CHECK_THROWS_WITH(layer_mixers("short_conv*2;attention", 2),
                    "mixer={short_conv*2;attention} names more layers than the 2 of the model");
  CHECK_THROWS_WITH(layer_mixers("short_conv*0", 2),
                    "'0' in mixer={short_conv*0} is not a number of layers of 1 or more");
  CHECK_THROWS_WITH(layer_mixers("short_conv*2:kernel=3", 2),
                    "'2:kernel=3' in mixer={short_conv*2:kernel=3} is not a number of layers of 1 "
                    "or more");
  CHECK_THROWS_AS(resolved_mixers("short_conv:kernel=0", 2), Error);
  CHECK_THROWS_AS(resolved_mixers("short_conv:kernels=2", 2), Error);
  CHECK_THROWS_AS(resolved_mixers("short_conv;;attention", 3), Error);
  CHECK_THROWS_AS(model_config("nano:mixer={attention:heads=2}"), Error);
}

TEST_CASE("the default mixer does not show in a stored spec, another does and comes back") {
  CHECK(to_spec(model_config("nano")).find("mixer") == std::string::npos);
  CHECK(to_spec(model_config("nano:mixer=attention")) == to_spec(model_config("nano")));
  const std::string spec = to_spec(model_config("tiny:mixer={short_conv*3;attention}"));
  CHECK(spec.find("mixer={short_conv:kernel=3,bias=0*3;attention}") != std::string::npos);
  CHECK(to_spec(model_config(spec)) == spec);
}

TEST_CASE("a short convolution by hand") {
  World w("short_conv:kernel=2", 2);
  // of both channels: b = 2x, c = 3x, u = x; the earlier token counts ten times; 5 times the result
  const auto set = [&](const char* name, const Matrix<double>& m) {
    w.at(name).set(m.view());
  };
  Matrix<double> in(6, 2);
  Matrix<double> kernel(2, 2, 1);
  Matrix<double> out(2, 2);
  for (const Index h : {0, 1}) {
    in(h, h) = 2;
    in(2 + h, h) = 3;
    in(4 + h, h) = 1;
    kernel(h, 0) = 10;
    out(h, h) = 5;
  }
  set("in_proj", in);
  set("conv", kernel);
  set("out_proj", out);
  Matrix<double> x(3, 2);
  x(0, 0) = 1;
  x(1, 0) = 2;
  x(2, 0) = 1;
  x(1, 1) = -1;
  const Matrix<double> y = w.run(batch_of({0, 2, 3}), x);
  CHECK(y(0, 0) == 5 * 3 * 1 * (2 * 1));
  CHECK(y(1, 0) == 5 * 3 * 2 * (10 * 2 * 1 + 2 * 4));
  CHECK(y(2, 0) == y(0, 0));  // another sequence
  CHECK(y(1, 1) == 5 * 3 * -1 * (2 * 1));
}

TEST_CASE("the short convolution agrees with the shared golden file") {
  const std::filesystem::path path = shared_file("short_conv.h5");
  if (!std::filesystem::exists(path)) {
    WARN("no shared golden files here");
    return;
  }
  const GoldenFile file(path);
  const Index sequences = file.integer("batch");
  const Index length = file.integer("length");
  const Index hidden = file.integer("hidden_size");
  World w(concat("short_conv:kernel=", file.integer("kernel"), ",bias=", file.integer("bias")),
          int(hidden));
  const auto read = [&](const std::string& name, Index rows) {
    const GoldenArray<double> a = file.reals(name);
    Matrix<double> m(rows, a.size() / rows);
    std::ranges::copy(a.values, m.data());
    return m;
  };
  std::vector<Index> start;
  for (Index q = 0; q <= sequences; ++q)
    start.push_back(q * length);
  // "conv.in_proj.weight", or "conv.conv.weight" for the convolution itself
  const auto own_name = [](const ModelParameter<double>& p) {
    return p.published.substr(5);
  };
  for (const ModelParameter<double>& p : w.all) {
    const Matrix<double> m = read("param/" + own_name(p), p.parameter->value().rows);
    REQUIRE(m.size() == p.parameter->size());
    p.parameter->set(m.view());
    p.parameter->want_grad(*w.backend);
  }
  const Batch batch = batch_of(start);
  const Matrix<double> x = read("input/x", batch.tokens());
  const Matrix<double> dy = read("input/grad_y", batch.tokens());
  Matrix<double> y(x.rows(), x.cols());
  Matrix<double> dx(x.rows(), x.cols());
  const auto tape = w.mixer->forward(batch, x.view(), y.view(), nullptr);
  w.mixer->backward(batch, *tape, x.view(), dy.view(), dx.view());
  CHECK(apart(y.flat(), read("expected/y", x.rows()).flat()) <= 1e-10);
  CHECK(apart(dx.flat(), read("expected/grad/x", x.rows()).flat()) <= 1e-10);
  for (const ModelParameter<double>& p : w.all) {
    INFO(own_name(p));
    const Matrix<double> want = read("expected/grad/" + own_name(p), p.parameter->value().rows);
    CHECK(apart(p.parameter->grad().flat(), want.flat()) <= 1e-10);
  }
}
