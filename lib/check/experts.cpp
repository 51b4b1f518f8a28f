// Cases of the grouped products, and of the whole expert bodies forwards and backwards.
#include <cmath>
#include <memory>

#include "lib/check/inputs.h"
#include "lib/core/text.h"

namespace moe::check {
namespace {

struct Data {
  Plan plan;
  Array<float> x, w, y;
};
double flops(const Sizes& s) {
  return 2.0 * double(s.slots()) * double(s.hidden) * double(s.width);
}
double bytes(const Sizes& s) {
  return 4.0 * (double(s.slots()) * double(s.hidden + s.width) +
                double(s.experts) * double(s.hidden * s.width));
}

enum class Which { forward, dx, dw };
// x (S,H), w (E*I,H), y (S,I)
Case grouped(const Sizes& s, Which which, float beta) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 21);
    auto d = std::make_shared<Data>();
    d->plan = plan_of(in, s);
    d->x = in.noise(d->plan.slots, s.hidden);
    d->w = in.noise(s.experts * s.width, s.hidden);
    d->y = in.noise(d->plan.slots, s.width);
    const auto run = [d, which, beta, &b] {
      if (which == Which::forward)
        b.grouped_linear(d->x.view(), Weight(d->w.view()), d->plan, d->y.view(), beta);
      if (which == Which::dx)
        b.grouped_linear_dx(d->y.view(), Weight(d->w.view()), d->plan, d->x.view(), beta);
      if (which == Which::dw)
        b.grouped_linear_dw(d->y.view(), d->x.view(), d->plan, d->w.view());
    };
    // the two that are only read too
    return Trial{run, [d] {
                   return outputs({{"x", &d->x}, {"w", &d->w}, {"y", &d->y}});
                 }};
  };
  const char* name = which == Which::forward ? "grouped_linear"
                     : which == Which::dx    ? "grouped_linear_dx"
                                             : "grouped_linear_dw";
  return {name, concat(s.text(), " beta=", beta), prepare, 1e-10, flops(s), bytes(s)};
}

Case grouped_bias(const Sizes& s, bool backward) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 22);
    auto d = std::make_shared<Data>();
    d->plan = plan_of(in, s);
    d->w = in.noise(s.experts, s.width);
    d->y = in.noise(d->plan.slots, s.width);
    const auto run = [d, backward, &b] {
      if (backward)
        b.grouped_bias_grad(d->y.view(), d->plan, d->w.view());
      else
        b.grouped_add_bias(d->w.view(), d->plan, d->y.view());
    };
    return Trial{run, [d] {
                   return outputs({{"b", &d->w}, {"y", &d->y}});
                 }};
  };
  return {backward ? "grouped_bias_grad" : "grouped_add_bias",
          s.text(),
          prepare,
          1e-10,
          double(s.slots() * s.width),
          8.0 * double(s.slots() * s.width)};
}

struct BodyData {
  Plan plan;
  Array<float> xs, gate, up, down, gate_bias, up_bias, down_bias, ys, dxs;
  Array<float> dgate, dup, ddown, dgate_bias, dup_bias, ddown_bias, weight, dweight;
  ExpertTape<float> tape;
  ExpertWeights<float> weights(Activation a) const {
    return {a,
            Weight(gate.view()),
            Weight(up.view()),
            Weight(down.view()),
            gate_bias.view(),
            up_bias.view(),
            down_bias.view()};
  }
  std::vector<Output> gradients() const {
    return outputs({{"dxs", &dxs},
                    {"dgate", &dgate},
                    {"dup", &dup},
                    {"ddown", &ddown},
                    {"dgate_bias", &dgate_bias},
                    {"dup_bias", &dup_bias},
                    {"ddown_bias", &ddown_bias},
                    {"dweight", &dweight}});
  }
  ExpertGrads<float> grads() {
    return {dgate.view(),      dup.view(),      ddown.view(),
            dgate_bias.view(), dup_bias.view(), ddown_bias.view()};
  }
};
std::shared_ptr<BodyData> bodies(Backend<float>& b, const Sizes& s, Activation a, bool bias,
                                 bool wanted) {
  Inputs in(b, 23);
  auto d = std::make_shared<BodyData>();
  const Index e = s.experts;
  const Index gated = is_gated(a) ? e : 0;
  d->plan = plan_of(in, s);
  d->xs = in.noise(d->plan.slots, s.hidden);
  d->ys = in.noise(d->plan.slots, s.hidden);
  d->dxs = in.unset(d->plan.slots, s.hidden);
  const double scale = 1 / std::sqrt(double(s.hidden));
  d->gate = in.noise(gated * s.width, s.hidden, scale);
  d->up = in.noise(e * s.width, s.hidden, scale);
  d->down = in.noise(e * s.hidden, s.width, scale);
  if (bias) {
    d->gate_bias = in.noise(gated, s.width);
    d->up_bias = in.noise(e, s.width);
    d->down_bias = in.noise(e, s.hidden);
  }
  if (!wanted)
    return d;
  d->dgate = in.noise(gated * s.width, s.hidden);
  d->dup = in.noise(e * s.width, s.hidden);
  d->ddown = in.noise(e * s.hidden, s.width);
  if (bias) {
    d->dgate_bias = in.noise(gated, s.width);
    d->dup_bias = in.noise(e, s.width);
    d->ddown_bias = in.noise(e, s.hidden);
  }
  return d;
}
std::string text_of(const Sizes& s, Activation a, bool bias) {
  return concat(s.text(), " ", activation_text(a), bias ? " bias" : "");
}

