// A case file as our layer understands it: options become specs and a LayerConfig, given draws
// become GivenNoise.
#pragma once
#include "lib/layer/moe_layer.h"
#include "lib/trace/golden.h"

namespace moe {

// thrown for an option or value that our layer does not have
struct Unsupported {
  std::string why;
};

struct GoldenCase {
  LayerConfig config;
  std::vector<std::string> loss_names;  // one a balancer: "aux_loss", ...; "" = it has no loss
  Batch batch;
  GivenNoise given;
  std::vector<std::int64_t> other_counts;  // (E) or empty
  Matrix<double> x, grad_y;                // (T,H)
  Matrix<double> previous;                 // (T,E) logits of the layer before, or empty
  std::vector<double> correction_bias;     // (E) where it is no parameter of the file, or empty
  bool training = true, exact_ties = false, f64_only = false;
  Index ids_width = 0;  // columns of ids in the file; ours may have fewer
};

// Throws Unsupported, or Error(input) where the file is not what it should be.
GoldenCase read_golden_case(const GoldenFile&);

// one dimension: a column; more than two: rows*cols of the last
Matrix<double> golden_matrix(const GoldenFile&, const std::string& dataset);

}  // namespace moe
