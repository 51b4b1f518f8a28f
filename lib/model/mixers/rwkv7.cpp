// RWKV-7's time mix, 2503.14456, with the names of the authors' code: states of h heads of d that
// are corrected along removed keys.
//   x_f = x + (shift(x) - x) mu_f, f of r, w, k, v, a, g;  r, k, v = W x_f
//   log kept = -e^-1/2 sigmoid(w0 + tanh(x_w w1) w2);  a = sigmoid(a0 + x_a a1 a2)
//   g = sigmoid(x_g g1) g2;  v += (v_first - v) sigmoid(v0 + x_v v1 v2) from the second layer on
//   n = k k_k / |.| by head;  k = k (1 + (a - 1) k_a)
//   S = S (diag(kept) - n (n a)') + v k';  o = S r
//   out = W_o( (groupnorm(o) + (sum of r k r_k) v) g )
#include <cmath>

#include "lib/model/mixers/first_values.h"
#include "lib/model/mixers/recurrent_base.h"
#include "lib/model/mixers/row_math.h"
#include "lib/model/mixers/rwkv_parts.h"
#include "lib/model/mixers/state_scan.h"

namespace moe {
namespace {

enum Mix : std::size_t { mix_r, mix_w, mix_k, mix_v, mix_a, mix_g, mixes };

// Whether no layer before has this mixer.
bool is_first(const ModelConfig& c, int layer) {
  const std::vector<std::string> all = layer_mixers(c.mixer, c.layers);
  for (int l = 0; l < layer; ++l) {
    if (Spec(all[std::size_t(l)]).name() == Spec(all[std::size_t(layer)]).name())
      return false;
  }
  return true;
}

struct Rwkv7Options {
  int head_dim, decay_rank, a_rank, v_rank, gate_rank;
  double group_eps;

  explicit Rwkv7Options(Spec& s)
      : head_dim(s.get("head_dim", 0, 0)),
        decay_rank(s.get("decay_rank", 0, 0)),
        a_rank(s.get("a_rank", 0, 0)),
        v_rank(s.get("v_rank", 0, 0)),
        gate_rank(s.get("gate_rank", 0, 0)),
        group_eps(s.get("group_eps", 0.0, 0.0)) {}

  // With what is left to the model: heads of 64, or one of all H where that is less; the authors'
  // ranks, multiples of 32 that grow with H; 1e-5 a column of a head.
  Rwkv7Options resolved(const ModelConfig& c) const {
    Rwkv7Options o = *this;
    if (o.head_dim == 0)
      o.head_dim = std::min(64, c.hidden);
    if (c.hidden % o.head_dim != 0) {
      throw Error(Exit::usage, concat("hidden = ", c.hidden,
                                      " is no multiple of the mixer's head_dim=", o.head_dim));
    }
    const auto rank = [](int given, double wanted) {
      return given > 0 ? given : std::max(32, int(std::lround(wanted / 32)) * 32);
    };
    const double root = std::sqrt(double(c.hidden));
    o.decay_rank = rank(o.decay_rank, 1.8 * root);
    o.a_rank = rank(o.a_rank, 1.8 * root);
    o.v_rank = rank(o.v_rank, 1.3 * root);
    o.gate_rank = rank(o.gate_rank, 0.6 * std::pow(double(c.hidden), 0.8));
    if (o.group_eps == 0)
      o.group_eps = 1e-5 * o.head_dim;
    return o;
  }
  MixerShape shape(const ModelConfig& c, int layer) const {
    const Rwkv7Options o = resolved(c);
    const Count h = c.hidden;
    const bool first = is_first(c, layer);
    const Count ranks = o.decay_rank + o.a_rank + o.gate_rank + (first ? 0 : o.v_rank);
    MixerShape m;
    m.kind = MixerKind::rwkv7;
    m.heads = h / o.head_dim;
    m.head_dim = o.head_dim;
    OwnPieces own;
    own.matrix(h, h, 4);
    own.matrix(h, ranks);
    own.matrix(ranks, h);
    own.vector((first ? 13 : 14) * h);
    m.own = own.list.all;
    m.own_state = h + h * o.head_dim;
    m.own_flops = 10.0 * double(h) * o.head_dim;
    // see Rwkv7Tape and backward
    m.tape_numbers = (first ? 20 : 22) * h + ranks + 2 * m.heads;
    m.backward_numbers = 11 * h;
    return m;
  }
};

// A product of low rank with a bias before a sigmoid, or one inside: what of it is kept.
template <class S>
struct LowRank {
  Parameter<S> in, out;  // (H, rank), (rank, H)
  bool empty() const {
    return in.empty();
  }
};

template <class S>
struct Rwkv7Tape final : MixerTape {
  Array<S> before, x[mixes];                        // (T,H)
  Array<S> narrow_w, narrow_a, narrow_v, narrow_g;  // (T, rank), of w after tanh, g after sigmoid
  Array<S> r, k;                                    // (T,H) products
  Array<S> own, mixed;           // values: the product, with the first layer's share
  Array<S> share, a, g;          // (T,H)
  Array<S> decay;                // (T,H) logarithms
  Array<S> normal, length;       // n (T,H), 1/|k k_k| (T,heads)
  Array<S> removed, added, key;  // (T,H) the scan's a, b and k
  Array<S> o, y, out, rstd;
  std::shared_ptr<LayerValues<S>> first;
  Array<S> states;  // of a pass with a past

