// A dense feed-forward body (equations.md section 4): the dense layers of a model and the shared
// expert of a MoE layer. It is one expert that takes every valid token.
#pragma once
#include <memory>

#include "lib/backend/backend.h"
#include "lib/core/batch.h"
#include "lib/layer/parameter.h"

namespace moe {

template <class S>
class ExpertCache;

// Parameters of E bodies of one shape: gate, up (E,I,H), down (E,H,I), biases; E = 0: no leading
// dimension.
template <class S>
struct ExpertParameters {
  ExpertParameters() = default;
  ExpertParameters(Backend<S>&, const std::string& prefix, Activation, Index experts, Index width,
                   Index hidden, bool bias, Storage = Storage::own);
  // As Backend::experts; of bodies that lie elsewhere nothing is left in the tape, and they need a
  // cache.
  void forward(Backend<S>&, View<const S> xs, const Plan&, ExpertTape<S>&, View<S> ys) const;
  bool stored() const {
    return up.stored();
  }
  ExpertWeights<S> weights() const;
  ExpertGrads<S> grads();
  void collect(std::vector<Parameter<S>*>& all);

  Activation activation = Activation::swiglu;
  Parameter<S> gate, up, down, gate_bias, up_bias, down_bias;
  std::shared_ptr<ExpertCache<S>> cache;  // of a model whose experts lie elsewhere
};

template <class S>
class FeedForward {
 public:
  struct Tape {
    Plan plan;
    Array<S> sorted;  // rows of x; empty where every token is valid (then x itself)
    ExpertTape<S> bodies;
  };
  FeedForward() = default;
  FeedForward(Backend<S>&, const std::string& prefix, Activation, Index width, Index hidden,
              bool bias = false);

  void forward(const Batch&, View<const S> x /*(T,H)*/, View<S> y /*(T,H), set; 0 for padding*/,
               Tape&);
  void backward(const Tape&, View<const S> x, View<const S> dy, View<S> dx /*set*/);
  void collect(std::vector<Parameter<S>*>& all) {
    expert_parameters_.collect(all);
  }
  ExpertParameters<S>& expert_parameters() {
    return expert_parameters_;
  }

 private:
  Backend<S>* backend_ = nullptr;
  ExpertParameters<S> expert_parameters_;
};

}  // namespace moe
