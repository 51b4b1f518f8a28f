// Kimi delta attention, 2510.26692, as Kimi Linear and (bounded decays, full gates) Ling 3 publish
// it: the gated delta rule with a decay for each key channel, h heads of d for q, k, v and states.
//   q, k, v = silu(conv(W x));  q = l2(q)/sqrt(d), k = l2(k);  beta = sigmoid(W_b x)
//   S = diag(e^g) S;  S = S + k (beta (v - S'k))';  o = S'q
//   g = -exp(A_log) softplus(f + dt_bias), or bound sigmoid(exp(A_log) (f + dt_bias))
//   out = W_o( rmsnorm(o) w sigmoid(gate) );  f and gate are products of x, of rank d or full
#include <cmath>

#include "lib/model/mixers/conv_part.h"
#include "lib/model/mixers/decay_gate.h"
#include "lib/model/mixers/delta_core.h"
#include "lib/model/mixers/gated_norm.h"
#include "lib/model/mixers/recurrent_base.h"
#include "lib/model/mixers/row_math.h"
#include "lib/model/mixers/state_scan.h"

namespace moe {
namespace {

struct KdaOptions {
  int heads, head_dim, kernel;
  bool low_rank;
  double bound;

  explicit KdaOptions(Spec& s)
      : heads(s.get("heads", 0, 0)),
        head_dim(s.get("head_dim", 0, 0)),
        kernel(s.get("kernel", 4, 1)),
        low_rank(s.get("low_rank", true)),
        bound(s.get("lower_bound", 0.0)) {}

  // With what is left to the model: heads of 64, or one of all H where that is less; H / head_dim
  // of them.
  KdaOptions resolved(const ModelConfig& c) const {
    KdaOptions o = *this;
    if (o.bound > 0)
      throw Error(Exit::usage,
                  concat("lower_bound=", o.bound, " of a decay's logarithm is above 0"));
    if (o.head_dim == 0)
      o.head_dim = std::min(64, c.hidden);
    if (o.heads == 0 && c.hidden % o.head_dim != 0) {
      throw Error(Exit::usage, concat("hidden = ", c.hidden,
                                      " is no multiple of the mixer's head_dim=", o.head_dim))
          .hint("give its heads, or another head_dim");
    }
    if (o.heads == 0)
      o.heads = c.hidden / o.head_dim;
    return o;
  }
  Index inner() const {
    return Index(heads) * head_dim;
  }
  MixerShape shape(const ModelConfig& c, int) const {
    const KdaOptions o = resolved(c);
    const Index n = o.inner();
    MixerShape m;
    m.kind = MixerKind::kimi_delta;
    m.heads = o.heads;
    m.head_dim = o.head_dim;
    OwnPieces own;
    own.matrix(n, c.hidden, 3);
    own.matrix(n, o.kernel, 3);
    own.matrix(o.heads, c.hidden);
    if (o.low_rank) {
      own.matrix(o.head_dim, c.hidden, 2);
      own.matrix(n, o.head_dim, 2);
    } else {
      own.matrix(n, c.hidden, 2);
    }
    own.vector(o.heads + n + o.head_dim);
    own.matrix(c.hidden, n);
    m.own = own.list.all;
    m.own_state = (o.kernel - 1) * 3 * n + n * o.head_dim;
    m.own_flops = 8.0 * double(n) * o.head_dim;
    // see KdaTape and backward
    m.tape_numbers = 6 * n + 3 * o.heads + 5 * n + (o.low_rank ? 2 * o.head_dim : 0) +
                     DeltaTape<float>::numbers(o.heads, o.heads, o.head_dim, o.head_dim);
    m.backward_numbers = 10 * n + 2 * o.heads;
    return m;
  }
};

template <class S>
struct KdaTape final : MixerTape {
  Array<S> mixed, conv;             // (T, 3 inner) q, k and v before and after the convolutions
  Array<S> b, beta;                 // (T, heads)
  Array<S> narrow_f, narrow_g;      // (T, head_dim) of products of low rank
  Array<S> f, decay, gate, o, out;  // (T, inner)
  Array<S> rstd;                    // (T, heads)
  DeltaTape<S> delta;
  Array<S> rows_before;  // of a pass with a past
};

template <class S>
class Kda final : public RecurrentBase<S> {
 public:
  Kda(const MixerPlace<S>& at, const KdaOptions& options)
      : RecurrentBase<S>(at, "self_attn."), o_(options.resolved(at.config)) {
    const Index h = at.config.hidden;
    const Index n = o_.inner();
    const Index d = o_.head_dim;
    this->matrix(q_, "q_proj", n, h, "q_proj.weight");
    this->matrix(k_, "k_proj", n, h, "k_proj.weight");
    this->matrix(v_, "v_proj", n, h, "v_proj.weight");
    this->kernel(q_conv_, "q_conv1d", n, o_.kernel, "q_conv1d.weight");
    this->kernel(k_conv_, "k_conv1d", n, o_.kernel, "k_conv1d.weight");
    this->kernel(v_conv_, "v_conv1d", n, o_.kernel, "v_conv1d.weight");
    this->matrix(b_, "b_proj", o_.heads, h, "b_proj.weight");
    make_gates();
    this->vector(a_log_, "A_log", o_.heads,
                 {.rule =
                      [](Index, double u) {
                        return std::log(1 + 15 * u);
                      }},
                 "A_log");
    this->vector(dt_bias_, "dt_bias", n, {.rule = step_start}, "dt_bias");
    this->vector(norm_, "o_norm", d, {.value = 1}, "o_norm.weight");
    this->matrix(out_, "o_proj", h, n, "o_proj.weight", MatrixRole::mixer_output);
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<KdaTape<S>>();
    KdaTape<S>& t = *tape;
    RecurrentState<S>* state = this->states(past);
    const Index n = o_.inner();
    project_in(x, t);
    t.conv = side_.array(x.rows, 3 * n);
    t.rows_before = conv().forward(batch, t.mixed.view(), t.conv.view(), part_of(state, 0));
    t.beta = side_.array(x.rows, o_.heads);
    row_math::sigmoid(t.b.view().data, t.beta.view().data, nullptr, t.b.view().size());
    t.decay = side_.array(x.rows, n);
    decays().forward(t.f.view(), t.decay.view());
    t.o = side_.array(x.rows, n);
    core().forward(batch, t.conv.view(), t.beta.view(), t.decay.view(), t.delta, t.o.view(),
                   part_of(state, 1));
    t.out = side_.array(x.rows, n);
    t.rstd = side_.array(x.rows, o_.heads);
    const HostNumbers<S> w = side_.read(norm_);
    gated_norm(w).forward(t.o.view(), {t.gate.view(), 0}, t.out.view(), t.rstd.view());
    side_.product(t.out, out_, y);
    return tape;
  }

