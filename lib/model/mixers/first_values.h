// The values of the first RWKV-7 layer, which those after it add a share of to their own. That
// layer makes them anew in every pass; each tape holds those of its own pass.
#pragma once
#include <memory>

#include "lib/backend/array.h"
#include "lib/model/mixer_type.h"

namespace moe {

template <class S>
struct LayerValues {
  Array<S> values, gradient;  // (T,H); the gradient is empty until a layer adds to it
};

template <class S>
struct FirstValues final : SharedPart<S> {
  explicit FirstValues(int of) : layer(of) {}
  void collect(std::vector<ModelParameter<S>>&) override {}

  int layer;                             // whose values they are
  std::shared_ptr<LayerValues<S>> last;  // of the pass at hand
};
inline constexpr const char* first_values_name = "first_values";

}  // namespace moe