  View<const S> values() const {
    return mixed.empty() ? std::as_const(first->values).view() : mixed.view();
  }
};

template <class S>
class Rwkv7 final : public RecurrentBase<S> {
 public:
  Rwkv7(const MixerPlace<S>& at, const Rwkv7Options& options)
      : RecurrentBase<S>(at, "att."),
        o_(options.resolved(at.config)),
        heads_(at.config.hidden / o_.head_dim),
        first_(at.template share<FirstValues<S>>(
            first_values_name, [&] { return std::make_shared<FirstValues<S>>(at.layer); })),
        is_first_(first_->layer == at.layer) {
    const Index h = at.config.hidden;
    make_mixes(at);
    make_gates(at);
    this->vector(k_k_, "k_k", h, {.value = 0.71}, "k_k");
    this->vector(k_a_, "k_a", h, {.value = 1.02}, "k_a");
    this->make(r_k_, "r_k", {heads_, o_.head_dim}, ParameterKind::vector, {.value = -0.04}, "r_k");
    this->matrix(receptance_, "receptance", h, h, "receptance.weight");
    this->matrix(key_, "key", h, h, "key.weight");
    this->matrix(value_, "value", h, h, "value.weight");
    this->vector(norm_, "ln_x", h, {.value = 1}, "ln_x.weight");
    this->vector(norm_bias_, "ln_x_bias", h, {}, "ln_x.bias");
    this->make(out_, "output", {h, h}, ParameterKind::matrix, {}, "output.weight");
  }

  std::unique_ptr<MixerTape> forward(const Batch& batch, View<const S> x, View<S> y,
                                     MixerPast* past) override {
    auto tape = std::make_unique<Rwkv7Tape<S>>();
    Rwkv7Tape<S>& t = *tape;
    RecurrentState<S>* state = this->states(past);
    const HostNumbers<S> rows = side_.read(x);
    t.before = shift().forward(batch, rows.view, part_of(state, 0));
    for (std::size_t i = 0; i < mixes; ++i)
      t.x[i] = mix(i).forward(rows.view, t.before.view());
    t.r = side_.product(t.x[mix_r], receptance_);
    t.k = side_.product(t.x[mix_k], key_);
    gates(t);
    values(t);
    keys(t);
    t.o = side_.array(x.rows, x.cols);
    t.states = scan_from<S>(side_, inputs(t), shape(batch), part_of(state, 1), t.o.view());
    normed(t);
    side_.product(t.out, out_, y);
    return tape;
  }

