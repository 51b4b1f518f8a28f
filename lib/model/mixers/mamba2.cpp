// Mamba-2 (SSD), 2405.21060, as mamba_ssm, Nemotron-H and Granite 4 publish it: h heads of p
// numbers, g groups of n states, di = h p.
//   [z | xBC | dt] = W_in x;  [x | B | C] = silu(conv(xBC));  dt = clamp(softplus(dt + dt_bias))
//   S_t = exp(dt A) S_(t-1) + dt B_t x_t',  A = -exp(A_log);  y_t = S_t' C_t + D x_t
//   out = W_out( rmsnorm(y silu(z)) w ), normed in groups
#include <cmath>

#include "lib/model/mixers/conv_part.h"
#include "lib/model/mixers/decay_gate.h"
#include "lib/model/mixers/gated_norm.h"
#include "lib/model/mixers/recurrent_base.h"
#include "lib/model/mixers/row_math.h"
#include "lib/model/mixers/state_scan.h"

namespace moe {
namespace {

struct Mamba2Options {
  int heads, head_dim, groups, state, kernel, norm_groups;
  bool conv_bias, proj_bias;
  double dt_min, dt_max;

  explicit Mamba2Options(Spec& s)
      : heads(s.get("heads", 0, 0)),
        head_dim(s.get("head_dim", 0, 0)),
        groups(s.get("groups", 1, 1)),
        state(s.get("state", 128, 1)),
        kernel(s.get("kernel", 4, 1)),
        norm_groups(s.get("norm_groups", 0, 0)),
        conv_bias(s.get("conv_bias", true)),
        // stored specs without it stay as they are
        proj_bias(s.has("proj_bias") && s.get("proj_bias", false)),
        dt_min(s.get("dt_min", 0.0, 0.0)),
        dt_max(s.get("dt_max", 0.0, 0.0)) {}

