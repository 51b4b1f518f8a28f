// The training loop's one step: forward and backward over the micro-batches, clipping, AdamW,
// balancers. It knows no files and no data set; its whole state is the step number, the moments and
// what routers hold, because every draw comes from (seed, step): the same step gives the same
// bytes, however often the run was resumed and for any number of threads.
#pragma once
#include <functional>
#include <optional>

#include "lib/core/comm.h"
#include "lib/model/decoder.h"
#include "lib/model/parts.h"

namespace moe {

// Learning rate over the horizon: "cosine:warmup=100,floor=0.1",
// "wsd:warmup=100,decay=0.2,floor=0", "constant:warmup=0".
class Schedule {
 public:
  Schedule(const std::string& spec, Index horizon);  // refuses unknown names and options
  double factor(Index step /*0-based*/) const;       // of the peak learning rate
  const std::string& resolved() const {
    return resolved_;
  }

 private:
  enum class Kind { cosine, wsd, constant } kind_;
  Index horizon_;
  // warm-up steps; share of the peak at the end; last share of the horizon
  double warmup_ = 0, floor_ = 0, decay_ = 0;
  std::string resolved_;
};

struct TrainOptions {
  Index steps = 2000;  // the horizon
  // a step = accumulate micro-batches of sequences x length tokens
  Index sequences = 16, length = 256, accumulate = 1;
  // clip 0 = none; decay spares vectors
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, decay = 0.1, clip = 1.0;
  std::string schedule = "cosine";
  // what trains, and factors of the learning rate by group: see Parts
  std::string trained = "all", lr_factor;
  std::uint64_t seed = 1;
  Index tokens_per_step() const {
    return sequences * length * accumulate;
  }
};

struct LayerStep {                   // one MoE layer, one step
  std::vector<std::int64_t> counts;  // (E) choices of valid tokens, before capacity
  std::vector<std::int64_t> kept;    // (E) computed
  Index tokens = 0;
  // mean of the router's, nats; NaN for routers without scores
  double entropy = 0;
  // one a balancer, mean over micro-batches, without coefficient
  std::vector<double> losses;
  double temperature = 1;             // of the router
  std::vector<double> gradient_norm;  // (E) of the experts' weights; filled at log steps
};

struct StepResult {
  Index step = 0;  // 1-based: the step just done
  // loss: mean cross-entropy, nats; total: with balance losses
  double loss = 0, total_loss = 0, gradient_norm = 0, lr = 0;
  std::vector<LayerStep> layer;
};

class Trainer {
 public:
  Trainer(Decoder<float>&, const TrainOptions&, Comm&);

  // Batch number n of the run; called in order.
  using NextBatch = std::function<Batch(std::uint64_t number)>;
  // Sees each micro-batch after its forward pass (recording while training).
  using Observe = std::function<void(const Batch&, const Decoder<float>::Tape&)>;
  // One step; what is frozen stays as it is, bit by bit, and the selection bias of a frozen router
  // with it. Throws Error(numeric) naming step and layer, before anything is changed, where a loss
  // or gradient is not finite.
  StepResult step(const NextBatch&, bool want_gradient_norms, const Observe& = {});

  Index done() const {
    return done_;
  }  // steps done
  void resume_at(Index steps_done) {
    done_ = steps_done;
  }
  const TrainOptions& options() const {
    return options_;
  }
  const Schedule& schedule() const {
    return schedule_;
  }
  // (E) a MoE layer: steps since the start in which the expert got a gradient. Saved in the state.
  std::vector<std::vector<std::int64_t>>& steps_with_gradient() {
    return steps_with_gradient_;
  }
  // The moments, named "PARAMETER.m" and ".v", for optimizer.safetensors.
  struct Moment {
    std::string name;
    const std::vector<Index>* dims;
    Array<float>* values;
  };
  std::vector<Moment> moments();

 private:
  StepResult begin_step();
  // One micro-batch forwards and backwards; returns the tape where its losses are still on the
  // device.
  std::optional<Decoder<float>::Tape> micro_step(std::uint64_t number, const NextBatch&,
                                                 const Observe&, StepResult&);
  void measure(const Decoder<float>::Tape&, StepResult&) const;
  void update(const StepResult&);
  void settle(StepResult&);
  void norms_by_expert(StepResult&);
  void refuse_nonfinite(const StepResult&, const Decoder<float>::Tape&);
  double norm_of_gradients();

  Decoder<float>& model_;
  TrainOptions options_;
  Schedule schedule_;
  Comm& comm_;
  Index done_ = 0;
  struct Rows {
    Index first = 0, count = 0;
  };
  std::vector<Rows> rows_of(const Parameter<float>&) const;  // those that train

  Parts parts_;
  std::vector<Parameter<float>*> parameters_;  // trained ones
  std::vector<Array<float>> m_, v_;
  std::vector<std::vector<std::int64_t>> steps_with_gradient_;
};

}  // namespace moe
