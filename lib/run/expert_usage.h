// How much each expert is used while a text is evaluated, and what it adds: the cheap figures that
// guess what an expert is worth.
#pragma once
#include <vector>

#include "lib/layer/moe_layer.h"

namespace moe {

class ExpertUsage {
 public:
  // `pairs`: counts experts that are chosen together too, E^2 numbers a layer.
  explicit ExpertUsage(int experts, bool pairs = false) : experts_(experts), pairs_(pairs) {}

  void add(int moe_layer, const Batch&, const MoeTape<float>&);

  // Of the layer's choices; NaN where nothing was chosen.
  double load(std::size_t moe_layer, int expert) const;
  // Mean over the tokens that chose it of its combine weight times the norm of its output (REAP,
  // arXiv 2510.13999), dropped choices adding 0; 0 for an unused one.
  double reap(std::size_t moe_layer, int expert) const;
  // Of the layer's tokens, those that chose both; NaN where there are none.
  double together(std::size_t moe_layer, int one, int other) const;

 private:
  struct Layer {
    std::vector<double> choices, added;  // (E)
    std::vector<double> both;            // (E,E), one < other
    double all = 0, tokens = 0;          // choices, tokens with a choice
  };
  void add_pairs(Layer&, const Routing&, Index token) const;

  int experts_;
  bool pairs_;
  std::vector<Layer> layers_;
};

}  // namespace moe
