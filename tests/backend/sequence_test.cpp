// The definition of the causal convolution in f64: its gradients against central differences, and a
// sequence cut in two with its rows carried over.
#include <catch2/catch.hpp>

#include "lib/backend/backend.h"
#include "lib/core/rng.h"

using namespace moe;

namespace {

using Numbers = Matrix<double>;
constexpr Index hidden = 3, taps = 4;
const std::vector<Index> start = {0, 2, 2, 9};  // one shorter than the filter, one empty

Numbers noise(Index rows, Index cols, std::uint64_t seed) {
  Rng rng(seed);
  Numbers m(rows, cols);
  for (double& v : m.flat())
    v = rng.normal();
  return m;
}
Numbers convolved(const Numbers& x, const Numbers& w, const Numbers& bias) {
  Numbers y(x.rows(), x.cols());
  make_reference<double>()->causal_conv(x.view(), w.view(), bias.view(), start, {}, y.view());
  return y;
}

}  // namespace

TEST_CASE("gradients of the causal convolution are its central differences") {
  Numbers x = noise(9, hidden, 1);
  Numbers w = noise(hidden, taps, 2);
  Numbers bias = noise(1, hidden, 3);
  const Numbers dy = noise(9, hidden, 4);
  Numbers dx(9, hidden);
  Numbers dw(hidden, taps);
  Numbers dbias(1, hidden);
  make_reference<double>()->causal_conv_backward(dy.view(), x.view(), w.view(), start, dx.view(),
                                                 dw.view(), dbias.view());
  const auto loss = [&] {
    const Numbers y = convolved(x, w, bias);
    double sum = 0;
    for (Index i = 0; i < y.size(); ++i)
      sum += y.data()[i] * dy.data()[i];
    return sum;
  };
  for (const auto& [value, gradient] :
       {std::pair{&x, &dx}, std::pair{&w, &dw}, std::pair{&bias, &dbias}}) {
    for (Index i = 0; i < value->size(); ++i) {
      double& v = value->data()[i];
      const double old = v;
      v = old + 1e-3;
      const double up = loss();
      v = old - 1e-3;
      const double down = loss();
      v = old;
      CHECK(gradient->data()[i] == Approx((up - down) / 2e-3).epsilon(1e-9).margin(1e-9));
    }
  }
}

TEST_CASE("a sequence cut in two convolves to the same rows when its last rows are carried over") {
  const auto b = make_reference<double>();
  const Numbers x = noise(9, hidden, 5);
  const Numbers w = noise(hidden, taps, 6);
  Numbers whole(9, hidden);
  Numbers halves(9, hidden);
  const std::vector<Index> all = {0, 9};
  b->causal_conv(x.view(), w.view(), {}, all, {}, whole.view());
  const std::vector<Index> first = {0, 5};
  b->causal_conv(x.view().slice(0, 5), w.view(), {}, first, {}, halves.view().slice(0, 5));
  const std::vector<Index> second = {0, 4};
  b->causal_conv(x.view().slice(5, 4), w.view(), {}, second, x.view().slice(5 - taps + 1, taps - 1),
                 halves.view().slice(5, 4));
  CHECK(halves == whole);
}