  void backward_through(const Batch& batch, const MixerTape& tape, View<const S> x,
                        View<const S> dy, View<S> dx, RecurrentState<S>* gradient) override {
    const auto& t = static_cast<const Rwkv7Tape<S>&>(tape);
    const HostNumbers<S> rows = side_.read(x);
    Array<S> by[mixes];  // by r, the decay, k, v, a and g
    for (Array<S>& a : by)
      a = side_.array(x.rows, x.cols);
    states_backward(batch, t, dy, by, gradient);
    values_backward(t, by[mix_v]);
    Array<S> sum = side_.zeros(x.rows, x.cols);
    Array<S> dbefore = side_.zeros(x.rows, x.cols);
    for (std::size_t i = 0; i < mixes; ++i) {
      const Array<S> dmixed = mix_backward(Mix(i), by[i], t);
      mix(i).backward(dmixed.view(), rows.view, t.before.view(), {}, sum.view(), dbefore.view());
    }
    shift().backward(batch, dbefore, sum.view(), part_of(gradient, 0));
    side_.set(sum, dx);
  }

  std::unique_ptr<MixerState> new_state(Index sequences) const override {
    auto out = std::make_unique<RecurrentState<S>>();
    out->part.push_back(shift().new_state(sequences, config_.hidden));
    out->part.push_back({"state", config_.hidden,
                         side_.zeros(sequences * config_.hidden, o_.head_dim), heads_, true});
    return out;
  }

 private:
  using RecurrentBase<S>::side_;
  using RecurrentBase<S>::config_;

  static constexpr double rate = 0.60653065971263342;  // e^-1/2

  void make_mixes(const MixerPlace<S>& at) {
    const Index h = at.config.hidden;
    const double left = 1 - double(at.layer) / at.config.layers;
    const char* const names[] = {"x_r", "x_w", "x_k", "x_v", "x_a", "x_g"};
    const double powers[] = {0.2, 0.9, 0.7, 0.7, 0.9, 0.2};
    for (std::size_t i = 0; i < mixes; ++i) {
      const auto rule = [h, p = powers[i] * left](Index c, double) {
        return 1 - std::pow(double(c) / double(h), p);
      };
      this->vector(mu_[i], names[i], h, {.rule = rule}, names[i]);
    }
  }
  void make_gates(const MixerPlace<S>& at) {
    const Index h = at.config.hidden;
    const double power = 1 + std::sqrt(share_of(at.layer, at.config.layers));
    const auto rising = [=](Index i, double) {
      return -6 + 6 * std::pow(share_of(i, h), power);
    };
    this->vector(w0_, "w0", h, {.rule = rising}, "w0");
    this->vector(a0_, "a0", h, {}, "a0");
    low_rank(w_, "w1", "w2", o_.decay_rank);
    low_rank(a_, "a1", "a2", o_.a_rank);
    low_rank(g_, "g1", "g2", o_.gate_rank);
    if (is_first_)
      return;
    this->vector(v0_, "v0", h, {.value = 1}, "v0");
    low_rank(v_, "v1", "v2", o_.v_rank);
  }
  void low_rank(LowRank<S>& p, const char* in, const char* out, Index rank) {
    const Index h = config_.hidden;
    this->make(p.in, in, {h, rank}, ParameterKind::matrix, {}, in);
    this->make(p.out, out, {rank, h}, ParameterKind::matrix, {.std = 0.1 / std::sqrt(double(h))},
               out);
  }
  TokenShift<S> shift() const {
    return {side_};
  }
  TokenMix<S> mix(std::size_t i) {
    return {side_, mu_[i]};
  }
  HeadNorm<S> head_norm() {
    return {side_, norm_, norm_bias_, heads_, o_.group_eps};
  }
  Bonus<S> bonus() {
    return {side_, r_k_, heads_};
  }
  ScanShape shape(const Batch& batch) const {
    return {.heads = heads_,
            .groups = heads_,
            .key = o_.head_dim,
            .value = o_.head_dim,
            .start = batch.start};
  }
  ScanInputs<S> inputs(const Rwkv7Tape<S>& t) const {
    return {.q = t.r.view(),
            .k = t.key.view(),
            .v = t.values(),
            .decay = t.decay.view(),
            .a = t.removed.view(),
            .b = t.added.view()};
  }

