// The CUDA backend's operations on the host: every case in f32, its products in bf16 and with one
// call an expert too. The whole layers among them also show that no host code touches device
// memory: the engine's would not let it.
#include <catch2/catch.hpp>

#include "lib/backend/cuda/no_device.h"
#include "lib/check/check.h"
#include "lib/core/rng.h"
#include "tests/backend/host_engine.h"

using namespace moe;

namespace {

void run(gpu::Choices choices, const std::function<bool(const Case&)>& wanted) {
  const auto definition = make_backend("reference");
  HostCuda device(choices);
  for (const Case& c : cases()) {
    if (!wanted(c))
      continue;
    const Verdict v = compare(c, device, *definition);
    INFO(device.name() << ": " << v.sentence());
    CHECK(v.passed);
  }
}

bool small(const Case& c) {
  return c.flops < 1e6;
}

struct ForgottenSum {  // a body whose lanes part ways
  template <class G>
  void operator()(Index, const G& g) const {
    if (g.lane() != 2)
      g.sum(1.0);
  }
};

}  // namespace

TEST_CASE("the CUDA backend's operations meet the definition on the host, in f32") {
  // lanes of long attention switch a million times
  run({}, [](const Case& c) { return !c.operation.starts_with("attention") || small(c); });
}
TEST_CASE("the CUDA backend's products meet the definition on the host, in bf16") {
  run({.half = true}, [](const Case& c) {
    return small(c) && (c.operation.starts_with("linear") || c.operation.starts_with("grouped") ||
                        c.operation.starts_with("experts") || c.operation == "layer");
  });
}
TEST_CASE("the CUDA backend's products meet the definition on the host, one product an expert") {
  for (const bool rounded : {false, true}) {
    run({.half = rounded, .grouped = false},
        [](const Case& c) { return small(c) && c.operation.starts_with("grouped"); });
  }
}

TEST_CASE("the plan's sort is the definition's under OpenMP") {
  const auto definition = make_backend("reference");
  for (const auto& [tokens, choices, experts] :
       {std::array<Index, 3>{1, 1, 1}, {20000, 3, 17}, {5000, 8, 300}}) {
    Rng rng(5);
    Matrix<int> kept(tokens, choices);
    for (int& e : kept.flat())
      e = int(rng.below(experts + 1)) - 1;
    const Index n = kept.size();
    std::vector<int> key(std::size_t(n), 0);
    std::vector<int> choice = key;
    std::vector<int> offset(std::size_t(experts) + 1, 0);
    gpu::sort_choices(thrust::omp::par, kept.data(), n, int(experts), key.data(), choice.data(),
                      offset.data());
    const Plan want = definition->plan(std::as_const(kept).view(), int(experts));
    CHECK(std::ranges::equal(offset, want.offset.view().flat()));
    CHECK(std::ranges::equal(std::span(choice).first(std::size_t(want.slots)),
                             want.choice.view().flat()));
  }
}

TEST_CASE("the host engine catches lanes that part ways") {
  HostEngine engine;
  CHECK_THROWS(engine.rows("planted", 1, ForgottenSum{}));
}

TEST_CASE("the yardstick is three library products forwards and nine with their gradients") {
  for (const gpu::Choices c : {gpu::Choices{}, gpu::Choices{.half = true}}) {
    gpu::Operations<HostEngine> device(c);
    const auto forward = device.plain_products(24, 16, 8, false);
    const auto both = device.plain_products(24, 16, 8, true);
    const std::size_t before = device.engine().gemms();
    forward();
    CHECK(device.engine().gemms() == before + 3);
    both();
    both();
    CHECK(device.engine().gemms() == before + 3 + 18);
  }
  CHECK_FALSE(host_definition<float>()->plain_products(24, 16, 8, false));
}

TEST_CASE("copies of weights follow their version") {
  HostCuda device({.half = true});
  const Matrix<float> one(1, 1, 1);
  const Matrix<float> two(1, 1, 2);
  Array<float> x(device, one.view());
  Array<float> w(device, one.view());
  Array<float> y(device, 1, 1);
  const auto product = [&](std::uint64_t version) {
    device.linear(x.view(), Weight(w.view().data, DType::f32, 1, 1, 7, version), y.view(), 0);
    return y.to_host()(0, 0);
  };
  CHECK(product(1) == 1);
  w.set(two.view());
  CHECK(product(1) == 1);  // not looked at again
  CHECK(product(2) == 2);
}

TEST_CASE("the options of the CUDA backend") {
  const auto of = [](const char* text) {
    Spec spec(text);
    const gpu::Choices c = gpu::choices_of(spec);
    spec.done();
    return c;
  };
  CHECK_FALSE(of("cuda").half);
  CHECK(of("cuda:dtype=bf16,deterministic=1").half);
  CHECK_FALSE(of("cuda:grouped=0").grouped);
  CHECK_THROWS_WITH(
      of("cuda:deterministic=0"),
      "the CUDA backend gives the same bytes every time: it has no faster way that would not");
  CHECK_THROWS_AS(of("cuda:dtype=f16"), Error);
  CHECK_THROWS_AS(of("cuda:determinstic=1"), Error);
}

TEST_CASE("every way of having no device has a sentence of its own") {
  const auto said = [](const gpu::Found& f, int ordinal) -> std::string {
    try {
      gpu::require_device(f, ordinal);
    } catch (const Error& e) {
      CHECK(e.code() == Exit::environment);
      CHECK_FALSE(e.hint().empty());
      return e.what();
    }
    return "";
  };
  CHECK(said({.driver = 0, .runtime = 13000}, 0) ==
        "there is no NVIDIA driver on this machine, so no CUDA device");
  CHECK(said({.driver = 12040, .runtime = 13000, .too_old = true}, 0) ==
        "the NVIDIA driver is for CUDA 12.4 and this moe was built with CUDA 13.0");
  CHECK(said({.driver = 13010, .runtime = 13000}, 0) ==
        "the NVIDIA driver (CUDA 13.1) shows no GPU");
  CHECK(said({.driver = 13000, .runtime = 13000, .devices = 2}, 2) ==
        "there is no CUDA device 2: this machine shows 2");
  CHECK(said({.driver = 13000, .runtime = 13000, .devices = 2}, 1).empty());
  const Error code = gpu::no_code_for("Tesla V100", 7, 0, "sm_80, 90");
  CHECK(code.what() == std::string("this moe holds device code for sm_80, 90 and none that runs on "
                                   "Tesla V100 (compute capability 7.0)"));
  CHECK(code.hint() == "cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES=70");
}
