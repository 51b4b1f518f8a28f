// Products with weights whose numbers are made when they are read, against products with the same
// numbers in memory: every backend, forwards and backwards, on shapes that fill no tile.
#include <cmath>

#include "lib/backend/difference.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "tests/backend/devices.h"

namespace moe {
namespace {

// Rows of a matrix, as a file would give them. With `rounds` their products round activations; then
// they have dots, of the bytes.
class HeldRows final : public RowSource {
 public:
  explicit HeldRows(const Matrix<float>& rows, bool rounds = false)
      : rows_(rows), rounds_(rounds) {}
  bool rounds_activations() const override {
    return rounds_;
  }
  bool dots(Index first, Index rows, const ActivationRow& x, float* y) const override {
    for (Index r = 0; rounds_ && r < rows; ++r) {
      double sum = 0;
      for (Index i = 0; i < rows_.cols(); ++i) {
        const double near = double(x.bytes.scale[i / byte_block]) * x.bytes.number[i];
        sum += double(rows_(first + r, i)) * near;
      }
      y[r] = float(sum);
    }
    return rounds_;
  }
  void read(Index first, View<float> out) const override {
    REQUIRE(first + out.rows <= rows_.rows());
    std::ranges::copy(rows_.view().slice(first, out.rows).flat(), out.data);
  }

 private:
  const Matrix<float>& rows_;
  bool rounds_;
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
  HeldRows gate_rows, up_rows, down_rows;

  Experts(const Shape& s, Rng& rng, bool rounds = false)
      : gate(drawn(s.experts * s.width, s.hidden, rng)),
        up(drawn(s.experts * s.width, s.hidden, rng)),
        down(drawn(s.experts * s.hidden, s.width, rng)),
        gate_rows(gate, rounds),
        up_rows(up, rounds),
        down_rows(down, rounds) {}
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

namespace {

// What experts that round activations put out, and a product of one matrix with `rows` rows.
struct Products {
  Matrix<float> experts, linear;
};
Products rounding_products(Backend<float>& b, const Shape& s) {
  Rng rng(11);
  const Experts experts(s, rng, true);
  const Matrix<int> choices = chosen(s, rng);
  const Array<int> kept(b, choices.view());
  Plan plan = b.plan(kept.view(), int(s.experts));
  plan.decoding = s.decoding;
  const Matrix<float> x = drawn(plan.slots, s.hidden, rng);
  const Array<float> xs(b, x.view());
  ExpertTape<float> tape;
  Array<float> y(b, x.rows(), x.cols());
  b.experts(experts.made(), xs.view(), plan, tape, y.view());
  Array<float> z = Array<float>::zeros(b, x.rows(), experts.up.rows());
  b.linear(xs.view(), from(experts.up_rows, experts.up), z.view(), 0);
  b.linear(xs.view(), from(experts.up_rows, experts.up), z.view(), 0.5f);
  return {y.to_host(), z.to_host()};
}

}  // namespace

TEST_CASE("products that round activations are those of the definition") {
  const auto reference = make_backend("reference");
  for (const Shape& s : {Shape{4, 64, 32, 37, 2, false}, Shape{8, 64, 96, 1, 3, true},
                         Shape{5, 32, 64, 14, 2, true}, Shape{2, 320, 544, 300, 1, false}}) {
    const Products want = rounding_products(*reference, s);
    for (const std::string name : {"cpu", "cpu:dtype=bf16"}) {
      INFO(name << ", " << s.experts << " experts, hidden " << s.hidden << ", width " << s.width);
      const auto b = make_backend(name);
      const Products got = rounding_products(*b, s);
      // a hidden unit whose last bits differ may be rounded to the next of 255 numbers
      const Difference experts = difference<float>(got.experts.view(), want.experts.view());
      const Difference linear = difference<float>(got.linear.view(), want.linear.view());
      INFO(text_of(experts) << "; one matrix " << text_of(linear));
      CHECK(experts.within(1e-5));
      CHECK(linear.within(1e-10));
      set_threads(1);
      const Products alone = rounding_products(*b, s);
      set_threads(2);
      CHECK(alone.experts == got.experts);
      CHECK(alone.linear == got.linear);
    }
  }
}

TEST_CASE("bf16 products of experts from sources are those of experts in memory") {
  const auto half = make_backend("cpu:dtype=bf16");
  if (half->operand_type() != DType::bf16)
    return;
  check_shape(*half, {4, 48, 40, 37, 2, false}, 1e-4);
  check_shape(*half, {3, 320, 544, 300, 1, false}, 1e-4);
  check_shape(*half, {4, 48, 40, 1, 2, true}, 1e-4);
}

TEST_CASE("a bf16 product of a matrix from a source is that of the same matrix in memory") {
  const auto half = make_backend("cpu:dtype=bf16");
  if (half->operand_type() != DType::bf16)
    return;
  Rng rng(3);
  const Shape s{1, 64, 1100, 300, 1, false};
  const Experts experts(s, rng, false);
  const Matrix<float> x = drawn(300, s.hidden, rng);
  const Array<float> xs(*half, x.view());
  Array<float> made = Array<float>::zeros(*half, 300, experts.up.rows());
  Array<float> held = Array<float>::zeros(*half, 300, experts.up.rows());
  half->linear(xs.view(), from(experts.up_rows, experts.up), made.view(), 0.5f);
  half->linear(xs.view(), Weight(experts.up.view()), held.view(), 0.5f);
  CHECK(made.to_host() == held.to_host());
}

}  // namespace moe
