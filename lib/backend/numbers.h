// The numbers of a weight as products by definition read them: in place, or made from a source.
#pragma once
#include <algorithm>

#include "lib/backend/weight.h"
#include "lib/core/matrix.h"

namespace moe {

template <class S>
class Numbers {
 public:
  explicit Numbers(const Weight& w) : view_(w.source ? View<const S>{} : plain<S>(w)) {
    if (!w.source)
      return;
    Matrix<float> read(w.rows, w.cols);
    w.source->read(w.first, read.view());
    made_ = Matrix<S>(w.rows, w.cols);
    std::ranges::copy(read.flat(), made_.data());
    view_ = std::as_const(made_).view();
  }
  View<const S> view() const {
    return view_;
  }

 private:
  Matrix<S> made_;
  View<const S> view_;
};

}  // namespace moe
