// LFM2's gated short convolution: (b, c, u) = W_in x, v = conv(b * u), y = W_out (c * v), where *
// is number by number and conv runs over the last K tokens of each channel on its own, the last
// column of its kernel being the token itself. Optional biases on all three.
#include <cmath>

#include "lib/model/mixers/conv_part.h"
#include "lib/model/mixers/recurrent_base.h"
#include "lib/model/mixers/row_math.h"
#include "lib/model/mixers/state_scan.h"

namespace moe {
namespace {

template <class S>
struct ShortConvTape final : MixerTape {
  Array<S> all;          // (T,3H) b, c and u
  Array<S> gated;        // b * u
  Array<S> v;            // its convolution
  Array<S> out;          // c * v
  Array<S> rows_before;  // of a pass with a past: what the state held
};

template <class S>
class ShortConv final : public RecurrentBase<S> {
 public:
  ShortConv(const MixerPlace<S>& at, int kernel, bool bias) : RecurrentBase<S>(at, "conv.") {
    const Index h = at.config.hidden;
    this->matrix(in_, "in_proj", 3 * h, h, "in_proj.weight");
    if (bias)
      this->vector(in_bias_, "in_proj_bias", 3 * h, {}, "in_proj.bias");
    // so that what comes out is as large as what went in
    this->make(conv_, "conv", {h, 1, kernel}, ParameterKind::matrix,
               {.std = 1 / std::sqrt(double(kernel))}, "conv.weight");
    if (bias)
      this->vector(conv_bias_, "conv_bias", h, {}, "conv.bias");
    this->matrix(out_, "out_proj", h, h, "out_proj.weight", MatrixRole::mixer_output);
    if (bias)
      this->vector(out_bias_, "out_proj_bias", h, {}, "out_proj.bias");
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<ShortConvTape<S>>();
    ShortConvTape<S>& t = *tape;
    RecurrentState<S>* state = this->states(past);
    const Index h = x.cols;
    t.all = side_.product(x, in_, in_bias_);
    t.gated = side_.array(x.rows, h);
    t.v = side_.array(x.rows, h);
    t.out = side_.array(x.rows, h);
    for_rows(x.rows, [&](Index r) {
      const S* b = row_of(t.all, r);
      row_math::product(b, b + 2 * h, row_of(t.gated, r), h);
    });
    t.rows_before = conv().forward(batch, t.gated.view(), t.v.view(), part_of(state, 0));
    for_rows(x.rows, [&](Index r) {
      row_math::product(row_of(t.all, r) + h, row_of(t.v, r), row_of(t.out, r), h);
    });
    side_.product(t.out, out_, y);
    this->add_bias(out_bias_, y);
    return tape;
  }

  void backward_through(const Batch& batch, const MixerTape& tape, View<const S> x,
                        View<const S> dy, View<S> dx, RecurrentState<S>* gradient) override {
    const auto& t = static_cast<const ShortConvTape<S>&>(tape);
    const Index h = x.cols;
    const Array<S> dout = side_.product_backward(dy, t.out, out_);
    this->bias_backward(dy, out_bias_);
    Array<S> dall = side_.array(x.rows, 3 * h);
    Array<S> dv = side_.array(x.rows, h);
    Array<S> dgated = side_.array(x.rows, h);
    for_rows(x.rows, [&](Index r) {
      const S* d = row_of(dout, r);
      row_math::product(d, row_of(t.all, r) + h, row_of(dv, r), h);
      row_math::product(d, row_of(t.v, r), row_of(dall, r) + h, h);
    });
    conv().backward(batch, dv.view(), t.gated.view(), t.rows_before, dgated.view(),
                    part_of(gradient, 0));
    for_rows(x.rows, [&](Index r) {
      const S* b = row_of(t.all, r);
      const S* d = row_of(dgated, r);
      row_math::product(d, b + 2 * h, row_of(dall, r), h);
      row_math::product(d, b, row_of(dall, r) + 2 * h, h);
    });
    side_.product_backward(dall, x, in_, in_bias_, dx, S(0));
  }

  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto state = std::make_unique<RecurrentState<S>>();
    const Index kept = conv_.dims().back() - 1;
    state->part.push_back({"conv", kept, side_.zeros(sequences * kept, conv_.value().rows)});
    return state;
  }

 private:
  using RecurrentBase<S>::side_;

  ConvPart<S> conv() {
    return {side_, {&conv_}, &conv_bias_};
  }

  Parameter<S> in_, conv_, out_, in_bias_, conv_bias_, out_bias_;
};

class ShortConvType final : public MixerType {
 public:
  explicit ShortConvType(Spec& s) : kernel_(s.get("kernel", 3, 1)), bias_(s.get("bias", false)) {}

  std::unique_ptr<Mixer<float>> make(const MixerPlace<float>& at) const override {
    return std::make_unique<ShortConv<float>>(at, kernel_, bias_);
  }
  std::unique_ptr<Mixer<double>> make(const MixerPlace<double>& at) const override {
    return std::make_unique<ShortConv<double>>(at, kernel_, bias_);
  }
  MixerShape shape(const ModelConfig& c, int) const override {
    MixerShape m;
    m.kind = MixerKind::short_conv;
    m.inner = c.hidden;
    m.kernel = kernel_;
    m.conv_bias = bias_;
    m.tape_numbers = 6 * Count(c.hidden);  // see ShortConvTape
    return m;
  }

 private:
  int kernel_;
  bool bias_;
};

}  // namespace

std::unique_ptr<MixerType> make_short_conv_mixer(Spec& spec) {
  return std::make_unique<ShortConvType>(spec);
}

}  // namespace moe
