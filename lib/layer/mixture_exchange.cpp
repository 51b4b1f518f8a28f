// Slots by mixture (Soft MoE, equations.md 2.11): xs = D' x, ys = E(xs), y = C ys. Both mixtures
// are dense products, so the backend's linear operations do all of it. Rows and outputs of slots
// are kept for the backward pass: their number does not grow with k.
#include <utility>

#include "lib/core/profile.h"
#include "lib/layer/exchange.h"

namespace moe {
namespace {

template <class S>
class MixtureExchange final : public Exchange<S> {
 public:
  MixtureExchange(Backend<S>& b, int experts) : backend_(b), experts_(experts) {}

  void dispatch(View<const S> x, const Choices<S>& c, Slots<S>& s) const override {
    const Index slots = c.mix.cols();
    Matrix<int> expert(slots, 1);
    for (Index n = 0; n < slots; ++n)
      expert(n, 0) = int(n / (slots / experts_));
    const Array<int> kept(backend_, std::as_const(expert).view());
    {
      const TimeSpan time(TimePart::plan, "plan");
      s.plan = backend_.plan(kept.view(), experts_);  // slots stand in order already
    }
    s.rows = Array<S>::zeros(backend_, slots, x.cols);
    backend_.linear_dw(c.dispatch.view(), x, s.rows.view());
  }
  void combine(const Choices<S>& c, const Slots<S>& s, View<S> y) const override {
    backend_.linear_dx(c.mix.view(), Weight(s.out.view()), y, 0);
  }

  void settle(bool, Slots<S>&) const override {}

  Array<S> rows_again(View<const S>, const Choices<S>&, const Slots<S>&) const override {
    return {};
  }
  // dys = C' dy, dC = dy ys'
  Array<S> combine_backward(View<const S> dy, const Slots<S>& s, const Choices<S>& c,
                            ChoiceGradients<S>& d) const override {
    Array<S> dys = Array<S>::zeros(backend_, s.out.rows(), s.out.cols());
    d.mix = Array<S>(backend_, dy.rows, s.out.rows());
    backend_.linear_dw(c.mix.view(), dy, dys.view());
    backend_.linear(dy, Weight(s.out.view()), d.mix.view(), 0);
    return dys;
  }
  View<const S> weights_of_outputs(const Choices<S>&) const override {
    return {};
  }
  // dD = x dxs', dx = D dxs
  void dispatch_backward(View<const S> x, Array<S> drows, const Slots<S>&, const Choices<S>& c,
                         ChoiceGradients<S>& d, View<S> dx) const override {
    const Weight dxs(std::as_const(drows).view());
    d.dispatch = Array<S>(backend_, x.rows, drows.rows());
    backend_.linear(x, dxs, d.dispatch.view(), 0);
    backend_.linear_dx(c.dispatch.view(), dxs, dx, 0);
  }

 private:
  Backend<S>& backend_;
  int experts_;
};

}  // namespace

template <class S>
std::unique_ptr<Exchange<S>> make_mixture_exchange(Backend<S>& b, int experts) {
  return std::make_unique<MixtureExchange<S>>(b, experts);
}

template std::unique_ptr<Exchange<float>> make_mixture_exchange(Backend<float>&, int);
template std::unique_ptr<Exchange<double>> make_mixture_exchange(Backend<double>&, int);

}  // namespace moe
