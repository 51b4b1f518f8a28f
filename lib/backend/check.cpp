// check:of={X}: a backend that does everything twice, by X and by the definition on host copies,
// and stops at the first operation whose results differ, with its shapes and the first coordinate.
// For finding out where a new device or driver goes wrong.
#include <cmath>
#include <utility>

#include "lib/backend/delegate.h"
#include "lib/backend/difference.h"
#include "lib/core/error.h"

namespace moe {
namespace {

using In = View<const float>;
using Out = View<float>;

constexpr double allowed = 1e-7;  // squared error over squared size

// The first number that is clearly off, or else the one that is farthest off.
Difference first_of(In got, In want, Difference d) {
  double size = 0;
  for (const float v : want.flat())
    size += double(v) * double(v);
  const double typical = std::sqrt(size / double(want.size()));
  for (Index r = 0; r < want.rows; ++r) {
    for (Index c = 0; c < want.cols; ++c) {
      const double e = std::abs(double(got(r, c)) - double(want(r, c)));
      if (e <= 1e-4 * (typical + std::abs(double(want(r, c)))))
        continue;
      return {d.error, r, c, double(got(r, c)), double(want(r, c)), e};
    }
  }
  return d;
}

class Check : public Backend<float> {
 public:
  explicit Check(std::unique_ptr<Backend<float>> of) : of_(std::move(of)) {}

  std::string name() const override {
    return concat("check:of={", of_->name(), "}");
  }
  double rounding() const override {
    return of_->rounding();
  }
  std::string notice() const override {
    return of_->notice();
  }
  bool native(Operation op) const override {
    return of_->native(op);
  }
  void* allocate(std::size_t bytes) override {
    return of_->allocate(bytes);
  }
  void release(void* p, std::size_t bytes) noexcept override {
    of_->release(p, bytes);
  }
  void to_device(const void* host, void* device, std::size_t bytes) override {
    of_->to_device(host, device, bytes);
  }
  void to_host(const void* device, void* host, std::size_t bytes) override {
    of_->to_host(device, host, bytes);
  }
  void zero(void* p, std::size_t bytes) override {
    of_->zero(p, bytes);
  }
  void wait() override {
    of_->wait();
  }

  // Every operation that is not overridden comes to delegate(). Overridden are those that return
  // something or make arrays, and those that are composed of others.
  Plan plan(View<const int> kept, int experts) override;
  double sum_squares(In x) override;
  void experts(const ExpertWeights<float>&, In xs, const Plan&, ExpertTape<float>&,
               Out ys) override;
  void experts_backward(const ExpertWeights<float>& w, const ExpertGrads<float>& g, In xs,
                        const Plan& p, const ExpertTape<float>& tape, In dys, In weight, Out dxs,
                        Out dweight) override {
    delegated(Operation::experts_backward, &Backend::experts_backward, w, g, xs, p, tape, dys,
              weight, dxs, dweight);
  }

 private:
  using Copies = HostCopies<float>;

  // Runs the operation by the definition on copies, then by X, and compares all that was written.
  bool delegate(const Call<float>& call) override {
    Copies copies(call.op(), *of_, *definition_);
    call.run(*definition_, copies);
    call.run(*of_);
    compare(copies);
    return true;
  }
  void compare(Copies& copies) {
    for (const Copies::Written& w : copies.written()) {
      const Matrix<float> got = copies.fetched(w.device.slice(0, w.host.rows));
      equal(copies.text(), w.name, got.view(), w.host);
    }
  }
  void equal(const std::string& call, const std::string& what, In got, In want) {
    const Difference d = difference(got, want);
    if (d.within(allowed + 2000 * of_->rounding() * of_->rounding()))
      return;
    throw Error(Exit::failed, concat(of_->name(), " differs from the definition: ", call, ": ",
                                     what, " is ", text_of(first_of(got, want, d))))
        .hint("moe verify --device runs every operation on known shapes");
  }

  std::unique_ptr<Backend<float>> of_, definition_ = make_reference<float>();
};

Matrix<float> numbers(const Array<int>& ids, Index count) {
  const Matrix<int> host = ids.to_host();
  Matrix<float> m(1, count);
  for (Index i = 0; i < count; ++i)
    m(0, i) = float(host.data()[i]);
  return m;
}

Plan Check::plan(View<const int> kept, int experts) {
  Copies copies(Operation::plan, *of_, *definition_);
  const Plan want = definition_->plan(copies.of(kept), experts);
  Plan got = of_->plan(kept, experts);
  const auto same = [&](const char* what, const Array<int>& a, const Array<int>& b, Index count) {
    equal(copies.text(), what, numbers(a, count).view(), numbers(b, count).view());
  };
  same("offset", got.offset, want.offset, experts + 1);
  same("place", got.place, want.place, kept.size());
  // equal offsets: both have so many slots
  same("token", got.token, want.token, want.slots);
  same("choice", got.choice, want.choice, want.slots);
  return got;
}

double Check::sum_squares(In x) {
  Copies copies(Operation::sum_squares, *of_, *definition_);
  const float want = float(definition_->sum_squares(copies.of(x)));
  const double sum = of_->sum_squares(x);
  const float got = float(sum);
  equal(copies.text(), "the sum", In{&got, 1, 1}, In{&want, 1, 1});
  return sum;
}

void Check::experts(const ExpertWeights<float>& w, In xs, const Plan& p, ExpertTape<float>& tape,
                    Out ys) {
  Copies copies(Operation::experts, *of_, *definition_);
  const ExpertWeights<float> weights = copies.of(w);
  const In rows = copies.of(xs);
  const Plan& plan = copies.of(p);
  ExpertTape<float>& made = copies.made(tape);
  definition_->experts(weights, rows, plan, made, copies.of(ys));
  of_->experts(w, xs, p, tape, ys);
  compare(copies);
}

}  // namespace

std::unique_ptr<Backend<float>> make_check(std::unique_ptr<Backend<float>> of) {
  return std::make_unique<Check>(std::move(of));
}
std::unique_ptr<Backend<float>> make_check_backend(Spec& spec) {
  return make_check(make_backend(spec.get("of", "cpu")));
}

}  // namespace moe
