// Traces with known answers: what the metrics give on every pattern of the registry is held to its
// closed forms, and the bytes do not depend on threads.
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <set>
#include <sstream>

#include "analysis/metric/definitions.h"
#include "analysis/metric/metric.h"
#include "analysis/synth/draw.h"
#include "analysis/synth/synth.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("moe-synth-" + std::to_string(::getpid()));
  Folder() {
    fs::create_directories(path);
  }
  ~Folder() {
    fs::remove_all(path);
  }
};

fs::path write(const Folder& f, const std::string& spec, const SynthShape& shape, int deflate = 1) {
  const fs::path to = f.path / "t.moetrace.h5";
  TraceHeader h;
  h.created_utc = "2024-01-01T00:00:00Z";
  TraceWriterOptions o;
  o.force = true;
  o.deflate = deflate;
  write_synth(to, make_synth(spec, shape), h, o);
  return to;
}

std::string bytes(const fs::path& p) {
  std::ifstream in(p, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

const MetricValue* find(const std::vector<MetricValue>& all, const std::string& id) {
  for (const auto& v : all) {
    if (v.id == id)
      return &v;
  }
  return nullptr;
}

// Of layer l: dims are (L, ...) or (L-1, ...).
double value_at(const MetricValue& v, Index l, const std::vector<Index>& at) {
  REQUIRE(v.dims.size() == at.size() + 1);
  Index i = l;
  for (std::size_t a = 0; a < at.size(); ++a) {
    REQUIRE(at[a] < v.dims[a + 1]);
    i = i * v.dims[a + 1] + at[a];
  }
  return v.values[std::size_t(i)];
}

// Those that compute the figures that are known.
std::vector<std::string> metrics_of(const std::vector<Known>& known) {
  std::set<std::string> out;
  for (const Known& k : known) {
    const Definition* d = find_definition(k.id);
    REQUIRE(d);
    out.emplace(d->metric);
  }
  return {out.begin(), out.end()};
}

int check_known(const Folder& f, const std::string& spec, const SynthShape& shape) {
  const Synth made = make_synth(spec, shape);
  const std::vector<Known> known = made.pattern->known();
  const auto measured = measure(FileTrace(write(f, spec, shape)), metrics_of(known));
  int seen = 0;
  for (const Known& k : known) {
    const MetricValue* v = find(measured, k.id);
    INFO(made.resolved << " " << k.id << (k.at.empty() ? "" : "[...]"));
    REQUIRE(v);
    REQUIRE(std::isfinite(k.value));
    for (Index l = 0; l < v->dims[0]; ++l) {
      const double got = value_at(*v, l, k.at);
      INFO("layer " << l << ": measured " << got << ", known " << k.value << " +- " << k.noise);
      CHECK(std::abs(got - k.value) <= 5 * k.noise + 1e-12);
      ++seen;
    }
  }
  return seen;
}

}  // namespace

TEST_CASE("metrics give what is known of every pattern") {
  const Folder f;
  for (const auto& entry : patterns().entries()) {
    std::istringstream specs{std::string(entry.examples)};
    for (std::string spec; specs >> spec;) {
      SynthShape shape;
      shape.tokens = 32768;
      shape.layers = 2;
      shape.experts = 32;
      shape.k = 4;
      shape.sequence = 512;
      shape.step = 2048;
      shape.domains = 4;
      CHECK(check_known(f, spec, shape) >= 2);
      // the last sequence is shorter, steps cut sequences
      shape.seed = 7;
      shape.experts = 64;
      shape.k = 8;
      shape.sequence = 300;
      shape.tokens = 20001;
      if (spec.find("size=8") == std::string::npos)
        CHECK(check_known(f, spec, shape) >= 2);
    }
  }
}

TEST_CASE("a known answer that is wrong is noticed") {  // the noise is small beside the effects
  SynthShape shape;
  shape.tokens = 32768;
  shape.layers = 1;
  shape.experts = 32;
  shape.k = 4;
  const auto of = [&](const char* spec, const char* id) {
    for (const Known& k : make_synth(spec, shape).pattern->known()) {
      if (k.id == id)
        return k;
    }
    return Known{};
  };
  const Known a = of("markov:stay=0.6", "repeat_first");
  const Known b = of("markov:stay=0.7", "repeat_first");
  CHECK(b.value - a.value > 10 * (a.noise + b.noise));
  const Known c = of("zipf:s=1", "load_cv");
  const Known d = of("zipf:s=0.8", "load_cv");
  CHECK(c.value - d.value > 5 * (c.noise + d.noise));
}

TEST_CASE("uneven patterns bring no pair of experts together by their drawing") {
  constexpr int experts = 32;
  constexpr int k = 4;
  constexpr int draws = 40000;
  std::vector<double> falling;
  for (int e = 0; e < experts; ++e)
    falling.push_back(1.0 / (e + 1));
  const Weighted draw(capped(falling, k), k);
  std::vector<double> alone(experts, 0);
  Matrix<double> together(experts, experts);
  std::vector<int> out(k);
  Rng rng(5);
  for (int n = 0; n < draws; ++n) {
    draw.deal(rng, out);
    for (const int a : out) {
      ++alone[std::size_t(a)];
      for (const int b : out)
        together(a, b) += a < b;
    }
  }
  for (int a = 0; a < experts; ++a) {
    for (int b = a + 1; b < experts; ++b) {
      const double expected = alone[std::size_t(a)] * alone[std::size_t(b)] / draws;
      INFO("experts " << a << " and " << b << ", " << together(a, b) << " times");
      // K different experts come together a little less often than K draws with return
      CHECK(together(a, b) < 1.15 * expected + 4 * std::sqrt(expected));
      CHECK(together(a, b) > 0.6 * expected - 4 * std::sqrt(expected));
    }
  }
}

TEST_CASE(
    "same bytes for any number of threads, other bytes for another seed, same rows for any "
    "compression") {
  const Folder f;
  SynthShape shape;
  shape.tokens = 9000;
  shape.layers = 3;
  shape.experts = 16;
  shape.k = 2;
  shape.domains = 2;
  shape.ranks = 2;
  shape.weights = true;
  const int before = threads();
  set_threads(1);
  const std::string one = bytes(write(f, "markov", shape));
  set_threads(3);
  CHECK(bytes(write(f, "markov", shape)) == one);
  set_threads(before);
  const TraceRows packed = FileTrace(f.path / "t.moetrace.h5")
                               .read(0, 9000,
                                     TraceFields{true, false, false, false, false, false, false,
                                                 false, false, true, false});
  for (const int level : {0, 9}) {
    const fs::path p = write(f, "markov", shape, level);
    CHECK(verify_trace(p).empty());
    const FileTrace back(p);
    CHECK(back.reader().state().complete);
    CHECK(back.header().engine == "synthetic");
    CHECK(back.sequences()[1].domain == 1);
    const TraceRows rows = back.read(
        0, 9000,
        TraceFields{true, false, false, false, false, false, false, false, false, true, false});
    CHECK(rows.rank[512] == 1);
    CHECK(rows.layer[2].weight(8999, 1) == 0.5f);
    for (std::size_t l = 0; l < 3; ++l)
      CHECK(std::ranges::equal(rows.layer[l].expert.flat(), packed.layer[l].expert.flat()));
  }
  shape.seed = 2;
  CHECK(bytes(write(f, "markov", shape)) != one);
}

TEST_CASE("what cannot be is refused in a sentence") {
  SynthShape shape;
  shape.experts = 8;
  shape.k = 4;
  for (const char* spec : {"hot:experts=1,share=0.5", "dead:count=5", "blocks:size=3",
                           "blocks:size=2", "domains", "markov:stay=1", "burst:expert=8",
                           "burst:share=1.5", "zipf:s=nan", "nothing", "rotate:experts=9"}) {
    CHECK_THROWS_AS(make_synth(spec, shape), Error);
  }
  shape.k = 9;
  CHECK_THROWS_AS(make_synth("uniform", shape), Error);
  shape.k = 8;  // all of them, always
  const Folder f;
  shape.tokens = 0;
  CHECK(FileTrace(write(f, "uniform", shape)).tokens() == 0);
}
