// Losses of the same batches, once or many times, behind one progress line.
#pragma once
#include <functional>
#include <vector>

#include "apps/ranks.h"
#include "apps/terminal.h"
#include "lib/run/evaluation.h"

namespace moe {

class Measurement {
 public:
  // hears what each MoE layer decided and computed for a batch
  using Routed = std::function<void(int moe_layer, const Batch&, const MoeTape<float>&)>;
  Measurement(Decoder<float>&, const Corpus&, const EvalBatches&, int times);

  // Stops early where a signal asks for it (stop_signal()). With `routed` in one process only.
  std::vector<DomainLoss> losses(const Routed& routed = {});
  void known(int times);  // that were measured before, and are not measured again

 private:
  Decoder<float>& model_;
  const Corpus& corpus_;
  EvalBatches batches_;
  Index each_;  // tokens of one time
  Progress progress_;
  Index before_ = 0, now_ = 0;  // tokens of the times before, and of this one
};

}  // namespace moe
