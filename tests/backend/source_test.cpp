// Products with weights whose numbers are made when they are read, against products with the same
// numbers in memory: every backend, forwards and backwards, on shapes that fill no tile.
#include <cmath>

#include "lib/backend/difference.h"
#include "lib/core/rng.h"
#include "tests/backend/devices.h"

namespace moe {
namespace {

// Rows of a matrix, as a file would give them.
class HeldRows final : public RowSource {
 public:
  explicit HeldRows(const Matrix<float>& rows) : rows_(rows) {}
  void read(Index first, View<float> out) const override {
    REQUIRE(first + out.rows <= rows_.rows());
    std::ranges::copy(rows_.view().slice(first, out.rows).flat(), out.data);
  }

 private:
  const Matrix<float>& rows_;
};

Matrix<float> drawn(Index rows, Index cols, Rng& rng) {
  Matrix<float> out(rows, cols);
  for (float& v : out.flat())
    v = float(rng.normal());
  return out;
}

Weight from(const HeldRows& source, const Matrix<float>& shape) {
  Weight w(nullptr, DType::f32, shape.rows(), shape.cols());
  w.source = &source;
  return w;
}

struct Shape {
  Index experts, hidden, width, tokens, k;
  bool decoding;
};

Matrix<int> chosen(const Shape& s, Rng& rng) {
  Matrix<int> out(s.tokens, s.k);
  for (Index t = 0; t < s.tokens; ++t) {
    const auto first = Index(rng.below(std::uint64_t(s.experts)));
    for (Index k = 0; k < s.k; ++k)
      out(t, k) = int((first + k * 2) % s.experts);
  }
  return out;
}

// The matrices of E experts, held in memory and given by rows.
struct Experts {
  Matrix<float> gate, up, down;
  HeldRows gate_rows{gate};
  HeldRows up_rows{up};
  HeldRows down_rows{down};

  Experts(const Shape& s, Rng& rng)
      : gate(drawn(s.experts * s.width, s.hidden, rng)),
        up(drawn(s.experts * s.width, s.hidden, rng)),
        down(drawn(s.experts * s.hidden, s.width, rng)) {}
  ExpertWeights<float> made() const {
    return {Activation::swiglu,
            from(gate_rows, gate),
            from(up_rows, up),
            from(down_rows, down),
            {},
            {},
            {}};
  }
};

// What experts put out, and the gradient by their inputs.
struct Results {
  Matrix<float> out, dx;
};
Results results(Backend<float>& b, const ExpertWeights<float>& w, const Plan& plan,
                View<const float> x, View<const float> dy) {
  const Array<float> xs(b, x);
  const Array<float> dys(b, dy);
  ExpertTape<float> tape;
  Array<float> y(b, x.rows, x.cols);
  b.experts(w, xs.view(), plan, tape, y.view());
  Array<float> dxs(b, x.rows, x.cols);
  b.experts_backward(w, {}, xs.view(), plan, tape, dys.view(), {}, dxs.view(), {});
  return {y.to_host(), dxs.to_host()};
}

void check_shape(Backend<float>& b, const Shape& s, double allowed) {
  Rng rng(7);
  const Experts experts(s, rng);
  const Array<float> gate(b, experts.gate.view());
  const Array<float> up(b, experts.up.view());
  const Array<float> down(b, experts.down.view());
  const ExpertWeights<float> held{
      Activation::swiglu, Weight(gate.view()), Weight(up.view()), Weight(down.view()), {}, {}, {}};
  const Matrix<int> choices = chosen(s, rng);
  const Array<int> kept(b, choices.view());
  Plan plan = b.plan(kept.view(), int(s.experts));
  plan.decoding = s.decoding;
  const Matrix<float> x = drawn(plan.slots, s.hidden, rng);
  const Matrix<float> dy = drawn(plan.slots, s.hidden, rng);
  const Results want = results(b, held, plan, x.view(), dy.view());
  const Results got = results(b, experts.made(), plan, x.view(), dy.view());
  const Difference forward = difference<float>(got.out.view(), want.out.view());
  const Difference backward = difference<float>(got.dx.view(), want.dx.view());
  INFO(text_of(forward) << "; backward " << text_of(backward));
  CHECK(forward.within(allowed));
  CHECK(backward.within(allowed));
}

}  // namespace

TEST_CASE("experts from sources are experts in memory, on every backend") {
  for (const std::string& name : devices()) {
    if (name == "cuda" || name == "check")
      continue;  // there experts are widened when they are loaded
    const auto b = make_backend(name);
    for (const Shape& s : {Shape{4, 48, 40, 37, 2, false}, Shape{3, 33, 17, 5, 1, false},
                           Shape{8, 64, 96, 1, 3, true}, Shape{5, 31, 70, 6, 2, true},
                           Shape{2, 300, 520, 300, 1, false}}) {
      INFO(name << ", " << s.experts << " experts, hidden " << s.hidden << ", width " << s.width);
      check_shape(*b, s, 1e-10);
    }
  }
}

TEST_CASE("bf16 products leave experts from sources in full precision") {
  const auto half = make_backend("cpu:dtype=bf16");
  if (half->operand_type() != DType::bf16)
    return;
  check_shape(*half, {4, 48, 40, 37, 2, false}, 1e-4);
  check_shape(*half, {4, 48, 40, 1, 2, true}, 1e-4);
}

}  // namespace moe