  void backward_through(const Batch& batch, const MixerTape& tape, View<const S> x,
                        View<const S> dy, View<S> dx, RecurrentState<S>* gradient) override {
    const auto& t = static_cast<const KdaTape<S>&>(tape);
    const Index n = o_.inner();
    Array<S> dgate = side_.array(x.rows, n);
    const Array<S> d_o = norm_backward(t, dy, dgate);
    Array<S> dconv = side_.array(x.rows, 3 * n);
    Array<S> db = side_.array(x.rows, o_.heads);
    Array<S> df = side_.array(x.rows, n);
    core().backward(batch, t.delta, t.conv.view(), t.beta.view(), t.decay.view(), d_o.view(),
                    dconv.view(), db.view(), df.view(), part_of(gradient, 1));
    for (Index i = 0; i < db.view().size(); ++i) {
      const S beta = t.beta.view().data[i];
      db.view().data[i] *= beta * (1 - beta);
    }
    decays().backward(t.f.view(), df.view(), df.view());
    Array<S> dmixed = side_.array(x.rows, 3 * n);
    conv().backward(batch, dconv.view(), t.mixed.view(), t.rows_before, dmixed.view(),
                    part_of(gradient, 0));
    side_.product_backward(db, x, b_, dx, S(0));
    through_rank_backward(df, t.narrow_f, x, f_a_, f_b_, dx);
    through_rank_backward(dgate, t.narrow_g, x, g_a_, g_b_, dx);
    mixed_backward(dmixed, x, dx);
  }

  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto out = std::make_unique<RecurrentState<S>>();
    const Index kept = o_.kernel - 1;
    out->part.push_back({"conv", kept, side_.zeros(sequences * kept, 3 * o_.inner())});
    out->part.push_back(core().new_state(sequences));
    return out;
  }

 private:
  using RecurrentBase<S>::side_;
  using RecurrentBase<S>::config_;