  // sigmoid(bias + m)
  void sigmoid_of(Array<S>& m, const Parameter<S>& bias, double factor) const {
    const HostNumbers<S> b = side_.read(bias);
    for_rows(m.rows(), [&](Index r) {
      for (Index i = 0; i < m.cols(); ++i) {
        S& v = m.view()(r, i);
        v = S(factor / (1 + std::exp(-double(v) - double(b(0, i)))));
      }
    });
  }
  void gates(Rwkv7Tape<S>& t) const {
    t.narrow_w = side_.product_in_out(t.x[mix_w], w_.in.value());
    to_tanh(t.narrow_w);
    t.decay = side_.product_in_out(t.narrow_w, w_.out.value());
    sigmoid_of(t.decay, w0_, -rate);
    t.narrow_a = side_.product_in_out(t.x[mix_a], a_.in.value());
    t.a = side_.product_in_out(t.narrow_a, a_.out.value());
    sigmoid_of(t.a, a0_, 1);
    t.narrow_g = side_.product_in_out(t.x[mix_g], g_.in.value());
    row_math::sigmoid(t.narrow_g.view().data, t.narrow_g.view().data, nullptr,
                      t.narrow_g.view().size());
    t.g = side_.product_in_out(t.narrow_g, g_.out.value());
  }
  void values(Rwkv7Tape<S>& t) {
    Array<S> v = side_.product(t.x[mix_v], value_);
    if (is_first_) {
      first_->last = std::make_shared<LayerValues<S>>();
      first_->last->values = std::move(v);
      t.first = first_->last;
      return;
    }
    t.first = first_->last;
    t.own = std::move(v);
    t.narrow_v = side_.product_in_out(t.x[mix_v], v_.in.value());
    t.share = side_.product_in_out(t.narrow_v, v_.out.value());
    sigmoid_of(t.share, v0_, 1);
    t.mixed = side_.array(t.own.rows(), t.own.cols());
    for (Index i = 0; i < t.own.view().size(); ++i) {
      const S own = t.own.view().data[i];
      t.mixed.view().data[i] =
          own + (t.first->values.view().data[i] - own) * t.share.view().data[i];
    }
  }
  // One head; returns 1/length.
  S to_length_one(S* n) const {
    const double length = std::sqrt(double(row_math::dot(n, n, o_.head_dim)));
    const S r = S(1 / std::max(length, 1e-12));
    row_math::scale(n, r, n, o_.head_dim);
    return r;
  }
  // What the scan removes and adds.
  void keys(Rwkv7Tape<S>& t) const {
    const HostNumbers<S> k_k = side_.read(k_k_);
    const HostNumbers<S> k_a = side_.read(k_a_);
    const Index rows = t.k.rows();
    for (Array<S>* m : {&t.normal, &t.removed, &t.added, &t.key})
      *m = side_.array(rows, t.k.cols());
    t.length = side_.array(rows, heads_);
    for_rows(rows, [&](Index r) {
      const S* k = row_of(t.k, r);
      S* n = row_of(t.normal, r);
      row_math::product(k, k_k.view.data, n, t.k.cols());
      for (Index h = 0; h < heads_; ++h)
        t.length.view()(r, h) = to_length_one(n + h * o_.head_dim);
      for (Index i = 0; i < t.k.cols(); ++i) {
        const S a = t.a.view()(r, i);
        t.removed.view()(r, i) = S(-double(n[i]) * std::exp(-double(t.decay.view()(r, i))));
        t.added.view()(r, i) = n[i] * a;
        t.key.view()(r, i) = k[i] * (1 + (a - 1) * k_a(0, i));
      }
    });
  }