  // With what is left to the model: heads of 64, or of all of 2H where that is less; 2H / head_dim
  // of them; as many groups of the norm as of the states.
  Mamba2Options resolved(const ModelConfig& c) const {
    Mamba2Options o = *this;
    if (o.head_dim == 0)
      o.head_dim = std::min(64, 2 * c.hidden);
    if (o.heads == 0) {
      if (2 * c.hidden % o.head_dim != 0) {
        throw Error(Exit::usage, concat("2 x hidden = ", 2 * c.hidden,
                                        " is no multiple of the mixer's head_dim=", o.head_dim))
            .hint("give its heads, or another head_dim");
      }
      o.heads = 2 * c.hidden / o.head_dim;
    }
    if (o.norm_groups == 0)
      o.norm_groups = o.groups;
    if (o.heads % o.groups != 0) {
      throw Error(Exit::usage,
                  concat("the mixer's ", o.heads, " heads do not fall into ", o.groups, " groups"));
    }
    if (o.inner() % o.norm_groups != 0) {
      throw Error(Exit::usage, concat("the mixer's ", o.inner(), " channels do not fall into ",
                                      o.norm_groups, " groups of the norm"));
    }
    if (o.dt_max > 0 && o.dt_max < o.dt_min)
      throw Error(Exit::usage, concat("dt_max=", o.dt_max, " is below dt_min=", o.dt_min));
    return o;
  }
  Index inner() const {
    return Index(heads) * head_dim;
  }
  Index states() const {  // columns of B and of C
    return Index(groups) * state;
  }
  Index mixed() const {
    return inner() + 2 * states();
  }
  Index columns() const {  // of the input product
    return inner() + mixed() + heads;
  }
  MixerShape shape(const ModelConfig& c, int) const {
    const Mamba2Options o = resolved(c);
    MixerShape m;
    m.kind = MixerKind::mamba2;
    m.heads = o.heads;
    m.head_dim = o.head_dim;
    OwnPieces own;
    own.matrix(o.columns(), c.hidden);
    own.matrix(o.mixed(), o.kernel);
    own.vector((o.conv_bias ? o.mixed() : 0) + 3 * o.heads + o.inner());
    if (o.proj_bias)
      own.vector(o.columns() + c.hidden);
    own.matrix(c.hidden, o.inner());
    m.own = own.list.all;
    m.own_state = (o.kernel - 1) * o.mixed() + o.inner() * o.state;
    m.own_flops = 6.0 * double(o.inner()) * o.state;
    // see Mamba2Tape and backward
    m.tape_numbers = o.columns() + 2 * o.mixed() + 2 * o.heads + 3 * o.inner() + o.norm_groups;
    m.backward_numbers = o.columns() + o.inner() + 3 * o.mixed();
    return m;
  }
};

template <class S>
struct Mamba2Tape final : MixerTape {
  Array<S> all;                  // (T, columns) z, xBC, dt
  Array<S> conv;                 // (T, mixed) after the convolution
  Array<S> x, b, c;              // silu of it, in parts
  Array<S> dt, decay;            // (T, heads)
  Array<S> v;                    // dt x
  Array<S> y;                    // what the states say, + D x
  Array<S> out;                  // normed and gated
  Array<S> rstd;                 // (T, norm_groups)
  Array<S> rows_before, states;  // of a pass with a past: what the state held
};

template <class S>
class Mamba2 final : public RecurrentBase<S> {
 public:
  Mamba2(const MixerPlace<S>& at, const Mamba2Options& options)
      : RecurrentBase<S>(at, "mamba."), o_(options.resolved(at.config)) {
    const Index h = at.config.hidden;
    this->matrix(in_, "in_proj", o_.columns(), h, "in_proj.weight");
    if (o_.proj_bias)
      this->vector(in_bias_, "in_proj_bias", o_.columns(), {}, "in_proj.bias");
    this->kernel(conv_, "conv1d", o_.mixed(), o_.kernel, "conv1d.weight");
    if (o_.conv_bias)
      this->vector(conv_bias_, "conv1d_bias", o_.mixed(), {}, "conv1d.bias");
    this->vector(dt_bias_, "dt_bias", o_.heads, {.rule = step_start}, "dt_bias");
    this->vector(a_log_, "A_log", o_.heads,
                 {.rule =
                      [](Index, double u) {
                        return std::log(1 + 15 * u);
                      }},
                 "A_log");
    this->vector(skip_, "D", o_.heads, {.value = 1}, "D");
    this->vector(norm_, "norm", o_.inner(), {.value = 1}, "norm.weight");
    this->matrix(out_, "out_proj", h, o_.inner(), "out_proj.weight", MatrixRole::mixer_output);
    if (o_.proj_bias)
      this->vector(out_bias_, "out_proj_bias", h, {}, "out_proj.bias");
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<Mamba2Tape<S>>();
    Mamba2Tape<S>& t = *tape;
    RecurrentState<S>* state = this->states(past);
    t.all = side_.product(x, in_, in_bias_);
    {
      const Array<S> mixed = mixed_columns(t.all.view());
      t.conv = side_.array(x.rows, o_.mixed());
      t.rows_before = conv().forward(batch, mixed.view(), t.conv.view(), part_of(state, 0));
    }
    split(t);
    steps(t);
    t.y = side_.array(x.rows, o_.inner());
    t.states = scan_from<S>(side_, inputs(t), shape(batch), part_of(state, 1), t.y.view());
    add_skip(t);
    t.out = side_.array(x.rows, o_.inner());
    t.rstd = side_.array(x.rows, o_.norm_groups);
    const HostNumbers<S> w = side_.read(norm_);
    gated_norm(w).forward(t.y.view(), {t.all.view(), 0}, t.out.view(), t.rstd.view());
    side_.product(t.out, out_, y);
    this->add_bias(out_bias_, y);
    return tape;
  }

  void backward_through(const Batch& batch, const MixerTape& tape, View<const S> x,
                        View<const S> dy, View<S> dx, RecurrentState<S>* gradient) override {
    const auto& t = static_cast<const Mamba2Tape<S>&>(tape);
    Array<S> dall = side_.array(x.rows, o_.columns());
    Array<S> dstate = norm_backward(t, dy, dall);
    Array<S> dmixed = states_backward(batch, t, dstate, dall, gradient);
    {
      const Array<S> mixed = mixed_columns(t.all.view());
      Array<S> by_mixed = side_.array(x.rows, o_.mixed());
      conv().backward(batch, dmixed.view(), mixed.view(), t.rows_before, by_mixed.view(),
                      part_of(gradient, 0));
      for_rows(x.rows, [&](Index r) {
        std::ranges::copy(by_mixed.view().row(r), row_of(dall, r) + o_.inner());
      });
    }
    side_.product_backward(dall, x, in_, in_bias_, dx, S(0));
  }

  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto out = std::make_unique<RecurrentState<S>>();
    const Index rows = Index(o_.heads) * o_.state;
    out->part.push_back(
        {"conv", o_.kernel - 1, side_.zeros(sequences * (o_.kernel - 1), o_.mixed())});
    out->part.push_back({"ssm", rows, side_.zeros(sequences * rows, o_.head_dim), o_.heads, true});
    return out;
  }

