// RWKV-4's time mix, 2305.13048, as the class in transformers computes it: means of the values so
// far, weighted by e^key, that fall by e^-w a token, and u for the token itself.
//   r, k, v = W (x mu + shift(x) (1 - mu));  w = exp(time_decay), u = time_first
//   out = W_o( sigmoid(r) weighted_mean(k, v; w, u) )
#include <cmath>

#include "lib/model/mixers/recurrent_base.h"
#include "lib/model/mixers/row_math.h"
#include "lib/model/mixers/rwkv_parts.h"
#include "lib/model/mixers/state_scan.h"

namespace moe {
namespace {

constexpr double nothing = -1e38;  // the exponent of no rows

struct Rwkv4Options {
  int width;

  explicit Rwkv4Options(Spec& s) : width(s.get("width", 0, 0)) {}

  Index inner(const ModelConfig& c) const {
    return width > 0 ? width : c.hidden;
  }
  MixerShape shape(const ModelConfig& c, int) const {
    const Index n = inner(c);
    MixerShape m;
    m.kind = MixerKind::rwkv4;
    OwnPieces own;
    own.matrix(n, c.hidden, 3);
    own.matrix(c.hidden, n);
    own.vector(2 * n + 3 * c.hidden);
    m.own = own.list.all;
    m.own_state = c.hidden + 3 * n;
    m.own_flops = 12.0 * double(n);
    // see Rwkv4Tape and backward
    m.tape_numbers = 4 * c.hidden + 5 * n;
    m.backward_numbers = 3 * c.hidden + 4 * n + 6;
    return m;
  }
};

template <class S>
struct Rwkv4Tape final : MixerTape {
  Array<S> before;           // (T,H) the row before
  Array<S> x[3];             // (T,H) mixes for k, v and r
  Array<S> k, v, r, o, out;  // (T, width)
  Array<S> states;           // (Q*3, width) of a pass with a past: what the state held
};

template <class S>
class Rwkv4 final : public RecurrentBase<S> {
 public:
  Rwkv4(const MixerPlace<S>& at, const Rwkv4Options& options)
      : RecurrentBase<S>(at, "attention."), width_(options.inner(at.config)) {
    const Index h = at.config.hidden;
    const double depth = share_of(at.layer, at.config.layers);
    const double left = 1 - double(at.layer) / at.config.layers;
    const auto mix = [h](double power, double more) {
      return Start{.rule = [=](Index i, double) {
        return std::pow(double(i) / double(h), power) + more;
      }};
    };
    this->vector(time_decay_, "time_decay", width_,
                 {.rule =
                      [n = width_, depth](Index i, double) {
                        return -5 + 8 * std::pow(share_of(i, n), 0.7 + 1.3 * depth);
                      }},
                 "time_decay");
    this->vector(time_first_, "time_first", width_,
                 {.rule =
                      [](Index i, double) {
                        return std::log(0.3) + 0.5 * double((i + 1) % 3 - 1);
                      }},
                 "time_first");
    this->vector(mu_[0], "time_mix_key", h, mix(left, 0), "time_mix_key");
    this->vector(mu_[1], "time_mix_value", h, mix(left, 0.3 * depth), "time_mix_value");
    this->vector(mu_[2], "time_mix_receptance", h, mix(0.5 * left, 0), "time_mix_receptance");
    this->matrix(w_[0], "key", width_, h, "key.weight");
    this->matrix(w_[1], "value", width_, h, "value.weight");
    this->matrix(w_[2], "receptance", width_, h, "receptance.weight");
    this->matrix(out_, "output", h, width_, "output.weight", MatrixRole::mixer_output);
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<Rwkv4Tape<S>>();
    Rwkv4Tape<S>& t = *tape;
    RecurrentState<S>* state = this->states(past);
    const HostNumbers<S> rows = side_.read(x);
    t.before = shift().forward(batch, rows.view, part_of(state, 0));
    Array<S>* const to[] = {&t.k, &t.v, &t.r};
    for (std::size_t i = 0; i < 3; ++i) {
      t.x[i] = mix(i).forward(rows.view, t.before.view());
      *to[i] = side_.product(t.x[i], w_[i]);
    }
    means(batch, t, state);
    t.out = side_.array(x.rows, width_);
    row_math::sigmoid(t.r.view().data, t.out.view().data, nullptr, t.r.view().size());
    row_math::product(t.out.view().data, t.o.view().data, t.out.view().data, t.o.view().size());
    side_.product(t.out, out_, y);
    return tape;
  }

