// Mamba, 2312.00752, as mamba_ssm and Jamba (with norms) publish it: a state of n numbers for each
// of di channels.
//   [u | z] = W_in x;  u = silu(conv(u));  [dt | B | C] = W_x u (r, n, n), normed in Jamba
//   dt = softplus(W_dt dt + bias);  h = exp(dt A) h + dt u B,  A = -exp(A_log);  y = h.C + D u
//   out = W_out( y silu(z) )
#include <cmath>

#include "lib/model/mixers/conv_part.h"
#include "lib/model/mixers/decay_gate.h"
#include "lib/model/mixers/recurrent_base.h"
#include "lib/model/mixers/row_math.h"
#include "lib/model/mixers/state_scan.h"

namespace moe {
namespace {

struct Mamba1Options {
  int inner, state, rank, kernel;
  bool norms, conv_bias, proj_bias;

  explicit Mamba1Options(Spec& s)
      : inner(s.get("inner", 0, 0)),
        state(s.get("state", 16, 1)),
        rank(s.get("rank", 0, 0)),
        kernel(s.get("kernel", 4, 1)),
        norms(s.get("norms", false)),
        // stored specs without these two stay as they are
        conv_bias(!s.has("conv_bias") || s.get("conv_bias", true)),
        proj_bias(s.has("proj_bias") && s.get("proj_bias", false)) {}

  // With what is left to the model: 2H channels, a rank of H/16 rounded up.
  Mamba1Options resolved(const ModelConfig& c) const {
    Mamba1Options o = *this;
    if (o.inner == 0)
      o.inner = 2 * c.hidden;
    if (o.rank == 0)
      o.rank = (c.hidden + 15) / 16;
    return o;
  }
  Index narrow() const {  // columns of dt, B and C
    return rank + 2 * Index(state);
  }
  MixerShape shape(const ModelConfig& c, int) const {
    const Mamba1Options o = resolved(c);
    const Count n = o.inner;
    MixerShape m;
    m.kind = MixerKind::mamba1;
    OwnPieces own;
    own.matrix(2 * n, c.hidden);
    own.matrix(n, o.kernel);
    own.matrix(o.narrow(), n);
    own.matrix(n, o.rank);
    own.matrix(c.hidden, n);
    own.vector((o.conv_bias ? 3 : 2) * n + n * o.state + (o.norms ? o.narrow() : 0));
    if (o.proj_bias)
      own.vector(2 * n + c.hidden);
    m.own = own.list.all;
    m.own_state = (o.kernel - 1) * n + n * o.state;
    m.own_flops = 6.0 * double(n) * o.state;
    // see Mamba1Tape and backward
    m.tape_numbers = 9 * n + 2 * o.narrow() + 3;
    m.backward_numbers = 6 * n + 2 * o.narrow() + 2 * o.state;
    return m;
  }
};

template <class S>
struct Mamba1Tape final : MixerTape {
  Array<S> all;                  // (T, 2 inner) u and z
  Array<S> u, conv;              // (T, inner) before and after the convolution
  Array<S> x;                    // silu of it
  Array<S> raw;                  // (T, narrow) dt, B and C before their norms
  Array<S> dt, b, c;             // (T, rank), (T, n) after them
  Array<S> rstd;                 // (T, 3) of the norms
  Array<S> wide, step;           // (T, inner) dt before and after softplus
  Array<S> y;                    // (T, inner) + D u
  Array<S> out;                  // y silu(z)
  Array<S> rows_before, states;  // of a pass with a past
};

template <class S>
class Mamba1 final : public RecurrentBase<S> {
 public:
  Mamba1(const MixerPlace<S>& at, const Mamba1Options& options)
      : RecurrentBase<S>(at, "mamba."), o_(options.resolved(at.config)) {
    const Index h = at.config.hidden;
    this->matrix(in_, "in_proj", 2 * o_.inner, h, "in_proj.weight");
    if (o_.proj_bias)
      this->vector(in_bias_, "in_proj_bias", 2 * o_.inner, {}, "in_proj.bias");
    this->kernel(conv_, "conv1d", o_.inner, o_.kernel, "conv1d.weight");
    if (o_.conv_bias)
      this->vector(conv_bias_, "conv1d_bias", o_.inner, {}, "conv1d.bias");
    this->matrix(x_, "x_proj", o_.narrow(), o_.inner, "x_proj.weight");
    this->make(dt_, "dt_proj", {o_.inner, o_.rank}, ParameterKind::matrix,
               {.std = 1 / std::sqrt(3.0 * o_.rank)}, "dt_proj.weight");
    this->vector(dt_bias_, "dt_proj_bias", o_.inner, {.rule = step_start}, "dt_proj.bias");
    this->make(a_log_, "A_log", {o_.inner, o_.state}, ParameterKind::vector,
               {.rule =
                    [n = o_.state](Index i, double) {
                      return std::log(double(i % n) + 1);
                    }},
               "A_log");
    this->vector(skip_, "D", o_.inner, {.value = 1}, "D");
    if (o_.norms)
      make_norms();
    this->matrix(out_, "out_proj", h, o_.inner, "out_proj.weight", MatrixRole::mixer_output);
    if (o_.proj_bias)
      this->vector(out_bias_, "out_proj_bias", h, {}, "out_proj.bias");
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<Mamba1Tape<S>>();
    Mamba1Tape<S>& t = *tape;
    RecurrentState<S>* state = this->states(past);
    const Index n = o_.inner;
    t.all = side_.product(x, in_, in_bias_);
    for (Array<S>* a : {&t.u, &t.conv, &t.x, &t.step, &t.y, &t.out})
      *a = side_.array(x.rows, n);
    for_rows(x.rows, [&](Index r) { std::copy_n(row_of(t.all, r), n, row_of(t.u, r)); });
    t.rows_before = conv().forward(batch, t.u.view(), t.conv.view(), part_of(state, 0));
    row_math::silu(t.conv.view().data, t.x.view().data, nullptr, t.conv.view().size());
    narrow(t);
    Array<S> last;
    if (state) {
      last = side_.array(state->part[1].numbers.rows(), o_.state);
      t.states = std::move(state->part[1].numbers);
    }
    const Array<S> rate = rates();
    side_.scans().selective_scan(inputs(t, rate, batch), last.view(), t.y.view());
    if (state)
      state->part[1].numbers = std::move(last);
    gate(t);
    side_.product(t.out, out_, y);
    this->add_bias(out_bias_, y);
    return tape;
  }

