// Lightning attention, 2401.04658, as MiniMax-Text-01 publishes it: linear attention whose heads
// forget at fixed rates, slower in later layers.
//   [q|k|v of each head] = silu(W_qkv x);  S = e^-s S + k v';  o = S'q
//   s_i = 2^(-8 (i+1)/h) (1 - l/(L-1+1e-5) + 1e-5), head i of h in layer l of L
//   out = W_o( rmsnorm(o over all heads) w sigmoid(W_gate x) )
#include <cmath>

#include "lib/model/mixers/gated_norm.h"
#include "lib/model/mixers/recurrent_base.h"
#include "lib/model/mixers/row_math.h"
#include "lib/model/mixers/state_scan.h"

namespace moe {
namespace {

constexpr double lightning_eps = 1e-6;  // of its norm, whatever the model's

struct LightningOptions {
  int heads, head_dim;

  explicit LightningOptions(Spec& s)
      : heads(s.get("heads", 0, 0)), head_dim(s.get("head_dim", 0, 0)) {}

  // With what is left to the model: its own heads.
  LightningOptions resolved(const ModelConfig& c) const {
    LightningOptions o = *this;
    if (o.heads == 0)
      o.heads = c.heads;
    if (o.head_dim == 0)
      o.head_dim = c.head_dim;
    return o;
  }
  Index inner() const {
    return Index(heads) * head_dim;
  }
  MixerShape shape(const ModelConfig& c, int) const {
    const LightningOptions o = resolved(c);
    const Index n = o.inner();
    MixerShape m;
    m.kind = MixerKind::lightning;
    m.heads = o.heads;
    m.head_dim = o.head_dim;
    OwnPieces own;
    own.matrix(n, c.hidden, 4);
    own.matrix(c.hidden, n);
    own.vector(n);
    m.own = own.list.all;
    m.own_state = n * o.head_dim;
    m.own_flops = 6.0 * double(n) * o.head_dim;
    // see LightningTape and backward
    m.tape_numbers = 3 * n + 6 * n + o.heads + 1;
    m.backward_numbers = 8 * n + o.heads;
    return m;
  }
};

template <class S>
struct LightningTape final : MixerTape {
  Array<S> all;           // (T, 3 inner) what qkv_proj gives
  Array<S> q, k, v;       // (T, inner)
  Array<S> gate, o, out;  // (T, inner)
  Array<S> decay;         // (T, heads)
  Array<S> rstd;          // (T, 1)
  Array<S> states;        // of a pass with a past
};

template <class S>
class Lightning final : public RecurrentBase<S> {
 public:
  Lightning(const MixerPlace<S>& at, const LightningOptions& options)
      : RecurrentBase<S>(at, "self_attn."), o_(options.resolved(at.config)) {
    const Index h = at.config.hidden;
    const Index n = o_.inner();
    this->matrix(in_, "qkv_proj", 3 * n, h, "qkv_proj.weight");
    this->matrix(gate_, "output_gate", n, h, "output_gate.weight");
    this->vector(norm_, "norm", n, {.value = 1}, "norm.weight");
    this->matrix(out_, "out_proj", h, n, "out_proj.weight", MatrixRole::mixer_output);
    const double depth = at.layer / (double(at.config.layers) - 1 + 1e-5);
    for (int i = 0; i < o_.heads; ++i)
      slope_.push_back(std::exp2(-8.0 * (i + 1) / o_.heads) * (1 - depth + 1e-5));
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<LightningTape<S>>();
    LightningTape<S>& t = *tape;
    RecurrentState<S>* state = this->states(past);
    t.all = side_.product(x, in_);
    t.gate = side_.product(x, gate_);
    split(t);
    t.states = scan_from<S>(side_, inputs(t), shape(batch), part_of(state, 0), t.o.view());
    const HostNumbers<S> w = side_.read(norm_);
    gated_norm(w).forward(t.o.view(), {t.gate.view(), 0}, t.out.view(), t.rstd.view());
    side_.product(t.out, out_, y);
    return tape;
  }

