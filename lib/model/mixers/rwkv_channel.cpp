// RWKV's channel mix, the feed-forward that also sees the row before: a layer of its own in a list
// of mixers, where a MoE layer does not stand in its place.
//   4: x_f = x mu_f + shift(x) (1 - mu_f);  6, 7: x_f = x + (shift(x) - x) mu_f
//   W_v relu(W_k x_k)^2, in 4 and 6 times sigmoid(W_r x_r)
#include <cmath>

#include "lib/model/mixers/recurrent_base.h"
#include "lib/model/mixers/rwkv_parts.h"
#include "lib/model/mixers/state_scan.h"

namespace moe {
namespace {

struct ChannelOptions {
  int version, width;

  explicit ChannelOptions(Spec& s)
      : version(std::stoi(s.choice("version", {"7", "6", "4"}))), width(s.get("width", 0, 0)) {}

  Index inner(const ModelConfig& c) const {
    return width > 0 ? width : version == 6 ? 7 * c.hidden / 2 : 4 * c.hidden;
  }
  bool gated() const {
    return version != 7;
  }
  MixerShape shape(const ModelConfig& c, int) const {
    const Index n = inner(c);
    const Count h = c.hidden;
    MixerShape m;
    m.kind = MixerKind::channel_mix;
    OwnPieces own;
    own.matrix(n, h);
    own.matrix(h, n);
    own.matrix(h, h, gated());
    own.vector(gated() ? 2 * h : h);
    m.own = own.list.all;
    m.own_state = h;
    // see ChannelTape and backward
    m.tape_numbers = 2 * h + 2 * n + (gated() ? 3 * h : 0);
    m.backward_numbers = 3 * h + n + (gated() ? h : 0);
    return m;
  }
};

template <class S>
struct ChannelTape final : MixerTape {
  Array<S> before, x_k, x_r;  // (T,H) the row before; mixes
  Array<S> k, hidden;         // (T, width) and relu(k)^2
  Array<S> r, value;          // (T,H) of gated ones
};

template <class S>
class ChannelMix final : public RecurrentBase<S> {
 public:
  ChannelMix(const MixerPlace<S>& at, const ChannelOptions& o)
      : RecurrentBase<S>(at, o.version == 4 ? "feed_forward." : "ffn."),
        o_(o),
        width_(o.inner(at.config)) {
    const Index h = at.config.hidden;
    const double left = 1 - double(at.layer) / at.config.layers;
    const double power = o.version == 7 ? std::pow(left, 4) : left;
    const Start start{.rule = [=, v4 = o.version == 4](Index i, double) {
      const double share = std::pow(double(i) / double(h), power);
      return v4 ? share : 1 - share;
    }};
    const char* const names[] = {"time_mix_key", "time_maa_k", "x_k"};
    const char* const name = names[o.version == 4 ? 0 : o.version == 6 ? 1 : 2];
    this->vector(mu_k_, name, h, start, name);
    if (o.gated()) {
      const char* const second = o.version == 4 ? "time_mix_receptance" : "time_maa_r";
      this->vector(mu_r_, second, h, start, second);
    }
    this->matrix(key_, "key", width_, h, "key.weight");
    if (o.gated())
      this->matrix(receptance_, "receptance", h, h, "receptance.weight");
    this->matrix(value_, "value", h, width_, "value.weight", MatrixRole::mixer_output);
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<ChannelTape<S>>();
    ChannelTape<S>& t = *tape;
    RecurrentState<S>* state = this->states(past);
    const HostNumbers<S> rows = side_.read(x);
    t.before = shift().forward(batch, rows.view, part_of(state, 0));
    t.x_k = mix(mu_k_).forward(rows.view, t.before.view());
    t.k = side_.product(t.x_k, key_);
    t.hidden = side_.array(x.rows, width_);
    for (Index i = 0; i < t.k.view().size(); ++i) {
      const S k = std::max(t.k.view().data[i], S(0));
      t.hidden.view().data[i] = k * k;
    }
    if (!o_.gated()) {
      side_.product(t.hidden, value_, y);
      return tape;
    }
    t.x_r = mix(mu_r_).forward(rows.view, t.before.view());
    t.r = side_.product(t.x_r, receptance_);
    t.value = side_.product(t.hidden, value_);
    Array<S> out = side_.array(x.rows, x.cols);
    for (Index i = 0; i < out.view().size(); ++i)
      out.view().data[i] = t.value.view().data[i] / (1 + std::exp(-t.r.view().data[i]));
    side_.set(out, y);
    return tape;
  }

  void backward_through(const Batch& batch, const MixerTape& tape, View<const S> x,
                        View<const S> dy, View<S> dx, RecurrentState<S>* gradient) override {
    const auto& t = static_cast<const ChannelTape<S>&>(tape);
    const HostNumbers<S> rows = side_.read(x);
    Array<S> sum = side_.zeros(x.rows, x.cols);
    Array<S> dbefore = side_.zeros(x.rows, x.cols);
    Array<S> dhidden = o_.gated() ? gate_backward(t, rows.view, dy, sum, dbefore)
                                  : side_.product_backward(dy, t.hidden, value_);
    for (Index i = 0; i < dhidden.view().size(); ++i)
      dhidden.view().data[i] *= 2 * std::max(t.k.view().data[i], S(0));
    const Array<S> dmixed = side_.product_backward(dhidden, t.x_k, key_);
    mix(mu_k_).backward(dmixed.view(), rows.view, t.before.view(), {}, sum.view(), dbefore.view());
    shift().backward(batch, dbefore, sum.view(), part_of(gradient, 0));
    side_.set(sum, dx);
  }

  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto out = std::make_unique<RecurrentState<S>>();
    out->part.push_back(shift().new_state(sequences, config_.hidden));
    return out;
  }

 private:
  using RecurrentBase<S>::side_;
  using RecurrentBase<S>::config_;

  TokenShift<S> shift() const {
    return {side_};
  }
  TokenMix<S> mix(Parameter<S>& mu) const {
    return {side_, mu, o_.version == 4};
  }

  // The gradient by the hidden units of a gated mix; adds what comes by way of the gate.
  Array<S> gate_backward(const ChannelTape<S>& t, View<const S> x, View<const S> dy, Array<S>& sum,
                         Array<S>& dbefore) {
    const HostNumbers<S> g = side_.read(dy);
    Array<S> dvalue = side_.array(x.rows, x.cols);
    Array<S> dr = side_.array(x.rows, x.cols);
    for (Index i = 0; i < g.view.size(); ++i) {
      const S s = 1 / (1 + std::exp(-t.r.view().data[i]));
      dvalue.view().data[i] = g.view.data[i] * s;
      dr.view().data[i] = g.view.data[i] * t.value.view().data[i] * s * (1 - s);
    }
    const Array<S> dmixed = side_.product_backward(dr, t.x_r, receptance_);
    mix(mu_r_).backward(dmixed.view(), x, t.before.view(), {}, sum.view(), dbefore.view());
    return side_.product_backward(dvalue, t.hidden, value_);
  }

  ChannelOptions o_;
  Index width_;
  Parameter<S> mu_k_, mu_r_, key_, receptance_, value_;
};

}  // namespace

std::unique_ptr<MixerType> make_rwkv_channel_mixer(Spec& spec) {
  return std::make_unique<RecurrentType<ChannelOptions, ChannelMix>>(ChannelOptions(spec));
}

}  // namespace moe