  void backward_through(const Batch& batch, const MixerTape& tape, View<const S> x,
                        View<const S> dy, View<S> dx, RecurrentState<S>* gradient) override {
    const auto& t = static_cast<const Mamba1Tape<S>&>(tape);
    const Index n = o_.inner;
    Array<S> dall = side_.array(x.rows, 2 * n);
    const Array<S> d_y = gate_backward(t, dy, dall);
    Array<S> du = scan_backward(batch, t, d_y, gradient);
    Array<S> slope = side_.array(x.rows, n);
    row_math::silu(t.conv.view().data, nullptr, slope.view().data, slope.view().size());
    row_math::product(slope.view().data, du.view().data, du.view().data, du.view().size());
    conv().backward(batch, du.view(), t.u.view(), t.rows_before, slope.view(),
                    part_of(gradient, 0));
    for_rows(x.rows, [&](Index r) { std::copy_n(row_of(slope, r), n, row_of(dall, r)); });
    side_.product_backward(dall, x, in_, in_bias_, dx, S(0));
  }

  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto out = std::make_unique<RecurrentState<S>>();
    const Index kept = o_.kernel - 1;
    out->part.push_back({"conv", kept, side_.zeros(sequences * kept, o_.inner)});
    out->part.push_back({"ssm", o_.inner, side_.zeros(sequences * o_.inner, o_.state)});
    return out;
  }

 private:
  using RecurrentBase<S>::side_;
  using RecurrentBase<S>::config_;

