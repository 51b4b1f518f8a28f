// Experts that compute nearly nothing (equations.md 2.15; MoE++, 2410.07348): zero 0, copy x,
// constant a1 x + a2 v. They have a plan of their own beside that of the bodies, and their few
// numbers a row are made on the host.
#pragma once
#include "lib/backend/backend.h"
#include "lib/layer/layer_config.h"
#include "lib/layer/parameter.h"

namespace moe {

template <class S>
class ZeroComputationExperts {
 public:
  struct Tape {
    Plan plan;
    Array<S> out;             // (S,H)
    Matrix<S> rows;           // (S,H) of x
    std::vector<int> expert;  // (S) of each row
  };
  ZeroComputationExperts() = default;
  ZeroComputationExperts(Backend<S>&, const LayerConfig&);

  bool empty() const {
    return types_.empty();
  }
  // y += weight times what they compute of x
  void forward(View<const S> x, const Matrix<int>& kept, View<const S> weight, View<S> y,
               Tape&) const;
  // Adds to dx, dweight and the wanted gradients.
  void backward(const Tape&, View<const S> dy, View<const S> weight, View<S> dx, View<S> dweight);
  // Their outputs for every row of x into out (E*T,H), blocks of experts with a body left as they
  // are.
  void outputs_of_all(const Matrix<S>& x, Matrix<S>& out) const;
  // "experts.const_gate" (E,2,H), "experts.const_vec" (E,H) where one is constant
  void collect(std::vector<Parameter<S>*>& all);

 private:
  Matrix<int> computed(const Matrix<int>& kept) const;  // the choices that add something; else -1
  void compute(int expert, std::span<const S> x, std::span<S> out, const Matrix<S>& gate,
               const Matrix<S>& vec) const;

  std::vector<ExpertKind> types_;
  Backend<S>* backend_ = nullptr;
  Parameter<S> gate_, vec_;
};

}  // namespace moe
