// The check backend lets right results through and stops at planted errors.
#include <catch2/catch.hpp>

#include <cmath>
#include <functional>

#include "lib/backend/reference.h"
#include "lib/core/error.h"

using namespace moe;

namespace {

// The definition with one thing wrong.
struct Wrong : Reference<float> {
  std::string fault;
  explicit Wrong(std::string f) : fault(std::move(f)) {}
  std::string name() const override {
    return "wrong";
  }

  void norm(View<const float> x, View<const float> w, double eps, View<float> y,
            View<float> rstd) override {
    Reference::norm(x, w, eps, y, rstd);
    if (fault == "number")
      y(2, 1) += 0.01f;
    if (fault == "nan")
      y(3, 0) = std::nanf("");
  }
  Plan plan(View<const int> kept, int experts) override {
    Plan p = Reference::plan(kept, experts);
    if (fault == "order") {
      std::swap(p.token.view()(0, 0), p.token.view()(0, 1));
      std::swap(p.choice.view()(0, 0), p.choice.view()(0, 1));
    }
    return p;
  }
  void experts(const ExpertWeights<float>& w, View<const float> xs, const Plan& plan,
               ExpertTape<float>& tape, View<float> ys) override {
    Reference::experts(w, xs, plan, tape, ys);
    if (fault == "tape")
      tape.up.view()(1, 0) *= 1.01f;
  }
  double sum_squares(View<const float> x) override {
    return Reference::sum_squares(x) * (fault == "sum" ? 1.01 : 1);
  }
};

Matrix<float> ramp(Index rows, Index cols) {
  Matrix<float> m(rows, cols);
  for (Index i = 0; i < m.size(); ++i)
    m.data()[i] = 0.1f * float(i % 7) - 0.25f;
  return m;
}

void run_norm(Backend<float>& b) {
  const Matrix<float> x = ramp(4, 3);
  const Matrix<float> w = ramp(1, 3);
  Array<float> y(b, 4, 3);
  Array<float> rstd(b, 4, 1);
  b.norm(x.view(), w.view(), 1e-5, y.view(), rstd.view());
}
Plan run_plan(Backend<float>& b) {
  Matrix<int> kept(4, 1);
  kept(1, 0) = kept(3, 0) = 1;
  return b.plan(kept.view(), 2);
}
void run_experts(Backend<float>& b) {
  const Plan plan = run_plan(b);
  const Matrix<float> x = ramp(4, 3);
  const Matrix<float> up = ramp(4, 3);
  const Matrix<float> down = ramp(6, 2);
  ExpertTape<float> tape;
  Array<float> ys(b, 4, 3);
  b.experts({.activation = Activation::silu, .up = Weight(up.view()), .down = Weight(down.view())},
            x.view(), plan, tape, ys.view());
}
void run_sum(Backend<float>& b) {
  const Matrix<float> x = ramp(4, 3);
  b.sum_squares(x.view());
}

std::string complaint(const std::string& fault, const std::function<void(Backend<float>&)>& run) {
  const auto backend = make_check(std::make_unique<Wrong>(fault));
  try {
    run(*backend);
  } catch (const Error& e) {
    CHECK(e.code() == Exit::failed);
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("the check backend stops at the first wrong number and names it") {
  using Catch::Contains;
  CHECK_THAT(complaint("number", run_norm),
             Contains("wrong differs from the definition: norm (4,3) (1,3): y is") &&
                 Contains("at (2,1)"));
  CHECK_THAT(complaint("nan", run_norm), Contains("y is nan instead of") && Contains("at (3,0)"));
  CHECK_THAT(complaint("order", run_plan),
             Contains("plan (4,1): token is 2 instead of 0 at (0,0)"));
  CHECK_THAT(complaint("tape", run_experts),
             Contains("experts") && Contains("up is") && Contains("at (1,0)"));
  CHECK_THAT(complaint("sum", run_sum), Contains("sum_squares"));
}

TEST_CASE("the check backend lets right results through") {
  for (const auto& run : std::initializer_list<std::function<void(Backend<float>&)>>{
           run_norm, run_plan, run_experts, run_sum}) {
    CHECK(complaint("", run) == "");
  }
  CHECK(make_backend("check:of={cpu:threads=2}")->name() == "check:of={cpu}");
}
