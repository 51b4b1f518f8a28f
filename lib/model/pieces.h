// The parameters of a model as matrices and vectors, each with how often it is stored and how often
// a token touches it. Parameters, FLOPs and bytes are sums over this one list (docs/plan.md).
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace moe {

using Count = std::int64_t;

enum class ModelPart { embedding, head, attention, dense, router, experts, shared, latent, rest };
inline constexpr int part_count = 9;
std::string_view name_of(ModelPart);

// What moves the numbers of a piece in training. A balancer moves correction biases: a published
// file holds them as tensors, our decoder as state of the router and not as parameters; so does a
// router's table of token ids, which is fixed. Nothing moves the matrices of Fourier position
// embedding.
enum class MovedBy { gradient, balancer, fixed, nothing };

// `count` matrices of (rows, cols), `active` of them touched by a token; multiplied = in a product
// with activations.
struct WeightPiece {
  ModelPart part;
  Count rows, cols, count = 1;
  double active = 1;
  bool multiplied = true;
  MovedBy moved = MovedBy::gradient;

  double size() const {  // of one
    return double(rows) * double(cols);
  }
};

// A list under construction. What has no rows, columns or copies is left out; active < 0: every
// copy is touched.
struct PieceList {
  std::vector<WeightPiece> all;

  void matrix(ModelPart part, Count rows, Count cols, Count count = 1, double active = -1) {
    add({part, rows, cols, count, active < 0 ? double(count) : active, true});
  }
  void vector(ModelPart part, Count size, Count count = 1, double active = -1) {
    add({part, 1, size, count, active < 0 ? double(count) : active, false});
  }
  void add(const WeightPiece& p) {
    if (p.rows > 0 && p.cols > 0 && p.count > 0)
      all.push_back(p);
  }
};

}  // namespace moe
