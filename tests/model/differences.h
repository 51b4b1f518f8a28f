// Gradients of whole models against central differences.
#pragma once
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>

#include "lib/balance/balancer.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"

namespace moe::test {

// What a training step makes small: the loss and the balance losses by their coefficients.
inline double loss_of(Decoder<double>& model, const Batch& batch, Decoder<double>::Tape& tape) {
  Rng rng(5);
  model.forward({.batch = batch, .training = true, .rng = &rng}, tape);
  double sum = tape.loss;
  for (auto& block : tape.block) {
    for (std::size_t i = 0; block.moe && i < block.moe->losses.size(); ++i) {
      const Balancer& b = *model.moe_layers()[0]->balancers()[i];
      sum += b.coefficient() * b.reduction(model.config().moe_layers()) * block.moe->losses[i];
    }
  }
  return sum;
}

inline bool same_choices(const Decoder<double>::Tape& a, const Decoder<double>::Tape& b) {
  for (std::size_t l = 0; l < a.block.size(); ++l) {
    if (a.block[l].moe &&
        !(a.block[l].moe->routing.expert == b.block[l].moe->routing.expert &&
          a.block[l].moe->routing.computed() == b.block[l].moe->routing.computed())) {
      return false;
    }
  }
  return true;
}

struct Compared {
  Index tried = 0;
  double largest = 0;  // of the differences
};

// About `numbers` of a parameter, but for those where a step changes who is chosen.
inline Compared compare_with_differences(Decoder<double>& model, Parameter<double>& p,
                                         Index numbers, const Batch& batch,
                                         const Decoder<double>::Tape& tape) {
  Compared out;
  const Index step = std::max<Index>(1, p.size() / numbers) | 1;
  for (Index i = 0; i < p.size(); i += step) {
    double* v = p.mutate().data + i;
    const double kept = *v;
    // The error of the difference falls with h^2 until rounding (1e-16 of the loss over h) is as
    // large: where a layer's input is small, third derivatives are 3e5, and 1e-5 is too wide.
    const double h = 1e-6;
    Decoder<double>::Tape up, down;
    *v = kept + h;
    const double above = loss_of(model, batch, up);
    *v = kept - h;
    const double below = loss_of(model, batch, down);
    *v = kept;
    if (!same_choices(up, tape) || !same_choices(down, tape))
      continue;
    ++out.tried;
    const double want = (above - below) / (2 * h);
    const double got = p.grad().data[i];
    out.largest = std::max(out.largest, std::abs(want));
    INFO(p.name() << "[" << i << "]: backward " << got << ", differences " << want);
    REQUIRE(std::abs(got - want) <= 1e-6 * std::max(1.0, std::abs(want)));
  }
  return out;
}

}  // namespace moe::test