  void backward_through(const Batch& batch, const MixerTape& tape, View<const S> x,
                        View<const S> dy, View<S> dx, RecurrentState<S>* gradient) override {
    const auto& t = static_cast<const Rwkv4Tape<S>&>(tape);
    const HostNumbers<S> rows = side_.read(x);
    Array<S> d_o = side_.product_backward(dy, t.out, out_);
    Array<S> dr = side_.array(x.rows, width_);
    gate_backward(t, d_o, dr);
    Array<S> dk = side_.array(x.rows, width_);
    Array<S> dv = side_.array(x.rows, width_);
    mean_backward(batch, t, d_o, dk, dv, gradient);
    Array<S> sum = side_.zeros(x.rows, x.cols);
    Array<S> dbefore = side_.zeros(x.rows, x.cols);
    const Array<S>* const by[] = {&dk, &dv, &dr};
    for (std::size_t i = 0; i < 3; ++i) {
      const Array<S> dmixed = side_.product_backward(*by[i], t.x[i], w_[i]);
      mix(i).backward(dmixed.view(), rows.view, t.before.view(), {}, sum.view(), dbefore.view());
    }
    shift().backward(batch, dbefore, sum.view(), part_of(gradient, 0));
    side_.set(sum, dx);
  }

  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto out = std::make_unique<RecurrentState<S>>();
    out->part.push_back(shift().new_state(sequences, config_.hidden));
    for (const char* name : {"num", "den", "max"})
      out->part.push_back({name, 1, side_.zeros(sequences, width_)});
    std::ranges::fill(out->part.back().numbers.view().flat(), S(nothing));
    return out;
  }

 private:
  using RecurrentBase<S>::side_;
  using RecurrentBase<S>::config_;

  TokenShift<S> shift() const {
    return {side_};
  }
  TokenMix<S> mix(std::size_t i) {
    return {side_, mu_[i], true};
  }
  Array<S> decays() const {
    const HostNumbers<S> log = side_.read(time_decay_);
    Array<S> out = side_.array(1, width_);
    for (Index i = 0; i < width_; ++i)
      out.view().data[i] = S(std::exp(double(log.view.data[i])));
    return out;
  }
  WeightedMeanInputs<S> inputs(const Rwkv4Tape<S>& t, const Array<S>& decay,
                               const HostNumbers<S>& first, const Batch& batch) const {
    return {.k = t.k.view(),
            .v = t.v.view(),
            .decay = decay.view(),
            .first = first.view,
            .start = batch.start,
            .initial = t.states.view()};
  }
  // num, den and max of each sequence, one after the other, and back.
  Array<S> gathered(const RecurrentState<S>& state) const {
    const Index sequences = state.part[1].numbers.rows();
    Array<S> out = side_.array(3 * sequences, width_);
    for (Index q = 0; q < sequences; ++q) {
      for (Index i = 0; i < 3; ++i) {
        std::ranges::copy(state.part[std::size_t(i) + 1].numbers.view().row(q),
                          row_of(out, 3 * q + i));
      }
    }
    return out;
  }
  void scatter(const Array<S>& all, RecurrentState<S>& state) const {
    for (Index r = 0; r < all.rows(); ++r) {
      std::ranges::copy(all.view().row(r),
                        row_of(state.part[std::size_t(r % 3) + 1].numbers, r / 3));
    }
  }
  // d_o becomes the gradient by the means, dr is set.
  void gate_backward(const Rwkv4Tape<S>& t, Array<S>& d_o, Array<S>& dr) const {
    for (Index i = 0; i < d_o.view().size(); ++i) {
      const S s = 1 / (1 + std::exp(-t.r.view().data[i]));
      dr.view().data[i] = d_o.view().data[i] * t.o.view().data[i] * s * (1 - s);
      d_o.view().data[i] *= s;
    }
  }
  void means(const Batch& batch, Rwkv4Tape<S>& t, RecurrentState<S>* state) const {
    Array<S> last;
    if (state) {
      t.states = gathered(*state);
      last = side_.array(t.states.rows(), width_);
    }
    t.o = side_.array(t.k.rows(), width_);
    const Array<S> decay = decays();
    side_.scans().weighted_mean(inputs(t, decay, side_.read(time_first_), batch), last.view(),
                                t.o.view());
    if (state)
      scatter(last, *state);
  }
  void mean_backward(const Batch& batch, const Rwkv4Tape<S>& t, const Array<S>& d_o, Array<S>& dk,
                     Array<S>& dv, RecurrentState<S>* gradient) {
    const Array<S> decay = decays();
    Array<S> ddecay = side_.zeros(1, width_);
    Array<S> dfirst = side_.zeros(1, width_);
    Array<S> dlast, dinitial;
    if (gradient) {
      dlast = gathered(*gradient);
      dinitial = side_.array(dlast.rows(), dlast.cols());
    }
    const WeightedMeanGradients<S> to{.k = dk.view(),
                                      .v = dv.view(),
                                      .decay = ddecay.view(),
                                      .first = dfirst.view(),
                                      .initial = dinitial.view()};
    side_.scans().weighted_mean_backward(inputs(t, decay, side_.read(time_first_), batch),
                                         d_o.view(), dlast.view(), to);
    if (gradient)
      scatter(dinitial, *gradient);
    row_math::product(ddecay.view().data, decay.view().data, ddecay.view().data, width_);
    side_.accumulate(ddecay.view(), time_decay_);
    side_.accumulate(dfirst.view(), time_first_);
  }

  Index width_;
  Parameter<S> time_decay_, time_first_, mu_[3], w_[3], out_;
};

}  // namespace

std::unique_ptr<MixerType> make_rwkv4_mixer(Spec& spec) {
  return std::make_unique<RecurrentType<Rwkv4Options, Rwkv4>>(Rwkv4Options(spec));
}

}  // namespace moe
