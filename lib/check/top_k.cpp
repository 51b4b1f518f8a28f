// Cases of what a device does without the host: routing from scores, and sums of squares that stay
// where they are. A backend that does not offer it gets the definition on host copies, as its host
// would route.
#include <memory>
#include <utility>

#include "lib/backend/on_device.h"
#include "lib/check/inputs.h"
#include "lib/core/text.h"

namespace moe::check {
namespace {

struct Shape {
  Index tokens = 1, experts = 1;
  TopK how;
  bool biased = false, padded = false, ties = false;
  std::string text() const {
    return concat("T=", tokens, " E=", experts, " K=", how.k, how.sigmoid ? " sigmoid" : " softmax",
                  how.norm ? "" : " norm=0", how.groups > 1 ? concat(" groups=", how.groups) : "",
                  how.topk_groups ? concat(" of them ", how.topk_groups) : "",
                  how.top2_sum ? " by two" : "",
                  how.bias_on_logit ? " bias on logits"
                  : biased          ? " bias"
                                    : "",
                  padded ? " padded" : "", ties ? " ties" : "");
  }
};

// The arguments of both directions in the backend's memory, and what is written.
struct Data {
  Data(Backend<float>& b, const Shape& s) : backend(b), shape(s) {
    Inputs in(b, 71);
    z = in.noise(s.tokens, s.experts, 2);
    if (s.ties) {  // halves: many are equal
      Matrix<float> m = z.to_host();
      for (float& v : m.flat())
        v = float(int(v)) / 2;
      z.set(std::as_const(m).view());
    }
    Matrix<double> beta(s.biased ? 1 : 0, s.experts);
    Matrix<double> gradient(1, s.experts);
    for (double& v : beta.flat())
      v = double(int(in.rng().below(5))) / 16;
    for (double& v : gradient.flat())
      v = in.rng().uniform() - 0.5;
    Matrix<int> ok(s.padded ? 1 : 0, s.tokens, 1);
    if (s.padded)
      ok(0, s.tokens / 2) = ok(0, s.tokens - 1) = 0;
    bias = Array<double>(b, std::as_const(beta).view());
    dprobability = Array<double>(b, std::as_const(gradient).view());
    valid = Array<int>(b, std::as_const(ok).view());
    dweight = in.noise(s.tokens, s.how.k);
    weight = in.unset(s.tokens, s.how.k);
    seen = in.unset(s.tokens, s.experts + 2);
    dz = in.unset(s.tokens, s.experts);
    expert = Array<int>(b, s.tokens, s.how.k);
  }
  void choose() {
    if (auto* device = dynamic_cast<OnDevice<float>*>(&backend)) {
      return device->top_k(std::as_const(z).view(), shape.how, std::as_const(bias).view(),
                           std::as_const(valid).view(), expert.view(), weight.view(), seen.view());
    }
    const Matrix<float> logits = z.to_host();
    const Matrix<double> beta = bias.to_host();
    const Matrix<int> ok = valid.to_host();
    Matrix<int> ids(expert.rows(), expert.cols());
    Matrix<float> w(weight.rows(), weight.cols());
    Matrix<float> facts(seen.rows(), seen.cols());
    host_definition<float>()->top_k(logits.view(), shape.how, beta.view(), ok.view(), ids.view(),
                                    w.view(), facts.view());
    expert.set(std::as_const(ids).view());
    weight.set(std::as_const(w).view());
    seen.set(std::as_const(facts).view());
  }
  void back(bool balanced) {
    const View<const double> by_probability =
        balanced ? std::as_const(dprobability).view() : View<const double>{};
    const double dsquare = balanced ? 0.01 : 0;
    if (auto* device = dynamic_cast<OnDevice<float>*>(&backend)) {
      return device->top_k_backward(std::as_const(z).view(), shape.how, std::as_const(valid).view(),
                                    std::as_const(expert).view(), std::as_const(dweight).view(),
                                    by_probability, dsquare, dz.view());
    }
    const Matrix<float> logits = z.to_host();
    const Matrix<float> dw = dweight.to_host();
    const Matrix<int> ok = valid.to_host();
    const Matrix<int> ids = expert.to_host();
    const Matrix<double> dp = dprobability.to_host();
    Matrix<float> out(dz.rows(), dz.cols());
    host_definition<float>()->top_k_backward(logits.view(), shape.how, ok.view(), ids.view(),
                                             dw.view(), balanced ? dp.view() : View<const double>{},
                                             dsquare, out.view());
    dz.set(std::as_const(out).view());
  }
  Output ids() const {
    const Matrix<int> of = expert.to_host();
    Matrix<float> m(of.rows(), of.cols());
    for (Index i = 0; i < m.size(); ++i)
      m.data()[i] = float(of.data()[i]);
    return {"expert", std::move(m)};
  }