  void make_norms() {
    this->vector(dt_norm_, "dt_layernorm", o_.rank, {.value = 1}, "dt_layernorm.weight");
    this->vector(b_norm_, "b_layernorm", o_.state, {.value = 1}, "b_layernorm.weight");
    this->vector(c_norm_, "c_layernorm", o_.state, {.value = 1}, "c_layernorm.weight");
  }
  ConvPart<S> conv() {
    return {side_, {&conv_}, &conv_bias_};
  }
  Array<S> rates() const {
    const HostNumbers<S> log = side_.read(a_log_);
    Array<S> out = side_.array(o_.inner, o_.state);
    for (Index i = 0; i < out.view().size(); ++i)
      out.view().data[i] = S(-std::exp(double(log.view.data[i])));
    return out;
  }
  SelectiveInputs<S> inputs(const Mamba1Tape<S>& t, const Array<S>& rate,
                            const Batch& batch) const {
    return {.x = t.x.view(),
            .dt = t.step.view(),
            .rate = rate.view(),
            .b = t.b.view(),
            .c = t.c.view(),
            .start = batch.start,
            .initial = t.states.view()};
  }
  // The three parts of a row of x_proj's result: first column, width, norm.
  struct Part {
    Index first, width;
    Parameter<S>* norm;
  };
  std::vector<Part> parts() {
    return {{0, o_.rank, &dt_norm_},
            {o_.rank, o_.state, &b_norm_},
            {o_.rank + Index(o_.state), o_.state, &c_norm_}};
  }
  // One of them, normed where they are; its 1/rms goes to column i.
  Array<S> normed(Mamba1Tape<S>& t, const Part& p, Index i) const {
    Array<S> out = side_.array(t.raw.rows(), p.width);
    const HostNumbers<S> w = side_.read(*p.norm);
    for_rows(out.rows(), [&](Index r) {
      const S* from = row_of(t.raw, r) + p.first;
      S* o = row_of(out, r);
      const S mean = row_math::dot(from, from, p.width) / S(p.width);
      const S scale = o_.norms ? 1 / std::sqrt(mean + S(config_.norm_eps)) : S(1);
      t.rstd.view()(r, i) = scale;
      row_math::scale(from, scale, o, p.width);
      if (o_.norms)
        row_math::product(o, w.view.data, o, p.width);
    });
    return out;
  }
  // dt, B and C, and the steps.
  void narrow(Mamba1Tape<S>& t) {
    const Index rows = t.x.rows();
    t.raw = side_.product(t.x, x_);
    t.rstd = side_.array(rows, 3);
    Array<S>* const to[] = {&t.dt, &t.b, &t.c};
    const std::vector<Part> all = parts();
    for (std::size_t i = 0; i < 3; ++i)
      *to[i] = normed(t, all[i], Index(i));
    t.wide = side_.product(t.dt, dt_);
    const HostNumbers<S> bias = side_.read(dt_bias_);
    for_rows(rows, [&](Index r) {
      for (Index i = 0; i < o_.inner; ++i)
        t.step.view()(r, i) = S(softplus(double(t.wide.view()(r, i)) + double(bias(0, i))));
    });
  }

