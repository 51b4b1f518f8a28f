// Scans of the cpu backend against their definition in f64, over lengths around a block, groups,
// delta rules and given states; and the same bytes for any number of threads.
#include <catch2/catch.hpp>

#include <cmath>

#include "lib/backend/backend.h"
#include "lib/backend/scans.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"

using namespace moe;

namespace {

struct Shape {
  std::vector<Index> length;
  Index heads, groups, key, value;
  bool delta, carried, own_key = false, by_key = false, before = false;
};

// Arguments and results in S, drawn in double.
template <class S>
struct Run {
  explicit Run(const Shape& s) : shape(s) {
    for (const Index n : s.length)
      start.push_back(start.back() + n);
    const Index rows = start.back();
    const Index states = s.carried ? Index(s.length.size()) * s.heads * s.key : 0;
    q = noise(rows, s.groups * s.key, 1);
    if (!s.delta || s.own_key)
      k = noise(rows, s.groups * s.key, 2);
    v = noise(rows, s.heads * s.value, 3);
    decay = noise(rows, s.heads * (s.by_key ? s.key : 1), 4);
    for (S& x : decay.flat())
      x = -std::abs(x) / 8;
    if (s.delta) {
      a = noise(rows, s.groups * s.key, 5, 0.3);
      b = noise(rows, s.heads * s.key, 6, 0.3);
    }
    initial = noise(states, s.value, 7);
    dout = noise(rows, s.heads * s.value, 8);
    dlast = noise(states, s.value, 9);
    out = v;
    last = initial;
    dq = q;
    dk = k;
    dv = v;
    ddecay = decay;
    da = a;
    db = b;
    dinitial = initial;
  }
  void run(Backend<S>& backend) {
    const ScanShape s{.heads = shape.heads,
                      .groups = shape.groups,
                      .key = shape.key,
                      .value = shape.value,
                      .before = shape.before,
                      .start = start};
    const auto read = [](const Matrix<S>& m) {
      return m.view();
    };
    const ScanInputs<S> arguments{read(q), read(k), read(v),      read(decay),
                                  read(a), read(b), read(initial)};
    scans_of(backend).scan(arguments, s, last.view(), out.view());
    scans_of(backend).scan_backward(
        arguments, s, read(dout), read(dlast),
        {dq.view(), dk.view(), dv.view(), ddecay.view(), da.view(), db.view(), dinitial.view()});
  }
  std::vector<std::pair<const char*, const Matrix<S>*>> results() const {
    return {{"out", &out},       {"last", &last}, {"dq", &dq},
            {"dk", &dk},         {"dv", &dv},     {"da", &da},
            {"ddecay", &ddecay}, {"db", &db},     {"dinitial", &dinitial}};
  }
  static Matrix<S> noise(Index rows, Index cols, std::uint64_t seed, double scale = 0.5) {
    Rng rng(seed);
    Matrix<S> m(rows, cols);
    for (S& x : m.flat())
      x = S(float(scale * rng.normal()));
    return m;
  }

  Shape shape;
  std::vector<Index> start{0};
  Matrix<S> q, k, v, decay, a, b, initial, dout, dlast;
  Matrix<S> out, last, dq, dk, dv, ddecay, da, db, dinitial;
};

const std::vector<Shape> shapes = {
    {{1}, 1, 1, 1, 1, false, false},
    {{63, 0, 64, 65}, 2, 1, 5, 7, false, true},
    {{150}, 4, 2, 16, 8, false, false},
    {{130, 17}, 3, 3, 8, 8, true, true},
    {{200}, 4, 2, 16, 24, true, false},
    {{40}, 2, 2, 8, 8, false, true, false, true, true},
    {{90}, 2, 2, 8, 8, true, true, true, true},
    {{33}, 2, 1, 8, 6, true, true, false, true},
};

}  // namespace

TEST_CASE("scans of the cpu backend agree with their definition in f64") {
  const auto cpu = make_backend("cpu");
  const auto reference = make_reference<double>();
  for (const Shape& s : shapes) {
    INFO("T=" << s.length[0] << " heads " << s.heads << " delta " << s.delta);
    Run<float> got(s);
    Run<double> want(s);
    got.run(*cpu);
    want.run(*reference);
    const auto all = got.results();
    const auto expected = want.results();
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto& [name, ours] = all[i];
      const Matrix<double>& theirs = *expected[i].second;
      INFO(name);
      double most = 1;
      for (const double v : theirs.flat())
        most = std::max(most, std::abs(v));
      REQUIRE(ours->size() == theirs.size());
      for (Index n = 0; n < theirs.size(); ++n)
        REQUIRE(std::abs(double(ours->data()[n]) - theirs.data()[n]) <= 1e-5 * most);
    }
  }
}

TEST_CASE("scans of the cpu backend give the same bytes for any number of threads") {
  const auto cpu = make_backend("cpu");
  const int before = threads();
  for (const Shape& s : shapes) {
    set_threads(1);
    Run<float> one(s);
    one.run(*cpu);
    set_threads(4);
    Run<float> four(s);
    four.run(*cpu);
    const auto first = one.results();
    const auto second = four.results();
    for (std::size_t i = 0; i < first.size(); ++i)
      CHECK(*first[i].second == *second[i].second);
  }
  set_threads(before);
}
