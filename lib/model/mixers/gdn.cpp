// Gated delta net, 2412.06464, as Qwen3-Next (one product interleaved by key head) and Qwen3.5
// (four products) publish it: hk heads of queries and keys, hv heads of values and states.
//   q, k, v = silu(conv([q|k|v]));  q = l2(q)/sqrt(dk), k = l2(k)
//   S = e^g S;  S = S + k (beta (v - S'k))';  o = S'q
//   beta = sigmoid(b), g = -exp(A_log) softplus(a + dt_bias);  out = W_out( rmsnorm(o) w silu(z) )
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

struct GdnOptions {
  int key_heads, value_heads, key_dim, value_dim, kernel;
  bool fused;

  explicit GdnOptions(Spec& s)
      : key_heads(s.get("key_heads", 0, 0)),
        value_heads(s.get("value_heads", 0, 0)),
        key_dim(s.get("key_dim", 0, 0)),
        value_dim(s.get("value_dim", 0, 0)),
        kernel(s.get("kernel", 4, 1)),
        fused(s.choice("layout", {"split", "fused"}) == "fused") {}

  // With what is left to the model: keys of H numbers in heads of 64, or one of all H where that is
  // less; values as wide; two value heads for each key head.
  GdnOptions resolved(const ModelConfig& c) const {
    GdnOptions o = *this;
    if (o.key_dim == 0)
      o.key_dim = std::min(64, c.hidden);
    if (o.value_dim == 0)
      o.value_dim = o.key_dim;
    if (o.key_heads == 0 && c.hidden % o.key_dim != 0) {
      throw Error(Exit::usage, concat("hidden = ", c.hidden,
                                      " is no multiple of the mixer's key_dim=", o.key_dim))
          .hint("give its key_heads, or another key_dim");
    }
    if (o.key_heads == 0)
      o.key_heads = c.hidden / o.key_dim;
    if (o.value_heads == 0)
      o.value_heads = 2 * o.key_heads;
    if (o.value_heads % o.key_heads != 0) {
      throw Error(Exit::usage, concat("value_heads=", o.value_heads,
                                      " is no multiple of key_heads=", o.key_heads));
    }
    return o;
  }
  Index keys() const {
    return Index(key_heads) * key_dim;
  }
  Index values() const {
    return Index(value_heads) * value_dim;
  }
  Index mixed() const {
    return 2 * keys() + values();
  }
  MixerShape shape(const ModelConfig& c, int) const {
    const GdnOptions o = resolved(c);
    MixerShape m;
    m.kind = MixerKind::gated_delta;
    OwnPieces own;
    own.matrix(o.mixed() + o.values() + 2 * o.value_heads, c.hidden);
    own.matrix(o.mixed(), o.kernel);
    own.vector(2 * o.value_heads + o.value_dim);
    own.matrix(c.hidden, o.values());
    m.own = own.list.all;
    m.own_state = (o.kernel - 1) * o.mixed() + o.keys() * o.value_heads / o.key_heads * o.value_dim;
    m.own_flops = 8.0 * double(o.value_heads) * o.key_dim * o.value_dim;
    // see GdnTape and backward
    m.tape_numbers = 2 * o.mixed() + 3 * o.values() + 5 * o.value_heads +
                     DeltaTape<float>::numbers(o.key_heads, o.value_heads, o.key_dim, o.value_dim);
    const Count more = o.fused ? o.mixed() + o.values() + 2 * o.value_heads : 0;
    m.backward_numbers =
        o.mixed() + 2 * o.values() + 3 * o.value_heads +
        std::max(2 * o.keys() + o.values() + Count(o.value_heads) * o.key_dim, o.mixed() + more);
    return m;
  }
};

template <class S>
struct GdnTape final : MixerTape {
  Array<S> mixed, conv;        // (T, mixed) q, k and v before and after the convolution
  Array<S> z;                  // (T, values)
  Array<S> b, a, beta, decay;  // (T, value_heads)
  DeltaTape<S> delta;
  Array<S> o, out, rstd;  // (T, values), the same gated, (T, value_heads)
  Array<S> rows_before;   // of a pass with a past
};

// Where the products' results lie in rows of in_proj_qkvz and in_proj_ba.
struct Interleaved {
  const GdnOptions& o;