  void backward_through(const Batch& batch, const MixerTape& tape, View<const S> x,
                        View<const S> dy, View<S> dx, RecurrentState<S>* gradient) override {
    const auto& t = static_cast<const LightningTape<S>&>(tape);
    const Index n = o_.inner();
    Array<S> dgate = side_.array(x.rows, n);
    const Array<S> d_o = norm_backward(t, dy, dgate);
    Array<S> dq = side_.array(x.rows, n);
    Array<S> dk = side_.array(x.rows, n);
    Array<S> dv = side_.array(x.rows, n);
    Array<S> ddecay = side_.array(x.rows, o_.heads);  // nobody learns it
    const ScanGradients<S> to{
        .q = dq.view(), .k = dk.view(), .v = dv.view(), .decay = ddecay.view()};
    scan_back<S>(side_, inputs(t), shape(batch), t.states, d_o.view(), part_of(gradient, 0), to);
    const Array<S> dall = split_backward(t, {&dq, &dk, &dv});
    side_.product_backward(dall, x, in_, dx, S(0));
    side_.product_backward(dgate, x, gate_, dx, S(1));
  }

  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto out = std::make_unique<RecurrentState<S>>();
    out->part.push_back(
        {"state", o_.inner(), side_.zeros(sequences * o_.inner(), o_.head_dim), o_.heads});
    return out;
  }

 private:
  using RecurrentBase<S>::side_;

  // q, k and v, and the decays.
  void split(LightningTape<S>& t) const {
    const Index n = o_.inner();
    const Index rows = t.all.rows();
    for (Array<S>* a : {&t.q, &t.k, &t.v, &t.o, &t.out})
      *a = side_.array(rows, n);
    t.decay = side_.array(rows, o_.heads);
    t.rstd = side_.array(rows, 1);
    for_rows(rows, [&](Index r) {
      const S* from = row_of(t.all, r);
      for (Index i = 0; i < o_.heads; ++i) {
        t.decay.view()(r, i) = S(-slope_[std::size_t(i)]);
        for (Array<S>* a : {&t.q, &t.k, &t.v}) {
          row_math::silu(from, a->view().row(r).data() + i * o_.head_dim, nullptr, o_.head_dim);
          from += o_.head_dim;
        }
      }
    });
  }
  ScanShape shape(const Batch& batch) const {
    return {.heads = o_.heads,
            .groups = o_.heads,
            .key = o_.head_dim,
            .value = o_.head_dim,
            .start = batch.start};
  }
  ScanInputs<S> inputs(const LightningTape<S>& t) const {
    return {.q = t.q.view(), .k = t.k.view(), .v = t.v.view(), .decay = t.decay.view()};
  }
  GatedNorm<S> gated_norm(const HostNumbers<S>& w) const {
    return {
        .group = o_.inner(), .gate_first = false, .silu = false, .eps = lightning_eps, .w = w.view};
  }
  Array<S> split_backward(const LightningTape<S>& t, const std::vector<const Array<S>*>& by) const {
    Array<S> dall = side_.array(t.all.rows(), 3 * o_.inner());
    row_math::silu(t.all.view().data, nullptr, dall.view().data, dall.view().size());
    for_rows(t.all.rows(), [&](Index r) {
      S* d = row_of(dall, r);
      for (Index i = 0; i < o_.heads; ++i) {
        for (const Array<S>* a : by) {
          row_math::product(d, a->view().row(r).data() + i * o_.head_dim, d, o_.head_dim);
          d += o_.head_dim;
        }
      }
    });
    return dall;
  }
  Array<S> norm_backward(const LightningTape<S>& t, View<const S> dy, Array<S>& dgate) {
    const Array<S> dout = side_.product_backward(dy, t.out, out_);
    const HostNumbers<S> w = side_.read(norm_);
    Array<S> d_o = side_.array(dy.rows, o_.inner());
    Array<S> dw = side_.zeros(1, o_.inner());
    gated_norm(w).backward(dout.view(), t.o.view(), {t.gate.view(), 0}, t.rstd.view(), d_o.view(),
                           {dgate.view(), 0}, dw.view());
    side_.accumulate(dw.view(), norm_);
    return d_o;
  }

  LightningOptions o_;
  std::vector<double> slope_;
  Parameter<S> in_, gate_, norm_, out_;
};

}  // namespace

std::unique_ptr<MixerType> make_lightning_mixer(Spec& spec) {
  return std::make_unique<RecurrentType<LightningOptions, Lightning>>(LightningOptions(spec));
}

}  // namespace moe
