// Latent heads (DeepSeek-V2, 2405.04434): keys and values come from one narrow row a token, queries
// may come from another; beside the part of a key that comes from it stands a turned part that all
// heads share (which layers without rotary embedding leave as it is: Kimi Linear). m = nope_dim,
// n = rope_dim of a head.
#include "lib/model/mixers/attention.h"

namespace moe {
namespace {

constexpr double latent_eps = 1e-6;  // of both inner norms, whatever the model's

template <class S>
class Latent final : public Heads<S> {
 public:
  using Tape = AttentionTape<S>;

  Latent(const ModelConfig& c, int layer, Backend<S>& b)
      : backend_(b),
        heads_(c.heads),
        nope_(c.nope_dim),
        turned_(c.rope_dim),
        value_(c.value_dim),
        rank_(c.kv_rank),
        interleaved_(c.rope_interleaved),
        turns_(c.has_rope(layer)),
        q_scale_(c.q_latent_scale),
        kv_scale_(c.kv_latent_scale),
        rotary_(rotary_of(c.rope, c.rope_dim, c.rope_theta)) {
    const Index q = Index(heads_) * (nope_ + turned_);
    const auto vector = [&](const char* name, Index n) {
      return Parameter<S>(b, name, {n}, ParameterKind::vector);
    };
    if (c.q_rank > 0) {
      q_a_ = Parameter<S>(b, "q_a", {c.q_rank, c.hidden});
      q_b_ = Parameter<S>(b, "q_b", {q, c.q_rank});
      q_a_norm_ = vector("q_a_norm", c.q_rank);
      if (c.qkv_bias)
        q_a_bias_ = vector("q_a_bias", c.q_rank);
    } else {
      q_ = Parameter<S>(b, "q", {q, c.hidden});
    }
    kv_a_ = Parameter<S>(b, "kv_a", {rank_ + turned_, c.hidden});
    kv_b_ = Parameter<S>(b, "kv_b", {Index(heads_) * (nope_ + value_), rank_});
    kv_a_norm_ = vector("kv_a_norm", rank_);
    if (c.qkv_bias)
      kv_a_bias_ = vector("kv_a_bias", rank_ + turned_);
  }

  void collect(std::vector<Parameter<S>*>& all) override {
    for (Parameter<S>* p :
         {&q_, &q_a_, &q_a_bias_, &q_a_norm_, &q_b_, &kv_a_, &kv_a_bias_, &kv_a_norm_, &kv_b_}) {
      if (!p->empty())
        all.push_back(p);
    }
  }

  void forward(View<const S> x, Tape& t) override {
    queries(x, t);
    const Index rows = x.rows;
    const Array<S> narrow = product(x, kv_a_, kv_a_bias_);
    t.latent = Array<S>(backend_, rows, rank_);
    Array<S> turned(backend_, rows, turned_);
    Array<S> plain(backend_, rows, heads_ * nope_);
    backend_.split_heads(narrow.view(), 1, t.latent.view(), turned.view());
    normed(t.latent, kv_a_norm_, t.latent_normed, t.latent_rstd);
    scale(t.latent_normed, kv_scale_);
    const Array<S> wide = product(std::as_const(t.latent_normed).view(), kv_b_, none_);
    t.v = Array<S>(backend_, rows, heads_ * value_);
    backend_.split_heads(wide.view(), heads_, plain.view(), t.v.view());
    turn(t, t.q.view(), turned.view(), false);
    t.k = Array<S>(backend_, rows, t.q.cols());
    backend_.join_heads(plain.view(), turned.view(), heads_, t.k.view());
    if (!t.stretch.empty())
      stretch(backend_, t, t.q.view());
  }