  Backend<float>& backend;
  Shape shape;
  Array<float> z, dweight, weight, seen, dz;
  Array<double> bias, dprobability;
  Array<int> valid, expert;
};

Case top_k(const Shape& s) {
  const auto prepare = [s](Backend<float>& b) {
    const auto d = std::make_shared<Data>(b, s);
    return Trial{[d] { d->choose(); },
                 [d] {
                   return std::vector<Output>{
                       d->ids(), {"weight", d->weight.to_host()}, {"seen", d->seen.to_host()}};
                 }};
  };
  return {"top_k", s.text(), prepare, 1e-12, 0, 8.0 * double(s.tokens * s.experts)};
}
Case top_k_backward(const Shape& s, bool balanced) {
  const auto prepare = [s, balanced](Backend<float>& b) {
    const auto d = std::make_shared<Data>(b, s);
    d->choose();
    return Trial{[d, balanced] { d->back(balanced); },
                 [d] {
                   return outputs({{"dz", &d->dz}});
                 }};
  };
  return {"top_k_backward",
          concat(s.text(), balanced ? " balanced" : ""),
          prepare,
          1e-11,
          0,
          8.0 * double(s.tokens * s.experts)};
}

Case add_squares(Index rows, Index cols) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 72);
    struct Sums {
      Array<float> x;
      Array<double> sum;
    };
    const auto d =
        std::make_shared<Sums>(Sums{in.noise(rows, cols), Array<double>::zeros(b, 1, 1)});
    const auto run = [d, &b] {
      for (int twice = 0; twice < 2; ++twice) {
        if (auto* device = dynamic_cast<OnDevice<float>*>(&b)) {
          device->add_squares(std::as_const(d->x).view(), d->sum.view());
          continue;
        }
        const Matrix<float> x = d->x.to_host();
        Matrix<double> sum = d->sum.to_host();
        host_definition<float>()->add_squares(x.view(), sum.view());
        d->sum.set(std::as_const(sum).view());
      }
    };
    return Trial{
        run, [d] {
          return std::vector<Output>{{"sum", Matrix<float>(1, 1, float(d->sum.to_host()(0, 0)))}};
        }};
  };
  return {
      "add_squares", concat("T=", rows, " n=", cols), prepare, 1e-12, 0, 4.0 * double(rows * cols)};
}

std::vector<Shape> odd_shapes() {
  return {{.tokens = 1, .experts = 1, .how = {.k = 1}},
          {.tokens = 5, .experts = 4, .how = {.k = 4, .norm = false, .scale = 1.5}},
          {.tokens = 40,
           .experts = 9,
           .how = {.k = 3, .temperature = 0.7},
           .padded = true,
           .ties = true},
          {.tokens = 40,
           .experts = 12,
           .how = {.k = 2, .groups = 4, .topk_groups = 2},
           .biased = true,
           .ties = true},
          {.tokens = 40,
           .experts = 12,
           .how = {.k = 5, .scale = 2.5, .groups = 3, .topk_groups = 2, .top2_sum = true},
           .biased = true},
          {.tokens = 30, .experts = 12, .how = {.k = 4, .groups = 2}, .padded = true, .ties = true},
          {.tokens = 30, .experts = 70, .how = {.k = 8, .bias_on_logit = true}, .biased = true}};
}

}  // namespace

std::vector<Case> on_device_cases(bool bench) {
  if (bench) {
    const Shape few{.tokens = 2048, .experts = 8, .how = {.k = 2}};
    const Shape many{
        .tokens = 2048, .experts = 128, .how = {.sigmoid = true, .k = 8}, .biased = true};
    return {top_k(few), top_k(many), top_k_backward(few, true), top_k_backward(many, true),
            add_squares(4096, 1024)};
  }
  std::vector<Case> all;
  for (const bool sigmoid : {false, true}) {
    for (const Shape& s : odd_shapes()) {
      Shape shape = s;
      shape.how.sigmoid = sigmoid;
      all.push_back(top_k(shape));
      for (const bool balanced : {false, true})
        all.push_back(top_k_backward(shape, balanced));
    }
  }
  for (const auto& [rows, cols] : std::vector<std::pair<Index, Index>>{{1, 1}, {7, 33}, {300, 300}})
    all.push_back(add_squares(rows, cols));
  return all;
}

}  // namespace moe::check
