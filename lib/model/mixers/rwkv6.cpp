// RWKV-6's time mix, 2404.05892, with the names of the authors' code: mixes and decays that the
// token chooses, states of h heads of d that forget by channel, a bonus for the row itself.
//   d = shift(x) - x;  m = tanh((x + d mu_x) W1) in five parts, each times its W2
//   x_f = x + d (mu_f + m_f), f of w, k, v, r, g;  r, k, v, g = W x_f
//   log of what is kept = -exp(w0 + tanh(x_w A1) A2)
//   o = S'r + (sum of r u k) v;  S = diag(kept) S + k v'
//   out = W_o( groupnorm(o) silu(g) )
#include <cmath>

#include "lib/model/mixers/recurrent_base.h"
#include "lib/model/mixers/row_math.h"
#include "lib/model/mixers/rwkv_parts.h"
#include "lib/model/mixers/state_scan.h"

namespace moe {
namespace {

constexpr std::size_t mixes = 5;  // w, k, v, r, g

struct Rwkv6Options {
  int head_dim, mix_rank, decay_rank;
  double group_eps;

  explicit Rwkv6Options(Spec& s)
      : head_dim(s.get("head_dim", 0, 0)),
        mix_rank(s.get("mix_rank", 32, 1)),
        decay_rank(s.get("decay_rank", 64, 1)),
        group_eps(s.get("group_eps", 64e-5, 0.0)) {}

  // With what is left to the model: heads of 64, or one of all H where that is less.
  Rwkv6Options resolved(const ModelConfig& c) const {
    Rwkv6Options o = *this;
    if (o.head_dim == 0)
      o.head_dim = std::min(64, c.hidden);
    if (c.hidden % o.head_dim != 0) {
      throw Error(Exit::usage, concat("hidden = ", c.hidden,
                                      " is no multiple of the mixer's head_dim=", o.head_dim));
    }
    return o;
  }
  MixerShape shape(const ModelConfig& c, int) const {
    const Rwkv6Options o = resolved(c);
    const Count h = c.hidden;
    MixerShape m;
    m.kind = MixerKind::rwkv6;
    m.heads = h / o.head_dim;
    m.head_dim = o.head_dim;
    OwnPieces own;
    own.matrix(h, h, 5);
    own.matrix(h, Count(mixes) * o.mix_rank);
    own.matrix(o.mix_rank, h, Count(mixes));
    own.matrix(h, o.decay_rank);
    own.matrix(o.decay_rank, h);
    own.vector(10 * h);
    m.own = own.list.all;
    m.own_state = h + h * o.head_dim;
    m.own_flops = 6.0 * double(h) * o.head_dim;
    // see Rwkv6Tape and backward
    m.tape_numbers = 20 * h + 5 * o.mix_rank + o.decay_rank + m.heads;
    m.backward_numbers = 9 * h + 7 * o.mix_rank;
    return m;
  }
};

template <class S>
struct Rwkv6Tape final : MixerTape {
  Array<S> before;       // (T,H) the row before
  Array<S> x_x;          // the mix that the others are chosen by
  Array<S> inner;        // (T, 5 mix_rank) tanh
  Array<S> more[mixes];  // (T,H) what it adds to each mu
  Array<S> x[mixes];     // (T,H) mixes
  Array<S> decay_inner;  // (T, decay_rank) tanh
  Array<S> decay;        // (T,H) logarithms
  Array<S> k, v, r, g;   // (T,H)
  Array<S> o, normed, out;
  Array<S> rstd;    // (T, heads)
  Array<S> states;  // of a pass with a past
};

template <class S>
class Rwkv6 final : public RecurrentBase<S> {
 public:
  Rwkv6(const MixerPlace<S>& at, const Rwkv6Options& options)
      : RecurrentBase<S>(at, "att."),
        o_(options.resolved(at.config)),
        heads_(at.config.hidden / o_.head_dim) {
    make_mixes(at);
    make_decays(at);
    const Index h = at.config.hidden;
    const char* const names[] = {"key", "value", "receptance", "gate"};
    const char* const published[] = {"key.weight", "value.weight", "receptance.weight",
                                     "gate.weight"};
    for (std::size_t i = 1; i < mixes; ++i)
      this->matrix(w_[i], names[i - 1], h, h, published[i - 1]);
    this->vector(norm_, "ln_x", h, {.value = 1}, "ln_x.weight");
    this->vector(norm_bias_, "ln_x_bias", h, {}, "ln_x.bias");
    this->matrix(out_, "output", h, h, "output.weight", MatrixRole::mixer_output);
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<Rwkv6Tape<S>>();
    Rwkv6Tape<S>& t = *tape;
    RecurrentState<S>* state = this->states(past);
    const HostNumbers<S> rows = side_.read(x);
    t.before = shift().forward(batch, rows.view, part_of(state, 0));
    mixed(rows.view, t);
    Array<S>* const to[] = {&t.k, &t.v, &t.r, &t.g};
    for (std::size_t i = 1; i < mixes; ++i)
      *to[i - 1] = side_.product(t.x[i], w_[i]);
    decays(t);
    t.o = side_.array(x.rows, x.cols);
    t.states = scan_from<S>(side_, inputs(t), shape(batch), part_of(state, 1), t.o.view());
    normed(t);
    side_.product(t.out, out_, y);
    return tape;
  }