 private:
  using RecurrentBase<S>::side_;
  using RecurrentBase<S>::config_;

  ConvPart<S> conv() {
    return {side_, {&conv_}, &conv_bias_};
  }
  GatedNorm<S> gated_norm(const HostNumbers<S>& w) const {
    return {.group = o_.inner() / o_.norm_groups,
            .gate_first = true,
            .silu = true,
            .eps = config_.norm_eps,
            .w = w.view};
  }
  ScanShape shape(const Batch& batch) const {
    return {.heads = o_.heads,
            .groups = o_.groups,
            .key = o_.state,
            .value = o_.head_dim,
            .start = batch.start};
  }
  ScanInputs<S> inputs(const Mamba2Tape<S>& t) const {
    return {.q = t.c.view(), .k = t.b.view(), .v = t.v.view(), .decay = t.decay.view()};
  }
  Array<S> mixed_columns(View<const S> all) const {
    Array<S> out = side_.array(all.rows, o_.mixed());
    for_rows(all.rows, [&](Index r) {
      std::copy_n(all.row(r).data() + o_.inner(), o_.mixed(), row_of(out, r));
    });
    return out;
  }
  // x, B and C from what the convolution gave.
  void split(Mamba2Tape<S>& t) const {
    const Index rows = t.conv.rows();
    t.x = side_.array(rows, o_.inner());
    t.b = side_.array(rows, o_.states());
    t.c = side_.array(rows, o_.states());
    for_rows(rows, [&](Index r) {
      const S* from = row_of(t.conv, r);
      row_math::silu(from, row_of(t.x, r), nullptr, o_.inner());
      row_math::silu(from + o_.inner(), row_of(t.b, r), nullptr, o_.states());
      row_math::silu(from + o_.inner() + o_.states(), row_of(t.c, r), nullptr, o_.states());
    });
  }
  double raw_step(const Mamba2Tape<S>& t, Index r, Index i, const HostNumbers<S>& bias) const {
    return double(t.all.view()(r, o_.inner() + o_.mixed() + i)) + double(bias(0, i));
  }
  // dt, the logarithms of what a state keeps, and dt x.
  void steps(Mamba2Tape<S>& t) const {
    const Index rows = t.all.rows();
    const HostNumbers<S> bias = side_.read(dt_bias_);
    const std::vector<S> rate = rates();
    t.dt = side_.array(rows, o_.heads);
    t.decay = side_.array(rows, o_.heads);
    t.v = side_.array(rows, o_.inner());
    for_rows(rows, [&](Index r) {
      for (Index i = 0; i < o_.heads; ++i) {
        double dt = std::max(softplus(raw_step(t, r, i, bias)), o_.dt_min);
        if (o_.dt_max > 0)
          dt = std::min(dt, o_.dt_max);
        t.dt.view()(r, i) = S(dt);
        t.decay.view()(r, i) = S(dt) * rate[std::size_t(i)];
        row_math::scale(row_of(t.x, r) + i * o_.head_dim, S(dt), row_of(t.v, r) + i * o_.head_dim,
                        o_.head_dim);
      }
    });
  }
  void add_skip(Mamba2Tape<S>& t) const {
    const HostNumbers<S> skip = side_.read(skip_);
    for_rows(t.y.rows(), [&](Index r) {
      for (Index i = 0; i < o_.heads; ++i) {
        row_math::add(row_of(t.x, r) + i * o_.head_dim, skip(0, i),
                      row_of(t.y, r) + i * o_.head_dim, o_.head_dim);
      }
    });
  }

