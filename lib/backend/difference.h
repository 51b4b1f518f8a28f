// How far two matrices are apart, and whether that is near enough. Written so that a NaN, an
// infinity or a wrong shape never passes: near enough is `error <= allowed`, and those make the
// error NaN.
#pragma once
#include <string>

#include "lib/core/view.h"

namespace moe {

struct Difference {
  // sum (got-want)^2 / sum want^2; the plain sum of squares where want is 0; NaN: cannot be
  // compared
  double error = 0;
  // of the number that differs most (the first NaN, where there is one); -1: none differs
  Index row = -1, col = -1;
  double got = 0, want = 0;  // there
  double worst = 0;          // |got - want| there

  bool within(double allowed) const {
    return error <= allowed;
  }
};

template <class S>
Difference difference(View<const S> got, View<const S> want);

// "0.5 instead of 0.25 at (3,7), error 1e-3"
std::string text_of(const Difference&);

}  // namespace moe
