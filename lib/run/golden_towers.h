// Encoders of pictures and sounds beside what the class of a published model gave
// (golden/modal/hf): config.json, model.safetensors and the inputs of expected.h5 in, patches,
// hidden rows, features and the rows that the decoder reads out.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "lib/backend/backend.h"
#include "lib/trace/golden.h"

namespace moe {

struct TowerDifference {
  std::string dataset;  // "image_features"
  double most = 0;      // largest absolute difference; infinite where a number is none, or nobody
                        // here computes the dataset
  double allowed = 0;   // in double so much absolutely, in float of the largest number
};
// Of every dataset that an encoder or projector gives, in the order of their computation; empty
// where the file has no pictures and no sounds. Throws Error(input) where configuration, tensors
// and file do not fit each other.
template <class S>
std::vector<TowerDifference> compare_towers(const std::filesystem::path& folder,
                                            const GoldenFile& expected, Backend<S>&);
inline constexpr double allowed_of_towers = 1e-5;

}  // namespace moe
