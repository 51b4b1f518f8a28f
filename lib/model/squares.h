// Sums of squares, read once together: a device gathers them where they are, so that the host waits
// once and not at every one.
#pragma once
#include "lib/backend/backend.h"
#include "lib/backend/on_device.h"

namespace moe {

class Squares {
 public:
  Squares(Backend<float>& b, Index n)
      : backend_(b), device_(dynamic_cast<OnDevice<float>*>(&b)), host_(n, 1) {
    if (device_)
      on_device_ = Array<double>::zeros(b, n, 1);
  }
  void add(Index i, View<const float> x) {
    if (device_)
      device_->add_squares(x, on_device_.view().slice(i, 1));
    else
      host_(i, 0) += backend_.sum_squares(x);
  }
  Matrix<double> read() const {
    return device_ ? on_device_.to_host() : host_;
  }

 private:
  Backend<float>& backend_;
  OnDevice<float>* device_;
  Matrix<double> host_;
  Array<double> on_device_;
};

}  // namespace moe