  // each(column, first, count): `count` columns from `column` of qkvz are those from `first` of
  // [q | k | v | z]
  template <class F>
  void wide(const F& each) const {
    const Index m = o.value_heads / o.key_heads * o.value_dim;
    for (Index h = 0; h < o.key_heads; ++h) {
      const Index at = h * (2 * o.key_dim + 2 * m);
      each(at, h * o.key_dim, Index(o.key_dim));
      each(at + o.key_dim, o.keys() + h * o.key_dim, Index(o.key_dim));
      each(at + 2 * o.key_dim, 2 * o.keys() + h * m, m);
      each(at + 2 * o.key_dim + m, o.mixed() + h * m, m);
    }
  }
  // the same of ba and [b | a]
  template <class F>
  void narrow(const F& each) const {
    const Index m = o.value_heads / o.key_heads;
    for (Index h = 0; h < o.key_heads; ++h) {
      each(2 * h * m, h * m, m);
      each((2 * h + 1) * m, o.value_heads + h * m, m);
    }
  }
};

template <class S>
class Gdn final : public RecurrentBase<S> {
 public:
  Gdn(const MixerPlace<S>& at, const GdnOptions& options)
      : RecurrentBase<S>(at, "linear_attn."), o_(options.resolved(at.config)) {
    const Index h = at.config.hidden;
    if (o_.fused) {
      this->matrix(in_, "in_proj_qkvz", o_.mixed() + o_.values(), h, "in_proj_qkvz.weight");
      this->matrix(gates_, "in_proj_ba", 2 * o_.value_heads, h, "in_proj_ba.weight");
    } else {
      this->matrix(in_, "in_proj_qkv", o_.mixed(), h, "in_proj_qkv.weight");
      this->matrix(z_, "in_proj_z", o_.values(), h, "in_proj_z.weight");
      this->matrix(b_, "in_proj_b", o_.value_heads, h, "in_proj_b.weight");
      this->matrix(a_, "in_proj_a", o_.value_heads, h, "in_proj_a.weight");
    }
    this->kernel(conv_, "conv1d", o_.mixed(), o_.kernel, "conv1d.weight");
    this->vector(dt_bias_, "dt_bias", o_.value_heads, {.value = 1}, "dt_bias");
    this->vector(a_log_, "A_log", o_.value_heads,
                 {.rule =
                      [](Index, double u) {
                        return std::log(0.01 + 15.99 * u);
                      }},
                 "A_log");
    this->vector(norm_, "norm", o_.value_dim, {.value = 1}, "norm.weight");
    this->matrix(out_, "out_proj", h, o_.values(), "out_proj.weight", MatrixRole::mixer_output);
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<GdnTape<S>>();
    GdnTape<S>& t = *tape;
    RecurrentState<S>* state = this->states(past);
    project_in(x, t);
    t.conv = side_.array(x.rows, o_.mixed());
    t.rows_before = conv().forward(batch, t.mixed.view(), t.conv.view(), part_of(state, 0));
    t.beta = side_.array(x.rows, o_.value_heads);
    row_math::sigmoid(t.b.view().data, t.beta.view().data, nullptr, t.b.view().size());
    t.decay = side_.array(x.rows, o_.value_heads);
    decays().forward(t.a.view(), t.decay.view());
    t.o = side_.array(x.rows, o_.values());
    core().forward(batch, t.conv.view(), t.beta.view(), t.decay.view(), t.delta, t.o.view(),
                   part_of(state, 1));
    t.out = side_.array(x.rows, o_.values());
    t.rstd = side_.array(x.rows, o_.value_heads);
    const HostNumbers<S> w = side_.read(norm_);
    gated_norm(w).forward(t.o.view(), {t.z.view(), 0}, t.out.view(), t.rstd.view());
    side_.product(t.out, out_, y);
    return tape;
  }

