// Whole pictures of numbers as rows of patches, for towers that published code hands pictures.
#pragma once
#include <span>
#include <vector>

#include "lib/core/tensor.h"
#include "lib/tower/tower.h"

namespace moe {

template <class S>
struct PatchRows {
  Matrix<S> row;
  std::vector<PictureGrid> grid;
};

// Of (pictures, channels, height, width), normalised: patches in the order of the rule, a row
// channel by channel. Throws Error(input) where they do not divide into patches.
template <class S>
PatchRows<S> rows_of_pixels(std::span<const double> pixels, const Dims&, const TowerPatches&);

}  // namespace moe