  // The norm, the bonus and the gate.
  void normed(Rwkv7Tape<S>& t) {
    const Index rows = t.o.rows();
    const Index h = t.o.cols();
    t.y = side_.array(rows, h);
    t.rstd = side_.array(rows, heads_);
    head_norm().forward(t.o.view(), t.y.view(), t.rstd.view());
    bonus().forward(t.r.view(), t.key.view(), t.values(), t.y.view());
    t.out = side_.array(rows, h);
    row_math::product(t.y.view().data, t.g.view().data, t.out.view().data, t.y.view().size());
  }
  // From dy to the gradients by r, the decay, k, the values, a and g.
  void states_backward(const Batch& batch, const Rwkv7Tape<S>& t, View<const S> dy, Array<S>* by,
                       RecurrentState<S>* gradient) {
    Array<S> d_y = side_.product_backward(dy, t.out, out_);
    const Index n = d_y.view().size();
    row_math::product(d_y.view().data, t.y.view().data, by[mix_g].view().data, n);
    row_math::product(d_y.view().data, t.g.view().data, d_y.view().data, n);
    Array<S> d_o = side_.array(dy.rows, dy.cols);
    head_norm().backward(d_y.view(), t.o.view(), t.rstd.view(), d_o.view());
    Array<S> dremoved = side_.array(dy.rows, dy.cols);
    Array<S> dadded = side_.array(dy.rows, dy.cols);
    const ScanGradients<S> to{.q = by[mix_r].view(),
                              .k = by[mix_k].view(),
                              .v = by[mix_v].view(),
                              .decay = by[mix_w].view(),
                              .a = dremoved.view(),
                              .b = dadded.view()};
    scan_back<S>(side_, inputs(t), shape(batch), t.states, d_o.view(), part_of(gradient, 1), to);
    bonus().backward(d_y.view(), t.r.view(), t.key.view(), t.values(), by[mix_r].view(),
                     by[mix_k].view(), by[mix_v].view());
    keys_backward(t, dremoved, dadded, by);
  }
  // The gradient by the scan's key becomes that by k; adds to that by the decay, sets that by a.
  void keys_backward(const Rwkv7Tape<S>& t, const Array<S>& dremoved, const Array<S>& dadded,
                     Array<S>* by) {
    const HostNumbers<S> k_a = side_.read(k_a_);
    Array<S> dnormal = side_.array(t.k.rows(), t.k.cols());
    Array<S> dk_a = side_.zeros(1, t.k.cols());
    sum_rows<S>(t.k.rows(), dk_a.view(), [&](Index r, S* sum) {
      for (Index i = 0; i < t.k.cols(); ++i) {
        const S a = t.a.view()(r, i);
        const S k = t.k.view()(r, i);
        const S g = dremoved.view()(r, i);
        const S added = dadded.view()(r, i);
        const S normal = t.normal.view()(r, i);
        const S back = S(std::exp(-double(t.decay.view()(r, i))));
        S& key = by[mix_k].view()(r, i);
        dnormal.view()(r, i) = -g * back + added * a;
        by[mix_w].view()(r, i) += g * normal * back;
        by[mix_a].view()(r, i) = added * normal + key * k * k_a(0, i);
        sum[i] += key * k * (a - 1);
        key *= 1 + (a - 1) * k_a(0, i);
      }
    });
    side_.accumulate(dk_a.view(), k_a_);
    normals_backward(t, dnormal, by[mix_k]);
  }
  // Adds what comes by way of n to dk.
  void normals_backward(const Rwkv7Tape<S>& t, const Array<S>& dnormal, Array<S>& dk) {
    const HostNumbers<S> k_k = side_.read(k_k_);
    const Index d = o_.head_dim;
    Array<S> sums = side_.zeros(1, dk.cols());
    sum_rows<S>(dk.rows(), sums.view(), [&](Index r, S* sum) {
      const S* n = row_of(t.normal, r);
      const S* by = row_of(dnormal, r);
      for (Index h = 0; h < heads_; ++h) {
        const S along = row_math::dot(by + h * d, n + h * d, d);
        for (Index i = h * d; i < (h + 1) * d; ++i) {
          const S g = (by[i] - n[i] * along) * t.length.view()(r, h);
          dk.view()(r, i) += g * k_k(0, i);
          sum[i] += g * t.k.view()(r, i);
        }
      }
    });
    side_.accumulate(sums.view(), k_k_);
  }
  // The gradient by the values becomes that by the product; of the first layer with what the layers
  // above left. `share_by` of the others is kept for mix_backward.
  void values_backward(const Rwkv7Tape<S>& t, Array<S>& dv) {
    LayerValues<S>& first = *t.first;
    const Index n = dv.view().size();
    if (is_first_) {
      if (!first.gradient.empty())
        row_math::add(first.gradient.view().data, S(1), dv.view().data, n);
      first.gradient = {};
      return;
    }
    if (first.gradient.empty())
      first.gradient = side_.zeros(dv.rows(), dv.cols());
    share_by_ = side_.array(dv.rows(), dv.cols());
    for (Index i = 0; i < n; ++i) {
      const S share = t.share.view().data[i];
      S& d = dv.view().data[i];
      first.gradient.view().data[i] += d * share;
      share_by_.view().data[i] = d * (first.values.view().data[i] - t.own.view().data[i]);
      d *= 1 - share;
    }
  }