  void backward_through(const Batch& batch, const MixerTape& tape, View<const S> x,
                        View<const S> dy, View<S> dx, RecurrentState<S>* gradient) override {
    const auto& t = static_cast<const GdnTape<S>&>(tape);
    Array<S> dz = side_.array(x.rows, o_.values());
    const Array<S> d_o = norm_backward(t, dy, dz);
    Array<S> dconv = side_.array(x.rows, o_.mixed());
    Array<S> db = side_.array(x.rows, o_.value_heads);
    Array<S> da = side_.array(x.rows, o_.value_heads);
    Array<S> ddecay = side_.array(x.rows, o_.value_heads);
    core().backward(batch, t.delta, t.conv.view(), t.beta.view(), t.decay.view(), d_o.view(),
                    dconv.view(), db.view(), ddecay.view(), part_of(gradient, 1));
    for (Index i = 0; i < db.view().size(); ++i) {
      const S beta = t.beta.view().data[i];
      db.view().data[i] *= beta * (1 - beta);
    }
    decays().backward(t.a.view(), ddecay.view(), da.view());
    Array<S> dmixed = side_.array(x.rows, o_.mixed());
    conv().backward(batch, dconv.view(), t.mixed.view(), t.rows_before, dmixed.view(),
                    part_of(gradient, 0));
    project_in_backward(x, dmixed, dz, db, da, dx);
  }

  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto out = std::make_unique<RecurrentState<S>>();
    const Index kept = o_.kernel - 1;
    out->part.push_back({"conv", kept, side_.zeros(sequences * kept, o_.mixed())});
    out->part.push_back(core().new_state(sequences));
    return out;
  }

 private:
  using RecurrentBase<S>::side_;
  using RecurrentBase<S>::config_;

  ConvPart<S> conv() {
    return {side_, {&conv_}};
  }
  DeltaCore<S> core() const {
    return {side_, o_.key_heads, o_.value_heads, o_.key_dim, o_.value_dim};
  }
  DecayGate<S> decays() {
    return {side_, a_log_, dt_bias_, 1};
  }
  GatedNorm<S> gated_norm(const HostNumbers<S>& w) const {
    return {.group = o_.value_dim,
            .gate_first = false,
            .silu = true,
            .eps = config_.norm_eps,
            .w = w.view};
  }

  void project_in(View<const S> x, GdnTape<S>& t) {
    if (!o_.fused) {
      t.mixed = side_.product(x, in_);
      t.z = side_.product(x, z_);
      t.b = side_.product(x, b_);
      t.a = side_.product(x, a_);
      return;
    }
    t.mixed = side_.array(x.rows, o_.mixed());
    t.z = side_.array(x.rows, o_.values());
    t.b = side_.array(x.rows, o_.value_heads);
    t.a = side_.array(x.rows, o_.value_heads);
    const Array<S> all = side_.product(x, in_);
    const Array<S> gates = side_.product(x, gates_);
    for_rows(x.rows, [&](Index r) {
      Interleaved{o_}.wide([&](Index column, Index first, Index count) {
        S* to =
            first < o_.mixed() ? row_of(t.mixed, r) + first : row_of(t.z, r) + first - o_.mixed();
        std::copy_n(row_of(all, r) + column, count, to);
      });
      Interleaved{o_}.narrow([&](Index column, Index first, Index count) {
        S* to = first < o_.value_heads ? row_of(t.b, r) + first
                                       : row_of(t.a, r) + first - o_.value_heads;
        std::copy_n(row_of(gates, r) + column, count, to);
      });
    });
  }
  void project_in_backward(View<const S> x, const Array<S>& dmixed, const Array<S>& dz,
                           const Array<S>& db, const Array<S>& da, View<S> dx) {
    if (!o_.fused) {
      side_.product_backward(dmixed, x, in_, dx, S(0));
      side_.product_backward(dz, x, z_, dx, S(1));
      side_.product_backward(db, x, b_, dx, S(1));
      return side_.product_backward(da, x, a_, dx, S(1));
    }
    Array<S> dall = side_.array(x.rows, o_.mixed() + o_.values());
    Array<S> dgates = side_.array(x.rows, 2 * o_.value_heads);
    for_rows(x.rows, [&](Index r) {
      Interleaved{o_}.wide([&](Index column, Index first, Index count) {
        const S* from =
            first < o_.mixed() ? row_of(dmixed, r) + first : row_of(dz, r) + first - o_.mixed();
        std::copy_n(from, count, row_of(dall, r) + column);
      });
      Interleaved{o_}.narrow([&](Index column, Index first, Index count) {
        const S* from =
            first < o_.value_heads ? row_of(db, r) + first : row_of(da, r) + first - o_.value_heads;
        std::copy_n(from, count, row_of(dgates, r) + column);
      });
    });
    side_.product_backward(dall, x, in_, dx, S(0));
    side_.product_backward(dgates, x, gates_, dx, S(1));
  }
  Array<S> norm_backward(const GdnTape<S>& t, View<const S> dy, Array<S>& dz) {
    const Array<S> dout = side_.product_backward(dy, t.out, out_);
    const HostNumbers<S> w = side_.read(norm_);
    Array<S> d_o = side_.array(dy.rows, o_.values());
    Array<S> dw = side_.zeros(1, o_.value_dim);
    gated_norm(w).backward(dout.view(), t.o.view(), {t.z.view(), 0}, t.rstd.view(), d_o.view(),
                           {dz.view(), 0}, dw.view());
    side_.accumulate(dw.view(), norm_);
    return d_o;
  }

  GdnOptions o_;
  Parameter<S> in_, z_, b_, a_, gates_, conv_, dt_bias_, a_log_, norm_, out_;
};

}  // namespace

std::unique_ptr<MixerType> make_gdn_mixer(Spec& spec) {
  return std::make_unique<RecurrentType<GdnOptions, Gdn>>(GdnOptions(spec));
}

}  // namespace moe