  void backward_through(const Batch& batch, const MixerTape& tape, View<const S> x,
                        View<const S> dy, View<S> dx, RecurrentState<S>* gradient) override {
    const auto& t = static_cast<const Rwkv6Tape<S>&>(tape);
    const HostNumbers<S> rows = side_.read(x);
    Array<S> by[mixes];  // by what each mix became: the decay's product, k, v, r, g
    for (Array<S>& a : by)
      a = side_.array(x.rows, x.cols);
    states_backward(batch, t, dy, by, gradient);
    Array<S> sum = side_.zeros(x.rows, x.cols);
    Array<S> dbefore = side_.zeros(x.rows, x.cols);
    mixed_backward(rows.view, t, by, sum, dbefore);
    shift().backward(batch, dbefore, sum.view(), part_of(gradient, 0));
    side_.set(sum, dx);
  }

  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto out = std::make_unique<RecurrentState<S>>();
    out->part.push_back(shift().new_state(sequences, config_.hidden));
    out->part.push_back(
        {"state", config_.hidden, side_.zeros(sequences * config_.hidden, o_.head_dim), heads_});
    return out;
  }

 private:
  using RecurrentBase<S>::side_;
  using RecurrentBase<S>::config_;

  static Start small() {
    return {.std = 0.01 / std::sqrt(3.0)};
  }
  void make_mixes(const MixerPlace<S>& at) {
    const Index h = at.config.hidden;
    const double depth = share_of(at.layer, at.config.layers);
    const double left = 1 - double(at.layer) / at.config.layers;
    const auto mu = [&](Parameter<S>& p, const char* name, double power, double less) {
      const auto rule = [=](Index i, double) {
        return 1 - std::pow(double(i) / double(h), power) - less;
      };
      this->vector(p, name, h, {.rule = rule}, name);
    };
    mu(mu_x_, "time_maa_x", left, 0);
    mu(mu_[0], "time_maa_w", left, 0);
    mu(mu_[1], "time_maa_k", left, 0);
    mu(mu_[2], "time_maa_v", left, 0.3 * depth);
    mu(mu_[3], "time_maa_r", 0.5 * left, 0);
    mu(mu_[4], "time_maa_g", 0.5 * left, 0);
    const Index ranks = Index(mixes) * o_.mix_rank;
    this->make(maa_in_, "time_maa_w1", {h, ranks}, ParameterKind::matrix, {}, "time_maa_w1");
    this->make(maa_out_, "time_maa_w2", {Index(mixes), o_.mix_rank, h}, ParameterKind::matrix,
               small(), "time_maa_w2");
  }
  void make_decays(const MixerPlace<S>& at) {
    const Index h = at.config.hidden;
    const double depth = share_of(at.layer, at.config.layers);
    const auto rising = [=](Index i, double) {
      return -6 + 5 * std::pow(share_of(i, h), 0.7 + 1.3 * depth);
    };
    const auto bonus = [=](Index i, double) {
      return depth * (1 - share_of(i, h)) + 0.1 * double((i + 1) % 3 - 1);
    };
    this->vector(w0_, "time_decay", h, {.rule = rising}, "time_decay");
    this->make(decay_in_, "time_decay_w1", {h, o_.decay_rank}, ParameterKind::matrix, {},
               "time_decay_w1");
    this->make(decay_out_, "time_decay_w2", {o_.decay_rank, h}, ParameterKind::matrix, small(),
               "time_decay_w2");
    this->make(bonus_, "time_faaaa", {heads_, o_.head_dim}, ParameterKind::vector, {.rule = bonus},
               "time_faaaa");
  }
  TokenShift<S> shift() const {
    return {side_};
  }
  TokenMix<S> mix(Parameter<S>& mu) const {
    return {side_, mu};
  }
  HeadNorm<S> head_norm() {
    return {side_, norm_, norm_bias_, heads_, o_.group_eps};
  }
  Bonus<S> bonus() {
    return {side_, bonus_, heads_};
  }
  ScanShape shape(const Batch& batch) const {
    return {.heads = heads_,
            .groups = heads_,
            .key = o_.head_dim,
            .value = o_.head_dim,
            .before = true,
            .start = batch.start};
  }
  ScanInputs<S> inputs(const Rwkv6Tape<S>& t) const {
    return {.q = t.r.view(), .k = t.k.view(), .v = t.v.view(), .decay = t.decay.view()};
  }
  View<const S> second(std::size_t i) const {  // W2 of a mix
    return maa_out_.value().block(Index(i), o_.mix_rank);
  }
  // Columns of one mix, of its own.
  Array<S> columns_of(const Array<S>& inner, std::size_t i) const {
    Array<S> out = side_.array(inner.rows(), o_.mix_rank);
    for_rows(inner.rows(), [&](Index r) {
      std::copy_n(row_of(inner, r) + Index(i) * o_.mix_rank, o_.mix_rank, row_of(out, r));
    });
    return out;
  }

