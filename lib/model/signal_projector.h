// What makes vectors of the model's width of rows of a signal: one product (linear patches), or two
// with biases and GELU between them, as LLaVA 1.5 brings pictures into a language model.
#pragma once
#include <vector>

#include "lib/backend/backend.h"
#include "lib/core/signal.h"
#include "lib/layer/parameter.h"
#include "lib/model/model_parameter.h"
#include "lib/model/projector_kind.h"

namespace moe {

template <class S>
class SignalProjector {
 public:
  struct Tape {
    Array<S> rows;  // linear: (T,D), zeros where a row is none of it; else (n,D)
    Array<S> up;    // (n,H) what the first product puts out
    Array<int> at;  // (1,n) where the rows stand
  };
  // name: "projector.image"
  SignalProjector(Backend<S>&, const std::string& name, ProjectorKind, Index hidden, Index numbers);
  // x (T,H) += the vectors of the signal's rows, at their places; sets the tape.
  void forward(const Signal&, View<S> x, Tape&) const;
  // Adds to the gradients of what is trained; empties the tape.
  void backward(View<const S> dx, Tape&);
  void collect(const ModelConfig&, std::vector<ModelParameter<S>>&);

 private:
  Array<S> hidden(const Tape&) const;
  void two_backward(View<const S> dx, const Tape&);

  Backend<S>* backend_;
  ProjectorKind kind_;
  Parameter<S> first_, first_bias_, second_, second_bias_;  // the latter three of mlp2x_gelu
};

extern template class SignalProjector<float>;
extern template class SignalProjector<double>;

}  // namespace moe