  // Adds D u to y and gates it.
  void gate(Mamba1Tape<S>& t) const {
    const Index n = o_.inner;
    const HostNumbers<S> skip = side_.read(skip_);
    for_rows(t.y.rows(), [&](Index r) {
      S* o = row_of(t.out, r);
      S* v = row_of(t.y, r);
      row_math::add_product(skip.view.data, row_of(t.x, r), v, n);
      row_math::silu(row_of(t.all, r) + n, o, nullptr, n);
      row_math::product(o, v, o, n);
    });
  }
  // The gradient by y; sets that by z.
  Array<S> gate_backward(const Mamba1Tape<S>& t, View<const S> dy, Array<S>& dall) {
    const Index n = o_.inner;
    Array<S> d = side_.product_backward(dy, t.out, out_);
    this->bias_backward(dy, out_bias_);
    for_rows(dy.rows, [&](Index r) {
      const S* z = row_of(t.all, r) + n;
      S* dz = row_of(dall, r) + n;
      S* by = row_of(d, r);
      row_math::silu(z, nullptr, dz, n);
      row_math::product(dz, row_of(t.y, r), dz, n);
      row_math::product(dz, by, dz, n);
      for (Index i = 0; i < n; ++i)
        by[i] *= z[i] / (1 + std::exp(-z[i]));
    });
    return d;
  }
  // From the gradient by y to that by silu(conv(u)).
  Array<S> scan_backward(const Batch& batch, const Mamba1Tape<S>& t, const Array<S>& d_y,
                         RecurrentState<S>* gradient) {
    const Index rows = d_y.rows();
    const Array<S> rate = rates();
    Array<S> du = side_.array(rows, o_.inner);
    Array<S> dstep = side_.array(rows, o_.inner);
    Array<S> drate = side_.zeros(o_.inner, o_.state);
    Array<S> db = side_.array(rows, o_.state);
    Array<S> dc = side_.array(rows, o_.state);
    Array<S> dlast;
    SelectiveGradients<S> to{
        .x = du.view(), .dt = dstep.view(), .rate = drate.view(), .b = db.view(), .c = dc.view()};
    if (gradient) {
      dlast = std::move(gradient->part[1].numbers);
      gradient->part[1].numbers = side_.array(dlast.rows(), dlast.cols());
      to.initial = gradient->part[1].numbers.view();
    }
    side_.scans().selective_scan_backward(inputs(t, rate, batch), d_y.view(), dlast.view(), to);
    row_math::product(drate.view().data, rate.view().data, drate.view().data, drate.view().size());
    side_.accumulate(drate.view(), a_log_);
    steps_backward(t, d_y, du, dstep);
    add_narrow(t, dstep, db, dc, du);
    return du;
  }
  // Adds what comes by way of x_proj to du.
  void add_narrow(const Mamba1Tape<S>& t, const Array<S>& dstep, const Array<S>& db,
                  const Array<S>& dc, Array<S>& du) {
    const Array<S> ddt = side_.product_backward(dstep, t.dt, dt_);
    const Array<S> draw = narrow_backward(t, {&ddt, &db, &dc});
    const Array<S> more = side_.product_backward(draw, t.x, x_);
    row_math::add(more.view().data, S(1), du.view().data, du.view().size());
  }
  // Adds what goes past the states to du; dstep becomes the gradient by dt_proj's result.
  void steps_backward(const Mamba1Tape<S>& t, const Array<S>& d_y, Array<S>& du, Array<S>& dstep) {
    const HostNumbers<S> bias = side_.read(dt_bias_);
    const HostNumbers<S> skip = side_.read(skip_);
    const Index n = o_.inner;
    Array<S> sums = side_.zeros(2, n);  // by D, by the bias of dt
    sum_rows<S>(d_y.rows(), sums.view(), [&](Index r, S* sum) {
      const S* g = row_of(d_y, r);
      S* d = row_of(dstep, r);
      row_math::add_product(g, skip.view.data, row_of(du, r), n);
      row_math::add_product(g, row_of(t.x, r), sum, n);
      for (Index i = 0; i < n; ++i)
        d[i] *= S(logistic(double(t.wide.view()(r, i)) + double(bias(0, i))));
      row_math::add(d, S(1), sum + n, n);
    });
    side_.accumulate(sums.view().slice(0, 1), skip_);
    side_.accumulate(sums.view().slice(1, 1), dt_bias_);
  }
  // From the gradients by dt, B and C to that by x_proj's result.
  Array<S> narrow_backward(const Mamba1Tape<S>& t, const std::vector<const Array<S>*>& by) {
    const Index rows = t.raw.rows();
    Array<S> draw = side_.array(rows, o_.narrow());
    const std::vector<Part> all = parts();
    for (std::size_t i = 0; i < 3; ++i) {
      const Part& p = all[i];
      const HostNumbers<S> w = side_.read(*p.norm);
      Array<S> dw = side_.zeros(1, o_.norms ? p.width : 0);
      sum_rows<S>(rows, dw.view(), [&](Index r, S* sum) {
        const S* g = by[i]->view().row(r).data();
        const S* from = row_of(t.raw, r) + p.first;
        S* d = row_of(draw, r) + p.first;
        if (!o_.norms) {
          std::copy_n(g, p.width, d);
          return;
        }
        const S scale = t.rstd.view()(r, Index(i));
        S along = 0;
        for (Index j = 0; j < p.width; ++j) {
          const S weighed = g[j] * w(0, j);
          sum[j] += g[j] * from[j] * scale;
          along += weighed * from[j];
          d[j] = weighed * scale;
        }
        row_math::add(from, -along * scale * scale * scale / S(p.width), d, p.width);
      });
      if (o_.norms)
        side_.accumulate(dw.view(), *p.norm);
    }
    return draw;
  }

  Mamba1Options o_;
  Parameter<S> in_, in_bias_, conv_, conv_bias_, x_, dt_, dt_bias_, a_log_, skip_, dt_norm_,
      b_norm_, c_norm_, out_, out_bias_;
};

}  // namespace

std::unique_ptr<MixerType> make_mamba1_mixer(Spec& spec) {
  return std::make_unique<RecurrentType<Mamba1Options, Mamba1>>(Mamba1Options(spec));
}

}  // namespace moe
