// LFM2's gated short convolution: (b, c, u) = W_in x, v = conv(b * u), y = W_out (c * v), where *
// is number by number and conv runs over the last K tokens of each channel on its own, the last
// column of its kernel being the token itself. Optional biases on all three.
#include <cmath>

#include "lib/core/batch.h"
#include "lib/core/parallel.h"
#include "lib/model/config.h"
#include "lib/model/linear.h"
#include "lib/model/mixer_type.h"

namespace moe {
namespace {

template <class S>
struct ShortConvTape final : MixerTape {
  Array<S> b, c, u;  // (T,H) each
  Array<S> gated;    // b * u
  Array<S> v;        // its convolution
  Array<S> out;      // c * v
};
template <class S>
struct ShortConvState final : MixerState {
  Array<S> before;  // (Q*(K-1),H) the last rows of b * u of each sequence; zeros before its first
};

// x * y, number by number. Computed on the host; a copy each way on a device.
template <class S>
Array<S> product(Backend<S>& backend, const Array<S>& x, const Array<S>& y) {
  Matrix<S> a = x.to_host();
  const Matrix<S> b = y.to_host();
  parallel_for(a.rows(), 16, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      for (Index c = 0; c < a.cols(); ++c)
        a(t, c) *= b(t, c);
    }
  });
  return Array<S>(backend, std::as_const(a).view());
}

template <class S>
class ShortConv final : public Mixer<S> {
 public:
  ShortConv(const MixerPlace<S>& at, int kernel, bool bias)
      : config_(at.config), backend_(at.backend) {
    const Index h = at.config.hidden;
    const auto vector = [&](const char* name, Index n) {
      return Parameter<S>(backend_, name, {n}, ParameterKind::vector);
    };
    in_ = Parameter<S>(backend_, "in_proj", {3 * h, h});
    conv_ = Parameter<S>(backend_, "conv", {h, 1, kernel});
    out_ = Parameter<S>(backend_, "out_proj", {h, h});
    if (bias) {
      in_bias_ = vector("in_proj_bias", 3 * h);
      conv_bias_ = vector("conv_bias", h);
      out_bias_ = vector("out_proj_bias", h);
    }
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<ShortConvTape<S>>();
    ShortConvTape<S>& t = *tape;
    split(x, t);
    t.gated = product(backend_, t.b, t.u);
    t.v = Array<S>(backend_, x.rows, x.cols);
    View<const S> before;
    if (past)
      before = static_cast<ShortConvState<S>&>(past->state).before.view();
    backend_.causal_conv(t.gated.view(), conv_.value(), conv_bias_.value(), batch.start, before,
                         t.v.view());
    if (past)
      carry(batch, t.gated.view(), static_cast<ShortConvState<S>&>(past->state));
    t.out = product(backend_, t.c, t.v);
    project(backend_, std::as_const(t.out).view(), out_, out_bias_, y);
    return tape;
  }

  void backward(const Batch& batch, const MixerTape& tape, View<const S> x, View<const S> dy,
                View<S> dx) override {
    const auto& t = static_cast<const ShortConvTape<S>&>(tape);
    Array<S> dout(backend_, x.rows, x.cols);
    Array<S> dgated(backend_, x.rows, x.cols);
    project_backward(backend_, dy, t.out.view(), out_, out_bias_, dout.view(), S(0));
    const Array<S> dv = product(backend_, dout, t.c);
    backend_.causal_conv_backward(dv.view(), t.gated.view(), conv_.value(), batch.start,
                                  dgated.view(), conv_.grad(), conv_bias_.grad());
    const Array<S> db = product(backend_, dgated, t.u);
    const Array<S> dc = product(backend_, dout, t.v);
    const Array<S> du = product(backend_, dgated, t.b);
    Array<S> dcu(backend_, x.rows, 2 * x.cols);
    Array<S> dall(backend_, x.rows, 3 * x.cols);
    backend_.join_heads(dc.view(), du.view(), 1, dcu.view());
    backend_.join_heads(db.view(), dcu.view(), 1, dall.view());
    project_backward(backend_, std::as_const(dall).view(), x, in_, in_bias_, dx, S(0));
  }

  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto state = std::make_unique<ShortConvState<S>>();
    state->before = Array<S>::zeros(backend_, sequences * history(), conv_.value().rows);
    return state;
  }

  void collect(std::vector<ModelParameter<S>>& all) override {
    const auto matrix = [&](Parameter<S>& p, MatrixRole role, const char* published) {
      all.push_back({.parameter = &p,
                     .start = matrix_start(config_, role, p.dims().back()),
                     .published = published});
    };
    const auto bias = [&](Parameter<S>& p, const char* published) {
      if (!p.empty())
        all.push_back({.parameter = &p, .published = published});
    };
    matrix(in_, MatrixRole::mixer, "conv.in_proj.weight");
    bias(in_bias_, "conv.in_proj.bias");
    // so that what comes out is as large as what went in
    all.push_back({.parameter = &conv_,
                   .start = {.std = 1 / std::sqrt(double(conv_.dims().back()))},
                   .published = "conv.conv.weight"});
    bias(conv_bias_, "conv.conv.bias");
    matrix(out_, MatrixRole::mixer_output, "conv.out_proj.weight");
    bias(out_bias_, "conv.out_proj.bias");
  }

 private:
  Index history() const {
    return conv_.dims().back() - 1;
  }

  void split(View<const S> x, ShortConvTape<S>& t) {
    Array<S> all(backend_, x.rows, 3 * x.cols);
    Array<S> cu(backend_, x.rows, 2 * x.cols);
    project(backend_, x, in_, in_bias_, all.view());
    for (Array<S>* part : {&t.b, &t.c, &t.u})
      *part = Array<S>(backend_, x.rows, x.cols);
    backend_.split_heads(all.view(), 1, t.b.view(), cu.view());
    backend_.split_heads(cu.view(), 1, t.c.view(), t.u.view());
  }

  // The last rows of each sequence, from before and from this batch. Adding to zeros copies on
  // every backend.
  void carry(const Batch& batch, View<const S> gated, ShortConvState<S>& state) {
    auto next = Array<S>::zeros(backend_, state.before.rows(), gated.cols);
    for (Index q = 0; q < batch.sequences(); ++q) {
      const Index first = batch.start[std::size_t(q)];
      const Index fresh = std::min(history(), batch.start[std::size_t(q) + 1] - first);
      const Index kept = history() - fresh;
      const View<S> to = next.view().slice(q * history(), history());
      if (kept > 0) {
        backend_.add(std::as_const(state.before).view().slice(q * history() + fresh, kept),
                     to.slice(0, kept), 1);
      }
      if (fresh > 0) {
        const Index end = batch.start[std::size_t(q) + 1];
        backend_.add(gated.slice(end - fresh, fresh), to.slice(kept, fresh), 1);
      }
    }
    state.before = std::move(next);
  }

  const ModelConfig& config_;
  Backend<S>& backend_;
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