  void mixed(View<const S> x, Rwkv6Tape<S>& t) {
    const View<const S> before = t.before.view();
    t.x_x = mix(mu_x_).forward(x, before);
    t.inner = side_.product_in_out(t.x_x, maa_in_.value());
    to_tanh(t.inner);
    for (std::size_t i = 0; i < mixes; ++i) {
      t.more[i] = side_.product_in_out(columns_of(t.inner, i), second(i));
      t.x[i] = mix(mu_[i]).forward(x, before, t.more[i].view());
    }
  }
  // Columns of one mix.
  void inner_backward(const Rwkv6Tape<S>& t, const Array<S>& dmore, std::size_t i,
                      Array<S>& dinner) {
    View<S> dw = maa_out_.grad();
    if (!dw.empty())
      dw = dw.block(Index(i), o_.mix_rank);
    const Array<S> dpart =
        side_.product_in_out_backward(dmore, columns_of(t.inner, i), second(i), dw);
    for_rows(dinner.rows(), [&](Index r) {
      std::copy_n(row_of(dpart, r), o_.mix_rank, row_of(dinner, r) + Index(i) * o_.mix_rank);
    });
  }
  void mixed_backward(View<const S> x, const Rwkv6Tape<S>& t, Array<S>* by, Array<S>& sum,
                      Array<S>& dbefore) {
    const View<const S> before = t.before.view();
    Array<S> dinner = side_.array(x.rows, t.inner.cols());
    for (std::size_t i = 0; i < mixes; ++i) {
      const Array<S> dmixed =
          i == 0 ? decays_backward(by[0], t) : side_.product_backward(by[i], t.x[i], w_[i]);
      Array<S> dmore = side_.array(x.rows, x.cols);
      mix(mu_[i]).backward(dmixed.view(), x, before, t.more[i].view(), sum.view(), dbefore.view(),
                           dmore.view());
      inner_backward(t, dmore, i, dinner);
    }
    tanh_backward(t.inner, dinner);
    const Array<S> dmixed =
        side_.product_in_out_backward(dinner, t.x_x, maa_in_.value(), maa_in_.grad());
    mix(mu_x_).backward(dmixed.view(), x, before, {}, sum.view(), dbefore.view());
  }