  // Returns the gradient by y; sets that by z.
  Array<S> norm_backward(const Mamba2Tape<S>& t, View<const S> dy, Array<S>& dall) {
    const Array<S> dout = side_.product_backward(dy, t.out, out_);
    this->bias_backward(dy, out_bias_);
    const HostNumbers<S> w = side_.read(norm_);
    Array<S> dstate = side_.array(t.y.rows(), o_.inner());
    Array<S> dw = side_.zeros(1, o_.inner());
    gated_norm(w).backward(dout.view(), t.y.view(), {t.all.view(), 0}, t.rstd.view(), dstate.view(),
                           {dall.view(), 0}, dw.view());
    side_.accumulate(dw.view(), norm_);
    return dstate;
  }
  // From the gradient by y to that by the convolution's result; sets that by dt.
  Array<S> states_backward(const Batch& batch, const Mamba2Tape<S>& t, const Array<S>& dstate,
                           Array<S>& dall, RecurrentState<S>* gradient) {
    const Index rows = t.y.rows();
    Array<S> dv = side_.array(rows, o_.inner());
    Array<S> db = side_.array(rows, o_.states());
    Array<S> dc = side_.array(rows, o_.states());
    Array<S> ddecay = side_.array(rows, o_.heads);
    const ScanGradients<S> to{
        .q = dc.view(), .k = db.view(), .v = dv.view(), .decay = ddecay.view()};
    scan_back<S>(side_, inputs(t), shape(batch), t.states, dstate.view(), part_of(gradient, 1), to);
    steps_backward(t, dstate, dv, ddecay, dall);
    Array<S> dconv = side_.array(rows, o_.mixed());
    for_rows(rows, [&](Index r) {
      S* d = row_of(dconv, r);
      row_math::silu(row_of(t.conv, r), nullptr, d, o_.mixed());
      row_math::product(d, row_of(dv, r), d, o_.inner());
      d += o_.inner();
      row_math::product(d, row_of(db, r), d, o_.states());
      d += o_.states();
      row_math::product(d, row_of(dc, r), d, o_.states());
    });
    return dconv;
  }
  // dv, the gradient by dt x, becomes that by x.
  void steps_backward(const Mamba2Tape<S>& t, const Array<S>& dstate, Array<S>& dv,
                      const Array<S>& ddecay, Array<S>& dall) {
    const Index h = o_.heads;
    const Index n = o_.head_dim;
    const HostNumbers<S> bias = side_.read(dt_bias_);
    const HostNumbers<S> skip = side_.read(skip_);
    const std::vector<S> rate = rates();
    Array<S> sums = side_.zeros(3, h);  // by D, A_log, dt_bias
    sum_rows<S>(t.y.rows(), sums.view(), [&](Index r, S* sum) {
      for (Index i = 0; i < h; ++i) {
        const S* x = row_of(t.x, r) + i * n;
        const S* g = row_of(dstate, r) + i * n;
        S* d = row_of(dv, r) + i * n;
        const S by_decay = ddecay.view()(r, i);
        const S ddt = row_math::dot(d, x, n) + by_decay * rate[std::size_t(i)];
        row_math::scale(d, t.dt.view()(r, i), d, n);
        row_math::add(g, skip(0, i), d, n);
        const S draw = ddt * slope(raw_step(t, r, i, bias));
        sum[i] += row_math::dot(g, x, n);
        sum[h + i] += by_decay * t.decay.view()(r, i);
        sum[2 * h + i] += draw;
        dall.view()(r, o_.inner() + o_.mixed() + i) = draw;
      }
    });
    Index row = 0;
    for (Parameter<S>* p : {&skip_, &a_log_, &dt_bias_})
      side_.accumulate(sums.view().slice(row++, 1), *p);
  }
  // of clamp(softplus(raw))
  S slope(double raw) const {
    return S(within(softplus(raw)) ? logistic(raw) : 0.0);
  }
  // A of each head
  std::vector<S> rates() const {
    const HostNumbers<S> log = side_.read(a_log_);
    std::vector<S> out;
    for (const S v : log.view.flat())
      out.push_back(S(-std::exp(double(v))));
    return out;
  }
  bool within(double dt) const {
    return dt >= o_.dt_min && (o_.dt_max == 0 || dt <= o_.dt_max);
  }

  Mamba2Options o_;
  Parameter<S> in_, in_bias_, conv_, conv_bias_, dt_bias_, a_log_, skip_, norm_, out_, out_bias_;
};

}  // namespace

std::unique_ptr<MixerType> make_mamba2_mixer(Spec& spec) {
  return std::make_unique<RecurrentType<Mamba2Options, Mamba2>>(Mamba2Options(spec));
}

}  // namespace moe
