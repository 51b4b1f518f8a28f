// A model that chooses another number of experts than it was trained with, beside the trained one:
// losses, and what the routing became.
#pragma once
#include "analysis/table.h"
#include "apps/loss_changes.h"
#include "lib/model/decoder.h"

namespace moe {

// Of each MoE layer, over the tokens that were routed.
class KSums {
 public:
  void add(int moe_layer, const Batch&, const Routing&);
  // load of the busiest expert over the mean load; NaN where nothing was chosen
  double busiest(std::size_t moe_layer, int experts) const;
  // share of the combine weights that choices behind the first `k` have, in the router's order
  double beyond(std::size_t moe_layer, int k) const;
  // of the layer's choices, those of one expert; NaN where nothing was chosen
  double share(std::size_t moe_layer, int expert) const;

 private:
  struct Layer {
    std::vector<double> load;    // (E) choices
    std::vector<double> weight;  // (K) sum by place
  };
  std::vector<Layer> layers_;
};

Table k_losses(const LossChanges& /* from trained to k */, int trained, int k);
Table k_routing(Decoder<float>&, const KSums& as_trained, const KSums& now, int trained, int k);

}  // namespace moe
