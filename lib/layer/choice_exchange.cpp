// Slots by choice. Of size (S,H) nothing is kept for the backward pass of training: rows are
// gathered again, and the gradient of the weights comes from hidden units.
#include <utility>

#include "lib/core/profile.h"
#include "lib/layer/exchange.h"

namespace moe {
namespace {

template <class S>
class ChoiceExchange final : public Exchange<S> {
 public:
  ChoiceExchange(Backend<S>& b, int experts, bool weight_on_input)
      : backend_(b), experts_(experts), weight_on_input_(weight_on_input) {}

  void dispatch(View<const S> x, const Choices<S>& c, Slots<S>& s) const override {
    {
      const TimeSpan time(TimePart::plan, "plan");
      s.plan = backend_.plan(c.expert.view(), experts_);
    }
    s.rows = rows_again(x, c, s);
  }
  void combine(const Choices<S>& c, const Slots<S>& s, View<S> y) const override {
    backend_.combine(s.out.view(), s.plan, weights_of_outputs(c), y, 0);
  }

  void settle(bool training, Slots<S>& s) const override {
    s.rows = {};
    if (training)
      s.out = {};
  }

  Array<S> rows_again(View<const S> x, const Choices<S>& c, const Slots<S>& s) const override {
    const TimeSpan time("gather rows");
    Array<S> rows(backend_, s.plan.slots, x.cols);
    backend_.dispatch(x, s.plan, rows.view());
    if (weight_on_input_)
      backend_.scale_slots(rows.view(), s.plan, c.weight.view());
    return rows;
  }
  Array<S> combine_backward(View<const S> dy, const Slots<S>& s, const Choices<S>& c,
                            ChoiceGradients<S>& d) const override {
    const TimeSpan time("combine backward");
    d.weight = Array<S>(backend_, c.weight.rows(), c.weight.cols());
    Array<S> dout(backend_, s.plan.slots, dy.cols);
    backend_.dispatch(dy, s.plan, dout.view());  // every slot gets its token's
    return dout;
  }
  View<const S> weights_of_outputs(const Choices<S>& c) const override {
    return weight_on_input_ ? View<const S>{} : c.weight.view();
  }
  void dispatch_backward(View<const S> x, Array<S> drows, const Slots<S>& s, const Choices<S>& c,
                         ChoiceGradients<S>& d, View<S> dx) const override {
    const TimeSpan time("dispatch backward");
    if (weight_on_input_) {  // v = dE at w x: dw = v . x, dx = w v
      Array<S> scaled(backend_, s.plan.slots, x.cols);
      backend_.combine_backward(x, std::as_const(drows).view(), s.plan, {}, scaled.view(),
                                d.weight.view());
      backend_.scale_slots(drows.view(), s.plan, c.weight.view());
    }
    backend_.combine(std::as_const(drows).view(), s.plan, {}, dx, 0);  // every slot to its token
  }

 private:
  Backend<S>& backend_;
  int experts_;
  bool weight_on_input_;
};

}  // namespace

template <class S>
std::unique_ptr<Exchange<S>> make_choice_exchange(Backend<S>& b, int experts,
                                                  bool weight_on_input) {
  return std::make_unique<ChoiceExchange<S>>(b, experts, weight_on_input);
}

template std::unique_ptr<Exchange<float>> make_choice_exchange(Backend<float>&, int, bool);
template std::unique_ptr<Exchange<double>> make_choice_exchange(Backend<double>&, int, bool);

}  // namespace moe