  void decays(Rwkv6Tape<S>& t) {
    t.decay_inner = side_.product_in_out(t.x[0], decay_in_.value());
    to_tanh(t.decay_inner);
    t.decay = side_.product_in_out(t.decay_inner, decay_out_.value());
    const HostNumbers<S> w0 = side_.read(w0_);
    for_rows(t.decay.rows(), [&](Index r) {
      for (Index i = 0; i < t.decay.cols(); ++i) {
        S& v = t.decay.view()(r, i);
        v = S(-std::exp(double(v) + double(w0(0, i))));
      }
    });
  }
  // `by` holds the gradient by the decays; returns that by x_w.
  Array<S> decays_backward(Array<S>& by, const Rwkv6Tape<S>& t) {
    Array<S> dw0 = side_.zeros(1, by.cols());
    sum_rows<S>(by.rows(), dw0.view(), [&](Index r, S* sum) {
      S* d = row_of(by, r);
      row_math::product(d, row_of(t.decay, r), d, by.cols());
      row_math::add(d, S(1), sum, by.cols());
    });
    side_.accumulate(dw0.view(), w0_);
    Array<S> dinner =
        side_.product_in_out_backward(by, t.decay_inner, decay_out_.value(), decay_out_.grad());
    tanh_backward(t.decay_inner, dinner);
    return side_.product_in_out_backward(dinner, t.x[0], decay_in_.value(), decay_in_.grad());
  }

  // The bonus, the norm and the gate.
  void normed(Rwkv6Tape<S>& t) {
    const Index rows = t.o.rows();
    const Index h = t.o.cols();
    bonus().forward(t.r.view(), t.k.view(), t.v.view(), t.o.view());
    t.normed = side_.array(rows, h);
    t.rstd = side_.array(rows, heads_);
    head_norm().forward(t.o.view(), t.normed.view(), t.rstd.view());
    t.out = side_.array(rows, h);
    row_math::silu(t.g.view().data, t.out.view().data, nullptr, t.g.view().size());
    row_math::product(t.out.view().data, t.normed.view().data, t.out.view().data,
                      t.out.view().size());
  }
  // dnormed becomes the gradient before the gate; sets dg.
  void gate_backward(const Rwkv6Tape<S>& t, Array<S>& dnormed, Array<S>& dg) const {
    const Index n = dnormed.view().size();
    row_math::silu(t.g.view().data, nullptr, dg.view().data, n);
    row_math::product(dg.view().data, t.normed.view().data, dg.view().data, n);
    row_math::product(dg.view().data, dnormed.view().data, dg.view().data, n);
    for (Index i = 0; i < n; ++i) {
      const S g = t.g.view().data[i];
      dnormed.view().data[i] *= g / (1 + std::exp(-g));
    }
  }
  // From dy to the gradients by the decays, k, v, r and g.
  void states_backward(const Batch& batch, const Rwkv6Tape<S>& t, View<const S> dy, Array<S>* by,
                       RecurrentState<S>* gradient) {
    Array<S> dnormed = side_.product_backward(dy, t.out, out_);
    gate_backward(t, dnormed, by[4]);
    Array<S> d_o = side_.array(dy.rows, dy.cols);
    head_norm().backward(dnormed.view(), t.o.view(), t.rstd.view(), d_o.view());
    const ScanGradients<S> to{
        .q = by[3].view(), .k = by[1].view(), .v = by[2].view(), .decay = by[0].view()};
    scan_back<S>(side_, inputs(t), shape(batch), t.states, d_o.view(), part_of(gradient, 1), to);
    bonus().backward(d_o.view(), t.r.view(), t.k.view(), t.v.view(), by[3].view(), by[1].view(),
                     by[2].view());
  }

  Rwkv6Options o_;
  Index heads_;
  Parameter<S> mu_x_, mu_[mixes], maa_in_, maa_out_, w0_, decay_in_, decay_out_, bonus_, w_[mixes],
      norm_, norm_bias_, out_;
};

}  // namespace

std::unique_ptr<MixerType> make_rwkv6_mixer(Spec& spec) {
  return std::make_unique<RecurrentType<Rwkv6Options, Rwkv6>>(Rwkv6Options(spec));
}

}  // namespace moe
