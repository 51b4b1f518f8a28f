// One product of a router, from x to its scores and back: the parameter of a Projection with what
// may stand around it: bias, cosine instead of the plain product, a narrow space in between, the
// residual from the previous layer's logits, temperature.
#pragma once
#include "lib/backend/backend.h"
#include "lib/layer/parameter.h"
#include "lib/router/input.h"

namespace moe {

template <class S>
class RouterProduct {
 public:
  struct Tape {          // of a cosine; empty otherwise
    Array<S> through;    // (T,D) P x
    Matrix<double> raw;  // (T,rows) u.w
    std::vector<double> u_norm, w_norm;
  };
  RouterProduct(Backend<S>&, const Projection&, Index hidden, bool bias, bool residual);

  // z = (score + b + Wr z_previous)/tau, (T,rows)
  Matrix<double> forward(View<const S> x, double tau, const Matrix<double>* previous, Tape&) const;
  // Adds to the wanted gradients and to dx from dz (T,rows); dprevious (T,rows) is added to where
  // there is a residual.
  void backward(View<const S> x, double tau, const Matrix<double>* previous, const Tape&,
                Matrix<double> dz, View<S> dx, Matrix<double>* dprevious);
  // The same where the scores stay in the backend's memory and are divided by the temperature
  // there; for plain() products.
  bool plain() const {
    return !what_.cosine && what_.through == 0 && residual_.empty();
  }
  // Adds the same gradients where dz (T,K) is by the logits of the choices alone, those of
  // `expert` (T,K; -1 = none); for reaches_chosen().
  bool reaches_chosen() const {
    return plain() && bias_.empty() && !weight_.value().empty();
  }
  void chosen_backward(View<const S> x, double tau, const Matrix<int>& expert, Matrix<double> dz,
                       View<S> dx);
  Array<S> logits(View<const S> x) const;  // W x + b, (T,rows)
  // adds to the wanted gradients and to dx
  void logits_backward(View<const S> x, View<const S> dz, View<S> dx);
  void collect(std::vector<Parameter<S>*>& all);

  const Projection& projection() const {
    return what_;
  }
  Parameter<S>& weight() {
    return weight_;
  }

 private:
  // Of Wr z_previous, from the gradient of z.
  void residual_backward(const Matrix<double>& previous, const Matrix<double>& dz,
                         Matrix<double>* dprevious);
  void to_cosine(View<const S> u, Matrix<double>& z, Tape&) const;
  // dz becomes that of u.w; returns what dx gets besides
  Matrix<S> cosine_backward(View<const S> u, const Tape&, Matrix<double>& dz);

  Projection what_;
  Backend<S>* backend_;
  Parameter<S> weight_, bias_, residual_, scale_, project_;
};

}  // namespace moe
