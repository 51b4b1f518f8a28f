// What a model knows of each of its parameters besides the numbers: the group it trains with, how
// it starts, and its name in published checkpoints. The part that owns a parameter says all of it,
// so that nothing has to be read off a name.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "lib/core/view.h"

namespace moe {

struct ModelConfig;
template <class S>
class Parameter;

// The first numbers: normal draws that are repeated beyond `cut` standard deviations, or `value`
// everywhere where std is 0.
struct Start {
  double std = 0, cut = 3, value = 0;
  bool around_unit = false;  // draws are added to the unit matrix
  // Where given, number i from i and a uniform draw in [0,1) of its own; nothing else counts then.
  std::function<double(Index i, double draw)> rule = {};
};

// Matrices that an initialisation scheme may tell apart: those of a mixer, and those whose result
// goes into the residual stream.
enum class MatrixRole { other, mixer, mixer_output, feed_output };
// by config.init (equations.md section 9); fan_in: inputs of the matrix
Start matrix_start(const ModelConfig&, MatrixRole, Index fan_in);

template <class S>
struct ModelParameter {
  Parameter<S>* parameter = nullptr;
  Start start = {};
  // Its tensor below "model.layers.3." in the layout most families share; of a part that layers
  // share, below "model."; empty: not of a mixer, lib/family knows.
  std::string published = {};
  bool swapped = false;  // the published tensor has its last two axes swapped
  // Products of rows and look-ups of rows alone read it: it may lie in a file as it is.
  bool only_products = false;
  std::string group = {};  // set by the model, as is
  int layer = -1;          // -1 = of no single layer
};

template <class S>
std::vector<Parameter<S>*> pointers(const std::vector<ModelParameter<S>>& all) {
  std::vector<Parameter<S>*> out;
  for (const ModelParameter<S>& p : all)
    out.push_back(p.parameter);
  return out;
}

}  // namespace moe
