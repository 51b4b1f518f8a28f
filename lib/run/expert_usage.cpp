#include "lib/run/expert_usage.h"

#include <algorithm>
#include <cmath>

#include "lib/run/recorder.h"

namespace moe {

void ExpertUsage::add(int moe_layer, const Batch& batch, const MoeTape<float>& tape) {
  const auto n = std::size_t(moe_layer);
  const auto experts = std::size_t(experts_);
  if (layers_.size() <= n)
    layers_.resize(n + 1);
  Layer& l = layers_[n];
  l.choices.resize(experts);
  l.added.resize(experts);
  if (pairs_)
    l.both.resize(experts * experts);
  const Routing& r = tape.routing;
  const Matrix<float> norm = output_norms(tape);
  for (Index t = 0; t < r.tokens(); ++t) {
    if (!batch.is_valid(t))
      continue;
    bool any = false;
    for (Index j = 0; j < r.choices(); ++j) {
      const int e = r.expert(t, j);
      if (e < 0)
        continue;
      any = true;
      l.all += 1;
      l.choices[std::size_t(e)] += 1;
      l.added[std::size_t(e)] += r.weight(t, j) * double(norm(t, j));
    }
    l.tokens += any;
    if (pairs_)
      add_pairs(l, r, t);
  }
}

void ExpertUsage::add_pairs(Layer& l, const Routing& r, Index t) const {
  for (Index j = 0; j < r.choices(); ++j) {
    for (Index i = 0; i < r.choices(); ++i) {
      const int one = r.expert(t, i);
      const int other = r.expert(t, j);
      if (one >= 0 && one < other)
        l.both[std::size_t(one) * std::size_t(experts_) + std::size_t(other)] += 1;
    }
  }
}

double ExpertUsage::load(std::size_t moe_layer, int expert) const {
  if (moe_layer >= layers_.size() || !(layers_[moe_layer].all > 0))
    return NAN;
  return layers_[moe_layer].choices[std::size_t(expert)] / layers_[moe_layer].all;
}

double ExpertUsage::reap(std::size_t moe_layer, int expert) const {
  if (moe_layer >= layers_.size() || !(layers_[moe_layer].all > 0))
    return NAN;
  const Layer& l = layers_[moe_layer];
  const double n = l.choices[std::size_t(expert)];
  return n > 0 ? l.added[std::size_t(expert)] / n : 0;
}

double ExpertUsage::together(std::size_t moe_layer, int one, int other) const {
  if (!pairs_ || moe_layer >= layers_.size() || !(layers_[moe_layer].tokens > 0))
    return NAN;
  const auto [low, high] = std::minmax(one, other);
  const Layer& l = layers_[moe_layer];
  return l.both[std::size_t(low) * std::size_t(experts_) + std::size_t(high)] / l.tokens;
}

}  // namespace moe
