// Cases of the plan and of the ways to the experts and back.
#include <memory>
#include <utility>

#include "lib/check/inputs.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"

namespace moe::check {
namespace {

Output as_numbers(const char* name, const Array<int>& ids, Index used) {
  const Matrix<int> host = ids.to_host();
  Matrix<float> m(1, used);
  for (Index i = 0; i < used; ++i)
    m(0, i) = float(host.data()[i]);
  return {name, std::move(m)};
}

Case plan_case(const Sizes& s) {
  const auto prepare = [s](Backend<float>& b) {
    struct Data {
      Array<int> kept;
      Plan plan;
    };
    Rng rng(11);
    const Matrix<int> kept = kept_choices(s, rng);
    auto d = std::make_shared<Data>(Data{Array<int>(b, kept.view()), {}});
    return Trial{[d, s, &b] { d->plan = b.plan(d->kept.view(), s.experts); },
                 [d, s] {
                   const Matrix<int> offset = d->plan.offset.to_host();
                   const Index used = offset(0, s.experts);  // what lies past it is not defined
                   return std::vector<Output>{
                       as_numbers("place", d->plan.place, s.tokens * s.choices),
                       as_numbers("offset", d->plan.offset, s.experts + 1),
                       as_numbers("token", d->plan.token, used),
                       as_numbers("choice", d->plan.choice, used)};
                 }};
  };
  return {"plan", s.text(), prepare, 0, 0, 16.0 * double(s.slots())};
}

struct Data {
  Plan plan;
  Array<float> x, slots, weight, other, more;
};
// Rows of a slot array that are in use; the rest of it is not defined.
Output used_rows(const char* name, const Data& d) {
  const Matrix<float> all = d.slots.to_host();
  const Matrix<int> offset = d.plan.offset.to_host();
  Matrix<float> used(offset(0, offset.cols() - 1), all.cols());
  std::copy_n(all.data(), used.size(), used.data());
  return {name, std::move(used)};
}

Case dispatch(const Sizes& s) {
  const auto prepare = [s](Backend<float>& b) {
    Inputs in(b, 12);
    auto d =
        std::make_shared<Data>(Data{plan_of(in, s), in.noise(s.tokens, s.hidden), {}, {}, {}, {}});
    d->slots = in.unset(d->plan.slots, s.hidden);
    return Trial{[d, &b] { b.dispatch(d->x.view(), d->plan, d->slots.view()); },
                 [d] {
                   return std::vector<Output>{used_rows("xs", *d)};
                 }};
  };
  return {"dispatch", s.text(), prepare, 0, 0, 8.0 * double(s.slots() * s.hidden)};
}
Case combine(const Sizes& s, float beta, bool weighted) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 13);
    auto d = std::make_shared<Data>(
        Data{plan_of(in, s),
             beta == 0 ? in.unset(s.tokens, s.hidden) : in.noise(s.tokens, s.hidden),
             {},
             {},
             {},
             {}});
    d->slots = in.noise(d->plan.slots, s.hidden);
    if (weighted)
      d->weight = in.noise(s.tokens, s.choices);
    return Trial{[d, beta, &b] {
                   b.combine(std::as_const(d->slots).view(), d->plan, d->weight.view(), d->x.view(),
                             beta);
                 },
                 [d] {
                   return outputs({{"y", &d->x}});
                 }};
  };
  return {"combine",
          concat(s.text(), " beta=", beta, weighted ? " weighted" : ""),
          prepare,
          1e-11,
          2.0 * double(s.slots() * s.hidden),
          4.0 * double((s.slots() + s.tokens) * s.hidden)};
}
Case combine_backward(const Sizes& s, bool weighted, bool wanted) {
  const auto prepare = [=](Backend<float>& b) {
    Inputs in(b, 14);
    auto d =
        std::make_shared<Data>(Data{plan_of(in, s), in.noise(s.tokens, s.hidden), {}, {}, {}, {}});
    d->slots = in.unset(d->plan.slots, s.hidden);
    d->other = in.noise(d->plan.slots, s.hidden);
    if (weighted)
      d->weight = in.noise(s.tokens, s.choices);
    if (wanted)
      d->more = in.unset(s.tokens, s.choices);
    return Trial{[d, &b] {
                   b.combine_backward(d->x.view(), d->other.view(), d->plan, d->weight.view(),
                                      d->slots.view(), d->more.view());
                 },
                 [d] {
                   return std::vector<Output>{used_rows("dys", *d), {"dweight", d->more.to_host()}};
                 }};
  };
  return {"combine_backward",
          concat(s.text(), weighted ? " weighted" : "", wanted ? " dweight" : ""),
          prepare,
          1e-10,
          3.0 * double(s.slots() * s.hidden),
          4.0 * double((2 * s.slots() + s.tokens) * s.hidden)};
}
Case scale_slots(const Sizes& s) {
  const auto prepare = [s](Backend<float>& b) {
    Inputs in(b, 15);
    auto d =
        std::make_shared<Data>(Data{plan_of(in, s), {}, {}, in.noise(s.tokens, s.choices), {}, {}});
    d->slots = in.noise(d->plan.slots, s.hidden);
    return Trial{[d, &b] { b.scale_slots(d->slots.view(), d->plan, d->weight.view()); },
                 [d] {
                   return std::vector<Output>{used_rows("xs", *d)};
                 }};
  };
  return {"scale_slots",
          s.text(),
          prepare,
          1e-12,
          double(s.slots() * s.hidden),
          8.0 * double(s.slots() * s.hidden)};
}

}  // namespace

std::vector<Case> routing_cases(bool bench) {
  std::vector<Case> all;
  const std::vector<Sizes> awkward = {
      {1, 1, 1, 1, 1, Spread::even}, {5, 3, 1, 4, 2, Spread::holes},
      {9, 7, 1, 3, 2, Spread::none}, {70, 33, 1, 5, 2, Spread::skewed},
      {40, 8, 1, 6, 3, Spread::one}, {300, 65, 1, 17, 8, Spread::holes}};
  const std::vector<Sizes> large = {{2048, 512, 1, 8, 2, Spread::even},
                                    {2048, 512, 1, 64, 8, Spread::even},
                                    {2048, 512, 1, 8, 2, Spread::skewed}};
  for (const Sizes& s : bench ? large : awkward) {
    all.push_back(plan_case(s));
    all.push_back(dispatch(s));
    all.push_back(combine(s, 0, true));
    all.push_back(combine_backward(s, true, true));
    if (bench)
      continue;
    all.push_back(combine(s, 1, false));
    all.push_back(combine(s, 0.5f, true));
    all.push_back(combine_backward(s, false, true));
    all.push_back(combine_backward(s, true, false));
    all.push_back(scale_slots(s));
  }
  return all;
}

}  // namespace moe::check