  void backward(const Tape& t, View<const S> x, HeadGradients<S> d, View<S> dx) override {
    auto& [dq, dk, dv, no_gate] = d;
    if (!t.stretch.empty())
      stretch(backend_, t, dq.view());
    const Index rows = x.rows;
    Array<S> dplain(backend_, rows, heads_ * nope_);
    Array<S> dturned(backend_, rows, turned_);
    Array<S> dwide(backend_, rows, heads_ * (nope_ + value_));
    Array<S> dnormed(backend_, rows, rank_);
    Array<S> dlatent(backend_, rows, rank_);
    Array<S> dnarrow(backend_, rows, rank_ + turned_);
    backend_.split_heads(dk.view(), heads_, dplain.view(), dturned.view());
    turn(t, dq.view(), dturned.view(), true);
    backend_.join_heads(dplain.view(), dv.view(), heads_, dwide.view());
    project_backward(backend_, std::as_const(dwide).view(), t.latent_normed.view(), kv_b_, none_,
                     dnormed.view(), S(0));
    scale(dnormed, kv_scale_);
    backend_.norm_backward(dnormed.view(), t.latent.view(), kv_a_norm_.value(),
                           t.latent_rstd.view(), dlatent.view(), kv_a_norm_.grad(), 0);
    backend_.join_heads(dlatent.view(), dturned.view(), 1, dnarrow.view());
    project_backward(backend_, std::as_const(dnarrow).view(), x, kv_a_, kv_a_bias_, dx, S(0));
    queries_backward(t, x, dq, dx);
  }

 private:
  void queries(View<const S> x, Tape& t) {
    t.q = Array<S>(backend_, x.rows, heads_ * (nope_ + turned_));
    if (!q_.empty())
      return backend_.linear(x, q_.weight(), t.q.view(), 0);
    t.latent_q = product(x, q_a_, q_a_bias_);
    normed(t.latent_q, q_a_norm_, t.latent_q_normed, t.latent_q_rstd);
    backend_.linear(t.latent_q_normed.view(), q_b_.weight(), t.q.view(), 0);
    scale(t.q, q_scale_);
  }
  // adds to dx, which keys and values have set
  void queries_backward(const Tape& t, View<const S> x, Array<S>& dq, View<S> dx) {
    if (!q_.empty())
      return project_backward(backend_, std::as_const(dq).view(), x, q_, none_, dx, S(1));
    scale(dq, q_scale_);
    Array<S> dq_normed(backend_, x.rows, t.latent_q.cols());
    Array<S> dq_latent(backend_, x.rows, t.latent_q.cols());
    project_backward(backend_, std::as_const(dq).view(), t.latent_q_normed.view(), q_b_, none_,
                     dq_normed.view(), S(0));
    backend_.norm_backward(dq_normed.view(), t.latent_q.view(), q_a_norm_.value(),
                           t.latent_q_rstd.view(), dq_latent.view(), q_a_norm_.grad(), 0);
    project_backward(backend_, std::as_const(dq_latent).view(), x, q_a_, q_a_bias_, dx, S(1));
  }
  Array<S> product(View<const S> x, const Parameter<S>& w, const Parameter<S>& bias) {
    Array<S> y(backend_, x.rows, w.value().rows);
    project(backend_, x, w, bias, y.view());
    return y;
  }
  void normed(const Array<S>& x, const Parameter<S>& w, Array<S>& y, Array<S>& rstd) {
    y = Array<S>(backend_, x.rows(), x.cols());
    rstd = Array<S>(backend_, x.rows(), 1);
    backend_.norm(x.view(), w.value(), latent_eps, y.view(), rstd.view());
  }
  void scale(Array<S>& x, double factor) {
    if (factor != 1)
      backend_.add(x.view(), x.view(), S(factor - 1));
  }
  void turn(const Tape& t, View<S> q, View<S> k, bool transposed) {
    if (!turns_)
      return;
    backend_.rope(q, rotary_.rotation(nope_ + turned_, nope_, interleaved_, t.furthest),
                  t.position.view(), transposed);
    backend_.rope(k, rotary_.rotation(turned_, 0, interleaved_, t.furthest), t.position.view(),
                  transposed);
  }

  Backend<S>& backend_;
  int heads_, nope_, turned_, value_, rank_;
  bool interleaved_, turns_;
  double q_scale_, kv_scale_;
  Rotary rotary_;
  Parameter<S> q_, q_a_, q_a_bias_, q_a_norm_, q_b_, kv_a_, kv_a_bias_, kv_a_norm_, kv_b_, none_;
};

}  // namespace

template <class S>
std::unique_ptr<Heads<S>> make_latent_heads(const ModelConfig& c, int layer, Backend<S>& b) {
  return std::make_unique<Latent<S>>(c, layer, b);
}
template std::unique_ptr<Heads<float>> make_latent_heads(const ModelConfig&, int, Backend<float>&);
template std::unique_ptr<Heads<double>> make_latent_heads(const ModelConfig&, int,
                                                          Backend<double>&);

}  // namespace moe