Case experts(const Sizes& s, Activation a, bool bias) {
  const auto prepare = [=](Backend<float>& b) {
    const auto d = bodies(b, s, a, bias, false);
    return Trial{[d, a, &b] {
                   b.experts(d->weights(a), std::as_const(d->xs).view(), d->plan, d->tape,
                             d->ys.view());
                 },
                 [d] {
                   return outputs({{"gate", &d->tape.gate}, {"up", &d->tape.up}, {"ys", &d->ys}});
                 }};
  };
  const double products = is_gated(a) ? 3 : 2;
  return {"experts", text_of(s, a, bias), prepare, 1e-10, products * flops(s), products * bytes(s)};
}
struct Slots {
  Plan plan;
  Array<float> gate, up, weight, share, dh, dgate, dup, dweight;
};
std::shared_ptr<Slots> slots(Backend<float>& b, const Sizes& s, Activation a, bool weighted,
                             bool shared) {
  Inputs in(b, 24);
  auto d = std::make_shared<Slots>();
  d->plan = plan_of(in, s);
  const Index rows = d->plan.slots;
  const Index gated = is_gated(a) ? rows : 0;
  d->gate = in.noise(gated, s.width, 4);
  d->up = in.noise(rows, s.width, 4);
  d->dh = in.noise(rows, s.width);
  d->dgate = in.unset(gated, s.width);
  d->dup = in.unset(rows, s.width);
  if (weighted) {
    d->weight = in.noise(s.tokens, s.choices);
    d->dweight = in.unset(s.tokens, s.choices);
  }
  if (shared)
    d->share = in.noise(rows, 1);
  return d;
}
// The activation alone, backwards, with the weights of the choices and their gradient, or without.
Case activate_backward(const Sizes& s, Activation a, bool weighted, bool shared) {
  const auto prepare = [=](Backend<float>& b) {
    const auto d = slots(b, s, a, weighted, shared);
    const auto run = [d, a, &b] {
      b.activate_backward(a, std::as_const(d->gate).view(), std::as_const(d->up).view(), d->plan,
                          std::as_const(d->weight).view(), std::as_const(d->share).view(),
                          d->dh.view(), d->dgate.view(), d->dup.view(), d->dweight.view());
    };
    return Trial{
        run, [d] {
          return outputs(
              {{"w h", &d->dh}, {"dgate", &d->dgate}, {"dup", &d->dup}, {"dweight", &d->dweight}});
        }};
  };
  return {"activate_backward",
          concat(text_of(s, a, false), weighted ? " weighted" : "", shared ? " share" : ""),
          prepare,
          1e-10,
          0,
          24 * double(s.slots() * s.width)};
}
Case experts_backward(const Sizes& s, Activation a, bool bias, bool wanted, bool weighted = true) {
  const auto prepare = [=](Backend<float>& b) {
    const auto d = bodies(b, s, a, bias, wanted);
    if (Inputs in(b, 25); weighted) {
      d->weight = in.noise(s.tokens, s.choices);
      d->dweight = in.unset(s.tokens, s.choices);
    }
    const auto ready = std::make_shared<bool>(false);
    const auto run = [d, a, ready, &b] {
      if (!*ready)
        b.experts(d->weights(a), std::as_const(d->xs).view(), d->plan, d->tape, d->ys.view());
      *ready = true;
      b.experts_backward(d->weights(a), d->grads(), std::as_const(d->xs).view(), d->plan, d->tape,
                         std::as_const(d->ys).view(), std::as_const(d->weight).view(),
                         d->dxs.view(), d->dweight.view());
    };
    return Trial{run, [d] {
                   return d->gradients();
                 }};
  };
  const double products = (is_gated(a) ? 3 : 2) * (wanted ? 2 : 1);
  return {"experts_backward",
          concat(text_of(s, a, bias), wanted ? "" : " frozen", weighted ? " weighted" : ""),
          prepare,
          1e-10,
          products * flops(s),
          products * bytes(s)};
}

