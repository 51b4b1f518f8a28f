// Cases of the dense products and biases.
#include <memory>
#include <utility>

#include "lib/check/inputs.h"
#include "lib/core/text.h"

namespace moe::check {
namespace {

struct Shape {
  Index tokens, in, out;  // T, I, O
  float beta = 0;
  std::string text() const {
    return concat("T=", tokens, " I=", in, " O=", out, " beta=", beta);
  }
  double flops() const {
    return 2.0 * double(tokens) * double(in) * double(out);
  }
  double bytes() const {
    return 4.0 * (double(tokens) * double(in + out) + double(in) * double(out));
  }
};
struct Data {
  Array<float> x, w, y;
};

Array<float> target(Inputs& in, Index rows, Index cols, float beta) {
  return beta == 0 ? in.unset(rows, cols) : in.noise(rows, cols);
}

Case linear(const Shape& s) {
  const auto prepare = [s](Backend<float>& b) {
    Inputs in(b, 1);
    auto d = std::make_shared<Data>(
        Data{in.noise(s.tokens, s.in), in.noise(s.out, s.in), target(in, s.tokens, s.out, s.beta)});
    return Trial{[d, s, &b] { b.linear(d->x.view(), Weight(d->w.view()), d->y.view(), s.beta); },
                 [d] {
                   return outputs({{"y", &d->y}});
                 }};
  };
  return {"linear", s.text(), prepare, 1e-10, s.flops(), s.bytes()};
}
Case linear_dx(const Shape& s) {
  const auto prepare = [s](Backend<float>& b) {
    Inputs in(b, 2);
    auto d = std::make_shared<Data>(
        Data{target(in, s.tokens, s.in, s.beta), in.noise(s.out, s.in), in.noise(s.tokens, s.out)});
    return Trial{[d, s, &b] { b.linear_dx(d->y.view(), Weight(d->w.view()), d->x.view(), s.beta); },
                 [d] {
                   return outputs({{"dx", &d->x}});
                 }};
  };
  return {"linear_dx", s.text(), prepare, 1e-10, s.flops(), s.bytes()};
}
Case linear_dw(const Shape& s) {
  const auto prepare = [s](Backend<float>& b) {
    Inputs in(b, 3);
    auto d = std::make_shared<Data>(
        Data{in.noise(s.tokens, s.in), in.noise(s.out, s.in), in.noise(s.tokens, s.out)});
    return Trial{[d, &b] { b.linear_dw(d->y.view(), d->x.view(), d->w.view()); },
                 [d] {
                   return outputs({{"dw", &d->w}});
                 }};
  };
  return {"linear_dw", s.text(), prepare, 1e-10, s.flops(), s.bytes()};
}
Case add_bias(Index rows, Index cols) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 4);
    auto d = std::make_shared<Data>(Data{in.noise(1, cols), {}, in.noise(rows, cols)});
    return Trial{[d, &b] { b.add_bias(d->x.view(), d->y.view()); },
                 [d] {
                   return outputs({{"y", &d->y}});
                 }};
  };
  return {"add_bias",          concat("T=", rows, " O=", cols), prepare, 1e-12,
          double(rows * cols), 8.0 * double(rows * cols)};
}
Case bias_grad(Index rows, Index cols) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 5);
    auto d = std::make_shared<Data>(Data{in.noise(1, cols), {}, in.noise(rows, cols)});
    return Trial{[d, &b] { b.bias_grad(d->y.view(), d->x.view()); },
                 [d] {
                   return outputs({{"db", &d->x}});
                 }};
  };
  return {"bias_grad",         concat("T=", rows, " O=", cols), prepare, 1e-10,
          double(rows * cols), 4.0 * double(rows * cols)};
}

}  // namespace

std::vector<Case> product_cases(bool bench) {
  std::vector<Case> all;
  const std::vector<Shape> awkward = {{1, 1, 1},       {1, 1, 1, 1},         {7, 5, 3, 0.5f},
                                      {0, 4, 4},       {1, 96, 130},         {129, 1, 70},
                                      {33, 65, 17, 1}, {3000, 12, 5},        {1100, 9, 600, 1},
                                      {300, 130, 515}, {600, 40, 256},       {1100, 70, 256},
                                      {600, 256, 40},  {130, 256, 600, 0.5f}};
  const std::vector<Shape> large = {{2048, 512, 1024}, {2048, 1024, 512}, {4096, 512, 512},
                                    {4096, 128, 320},  {2048, 512, 8},    {1, 512, 1024}};
  for (const Shape& s : bench ? large : awkward) {
    for (const auto make : {linear, linear_dx, linear_dw})
      all.push_back(make(s));
  }
  if (bench)
    return all;
  for (const auto& [rows, cols] :
       std::vector<std::pair<Index, Index>>{{1, 1}, {0, 3}, {5, 17}, {700, 33}}) {
    for (const auto make : {add_bias, bias_grad})
      all.push_back(make(rows, cols));
  }
  return all;
}

}  // namespace moe::check