  ConvPart<S> conv() {
    return {side_, {&q_conv_, &k_conv_, &v_conv_}};
  }
  DeltaCore<S> core() const {
    return {side_, o_.heads, o_.heads, o_.head_dim, o_.head_dim};
  }
  DecayGate<S> decays() {
    return {side_, a_log_, dt_bias_, o_.head_dim, o_.bound};
  }
  GatedNorm<S> gated_norm(const HostNumbers<S>& w) const {
    return {.group = o_.head_dim,
            .gate_first = false,
            .silu = false,
            .eps = config_.norm_eps,
            .w = w.view};
  }

  void make_gates() {
    const Index h = config_.hidden;
    const Index n = o_.inner();
    const Index d = o_.head_dim;
    if (o_.low_rank) {
      this->matrix(f_a_, "f_a_proj", d, h, "f_a_proj.weight");
      this->matrix(f_b_, "f_b_proj", n, d, "f_b_proj.weight");
      this->matrix(g_a_, "g_a_proj", d, h, "g_a_proj.weight");
      this->matrix(g_b_, "g_b_proj", n, d, "g_b_proj.weight");
    } else {
      this->matrix(f_b_, "f_proj", n, h, "f_proj.weight");
      this->matrix(g_b_, "g_proj", n, h, "g_proj.weight");
    }
  }

  // Of x, straight or by way of `narrow`.
  Array<S> through_rank(View<const S> x, Array<S>& narrow, const Parameter<S>& a,
                        const Parameter<S>& b) const {
    if (!o_.low_rank)
      return side_.product(x, b);
    narrow = side_.product(x, a);
    return side_.product(narrow, b);
  }
  void through_rank_backward(const Array<S>& dy, const Array<S>& narrow, View<const S> x,
                             Parameter<S>& a, Parameter<S>& b, View<S> dx) const {
    if (!o_.low_rank)
      return side_.product_backward(dy, x, b, dx, S(1));
    const Array<S> dnarrow = side_.product_backward(dy, narrow, b);
    side_.product_backward(dnarrow, x, a, dx, S(1));
  }
  void project_in(View<const S> x, KdaTape<S>& t) const {
    const Index n = o_.inner();
    t.mixed = side_.array(x.rows, 3 * n);
    Index first = 0;
    for (const Parameter<S>* p : {&q_, &k_, &v_}) {
      const Array<S> part = side_.product(x, *p);
      for_rows(x.rows,
               [&](Index r) { std::copy_n(row_of(part, r), n, row_of(t.mixed, r) + first); });
      first += n;
    }
    t.b = side_.product(x, b_);
    t.f = through_rank(x, t.narrow_f, f_a_, f_b_);
    t.gate = through_rank(x, t.narrow_g, g_a_, g_b_);
  }
  void mixed_backward(const Array<S>& dmixed, View<const S> x, View<S> dx) {
    Index first = 0;
    for (Parameter<S>* p : {&q_, &k_, &v_}) {
      Array<S> part = side_.array(x.rows, o_.inner());
      for_rows(x.rows, [&](Index r) {
        std::copy_n(row_of(dmixed, r) + first, o_.inner(), row_of(part, r));
      });
      side_.product_backward(part, x, *p, dx, S(1));
      first += o_.inner();
    }
  }
  Array<S> norm_backward(const KdaTape<S>& t, View<const S> dy, Array<S>& dgate) {
    const Array<S> dout = side_.product_backward(dy, t.out, out_);
    const HostNumbers<S> w = side_.read(norm_);
    Array<S> d_o = side_.array(dy.rows, o_.inner());
    Array<S> dw = side_.zeros(1, o_.head_dim);
    gated_norm(w).backward(dout.view(), t.o.view(), {t.gate.view(), 0}, t.rstd.view(), d_o.view(),
                           {dgate.view(), 0}, dw.view());
    side_.accumulate(dw.view(), norm_);
    return d_o;
  }

  KdaOptions o_;
  Parameter<S> q_, k_, v_, q_conv_, k_conv_, v_conv_, b_, f_a_, f_b_, g_a_, g_b_, a_log_, dt_bias_,
      norm_, out_;
};

}  // namespace

std::unique_ptr<MixerType> make_kda_mixer(Spec& spec) {
  return std::make_unique<RecurrentType<KdaOptions, Kda>>(KdaOptions(spec));
}

}  // namespace moe