std::vector<Case> at_size() {
  std::vector<Case> all;
  for (const Sizes& s : std::vector<Sizes>{{2048, 512, 1024, 8, 2, Spread::even},
                                           {2048, 1024, 2816, 8, 2, Spread::even},
                                           {2048, 512, 128, 64, 8, Spread::even},
                                           {2048, 512, 1024, 8, 2, Spread::skewed},
                                           {4096, 128, 192, 8, 2, Spread::even}}) {
    for (const Which w : {Which::forward, Which::dx, Which::dw})
      all.push_back(grouped(s, w, w == Which::dw ? 1.0f : 0.0f));
    all.push_back(experts(s, Activation::swiglu, false));
    all.push_back(experts_backward(s, Activation::swiglu, false, true));
  }
  all.push_back(
      activate_backward({2048, 512, 1024, 8, 2, Spread::even}, Activation::swiglu, true, false));
  return all;
}

std::vector<Case> of_sizes(const Sizes& s) {
  std::vector<Case> all;
  all.push_back(grouped(s, Which::forward, 0));
  all.push_back(grouped(s, Which::forward, 0.5f));
  all.push_back(grouped(s, Which::dx, 0));
  all.push_back(grouped(s, Which::dx, 1));
  all.push_back(grouped(s, Which::dw, 1));
  for (const bool backward : {false, true})
    all.push_back(grouped_bias(s, backward));
  all.push_back(experts(s, Activation::swiglu, false));
  all.push_back(experts_backward(s, Activation::swiglu, false, true));
  all.push_back(experts_backward(s, Activation::relu, true, false));
  all.push_back(experts_backward(s, Activation::swiglu, true, true, false));
  all.push_back(activate_backward(s, Activation::swiglu, true, true));
  all.push_back(activate_backward(s, Activation::silu, false, false));
  all.push_back(experts(s, {Activation::swiglu, 1.5f}, false));
  all.push_back(activate_backward(s, {Activation::swiglu, 1.5f}, true, false));
  return all;
}

}  // namespace

std::vector<Case> expert_cases(bool bench) {
  if (bench)
    return at_size();
  std::vector<Case> all;
  for (const Sizes& s : std::vector<Sizes>{{1, 1, 1, 1, 1, Spread::even},
                                           {6, 5, 3, 4, 2, Spread::holes},
                                           {4, 6, 5, 3, 2, Spread::none},
                                           {150, 33, 17, 5, 2, Spread::skewed},
                                           {260, 20, 40, 6, 3, Spread::one},
                                           {2100, 9, 7, 1, 1, Spread::even},
                                           {64, 40, 150, 16, 4, Spread::even},
                                           {5, 8, 8, 64, 2, Spread::even}}) {
    const std::vector<Case> some = of_sizes(s);
    all.insert(all.end(), some.begin(), some.end());
  }
  const Sizes middle{50, 24, 18, 4, 2, Spread::holes};
  for (const std::string& name : activation_names()) {
    all.push_back(experts(middle, activation_of(name), true));
    all.push_back(experts_backward(middle, activation_of(name), true, true));
    all.push_back(activate_backward(middle, activation_of(name), true, false));
  }
  return all;
}

}  // namespace moe::check