  // Through sigmoid(bias + narrow out) factor, whose value is given, to the gradient by `narrow`.
  Array<S> sigmoid_backward(Array<S>& by, const Array<S>& value, double factor,
                            const Array<S>& narrow, LowRank<S>& p, Parameter<S>& bias) const {
    Array<S> dbias = side_.zeros(1, by.cols());
    sum_rows<S>(by.rows(), dbias.view(), [&](Index r, S* sum) {
      for (Index i = 0; i < by.cols(); ++i) {
        const S v = value.view()(r, i);
        by.view()(r, i) *= v * (1 - v / S(factor));
        sum[i] += by.view()(r, i);
      }
    });
    side_.accumulate(dbias.view(), bias);
    return side_.product_in_out_backward(by, narrow, p.out.value(), p.out.grad());
  }
  // The gradient by one mix from that by what it became.
  Array<S> mix_backward(Mix m, Array<S>& by, const Rwkv7Tape<S>& t) {
    switch (m) {
      case mix_r:
        return side_.product_backward(by, t.x[m], receptance_);
      case mix_k:
        return side_.product_backward(by, t.x[m], key_);
      case mix_w: {
        Array<S> d = sigmoid_backward(by, t.decay, -rate, t.narrow_w, w_, w0_);
        tanh_backward(t.narrow_w, d);
        return side_.product_in_out_backward(d, t.x[m], w_.in.value(), w_.in.grad());
      }
      case mix_a: {
        const Array<S> d = sigmoid_backward(by, t.a, 1, t.narrow_a, a_, a0_);
        return side_.product_in_out_backward(d, t.x[m], a_.in.value(), a_.in.grad());
      }
      case mix_g:
        return gate_backward(by, t);
      default:
        return value_backward(by, t);
    }
  }
  Array<S> gate_backward(const Array<S>& by, const Rwkv7Tape<S>& t) {
    Array<S> d = side_.product_in_out_backward(by, t.narrow_g, g_.out.value(), g_.out.grad());
    for (Index i = 0; i < d.view().size(); ++i) {
      const S v = t.narrow_g.view().data[i];
      d.view().data[i] *= v * (1 - v);
    }
    return side_.product_in_out_backward(d, t.x[mix_g], g_.in.value(), g_.in.grad());
  }
  Array<S> value_backward(const Array<S>& by, const Rwkv7Tape<S>& t) {
    Array<S> dv = side_.product_backward(by, t.x[mix_v], value_);
    if (is_first_)
      return dv;
    const Array<S> d = sigmoid_backward(share_by_, t.share, 1, t.narrow_v, v_, v0_);
    share_by_ = {};
    const Array<S> more = side_.product_in_out_backward(d, t.x[mix_v], v_.in.value(), v_.in.grad());
    row_math::add(more.view().data, S(1), dv.view().data, dv.view().size());
    return dv;
  }

  Rwkv7Options o_;
  Index heads_;
  std::shared_ptr<FirstValues<S>> first_;
  bool is_first_;
  Array<S> share_by_;  // inside backward: by the share of the first values
  LowRank<S> w_, a_, v_, g_;
  Parameter<S> mu_[mixes], w0_, a0_, v0_, k_k_, k_a_, r_k_, receptance_, key_, value_, norm_,
      norm_bias_, out_;
};

}  // namespace

std::unique_ptr<MixerType> make_rwkv7_mixer(Spec& spec) {
  return std::make_unique<RecurrentType<Rwkv7Options, Rwkv7>>(Rwkv7Options(spec));
}

}  // namespace moe
