// Grouped-query heads: products with or without bias, an optional norm of queries and keys before
// or after they are turned, a clamp, and rotary embedding of all or some of a head's numbers. In
// this order: product, norm (Qwen3, OLMoE), clamp (DBRX), rotation, norm (Hunyuan, Llama 4), or
// without rotation a stretch by position (Llama 4).
#include "lib/model/mixers/attention.h"

namespace moe {
namespace {

template <class S>
class Grouped final : public Heads<S> {
 public:
  using Tape = AttentionTape<S>;

  Grouped(const ModelConfig& c, int layer, Backend<S>& b, std::shared_ptr<const Fourier<S>> fourier)
      : backend_(b),
        fourier_(std::move(fourier)),
        head_dim_(c.head_dim),
        interleaved_(c.rope_interleaved),
        turns_(c.has_rope(layer)),
        eps_(c.norm_eps),
        clip_(c.clip_qkv) {
    const Index q = Index(c.heads) * c.head_dim;
    const Index kv = Index(c.kv_heads) * c.head_dim;
    wq_ = Parameter<S>(b, "q", {q, c.hidden});
    wk_ = Parameter<S>(b, "k", {kv, c.hidden});
    wv_ = Parameter<S>(b, "v", {kv, c.hidden});
    const auto vector = [&](const char* name, Index n) {
      return Parameter<S>(b, name, {n}, ParameterKind::vector);
    };
    if (c.qkv_bias) {
      bq_ = vector("q_bias", q);
      bk_ = vector("k_bias", kv);
      bv_ = vector("v_bias", kv);
    }
    if (turns_)
      rotary_ = rotary_of(c.rope, c.rotary_dims(), c.rope_theta);
    const bool after = c.qk_norm == QkNorm::head_after || c.qk_norm == QkNorm::length_after;
    norm_before_ = c.qk_norm != QkNorm::none && !after;
    norm_after_ = after && turns_;
    if (c.qk_norm == QkNorm::length_after) {
      const Matrix<S> one(1, c.head_dim, S(1));
      ones_ = Array<S>(b, one.view());
    } else if (c.qk_norm != QkNorm::none) {
      const bool full = c.qk_norm == QkNorm::full;
      q_norm_ = vector("q_norm", full ? q : c.head_dim);
      k_norm_ = vector("k_norm", full ? kv : c.head_dim);
    }
  }

  void collect(std::vector<Parameter<S>*>& all) override {
    for (Parameter<S>* p : {&wq_, &wk_, &wv_, &bq_, &bk_, &bv_, &q_norm_, &k_norm_}) {
      if (!p->empty())
        all.push_back(p);
    }
  }

  void forward(View<const S> x, Tape& t) override {
    t.q = Array<S>(backend_, x.rows, wq_.value().rows);
    t.k = Array<S>(backend_, x.rows, wk_.value().rows);
    t.v = Array<S>(backend_, x.rows, wk_.value().rows);
    project(backend_, x, wq_, bq_, t.q.view());
    project(backend_, x, wk_, bk_, t.k.view());
    project(backend_, x, wv_, bv_, t.v.view());
    if (norm_before_)
      norm(t);
    if (clip_ > 0) {
      for (Array<S>* a : {&t.q, &t.k, &t.v})
        backend_.clamp(a->view(), clip_);
      t.q_clamped = copy(t.q);
      t.k_clamped = copy(t.k);
    }
    if (turns_)
      turn(t, t.q.view(), t.k.view(), false);
    if (norm_after_)
      norm(t);
    if (!t.stretch.empty())
      stretch(t, t.q.view());
  }

  void backward(const Tape& t, View<const S> x, Array<S> dq, Array<S> dk, Array<S> dv,
                View<S> dx) override {
    if (!t.stretch.empty())
      stretch(t, dq.view());
    if (norm_after_)
      norm_backward(t, dq, dk);
    if (turns_)
      turn(t, dq.view(), dk.view(), true);
    if (clip_ > 0) {
      backend_.clamp_backward(t.q_clamped.view(), clip_, dq.view());
      backend_.clamp_backward(t.k_clamped.view(), clip_, dk.view());
      backend_.clamp_backward(t.v.view(), clip_, dv.view());
    }
    if (norm_before_)
      norm_backward(t, dq, dk);
    project_backward(backend_, std::as_const(dq).view(), x, wq_, bq_, dx, S(0));
    project_backward(backend_, std::as_const(dk).view(), x, wk_, bk_, dx, S(1));
    project_backward(backend_, std::as_const(dv).view(), x, wv_, bv_, dx, S(1));
  }

 private:
  Array<S> copy(const Array<S>& a) {
    auto out = Array<S>::zeros(backend_, a.rows(), a.cols());
    backend_.add(a.view(), out.view(), 1);
    return out;
  }
  View<const S> q_weight() const {
    return ones_.empty() ? q_norm_.value() : ones_.view();
  }
  View<const S> k_weight() const {
    return ones_.empty() ? k_norm_.value() : ones_.view();
  }

  void norm(Tape& t) {
    const Index rows = t.q.rows();
    const Index q = t.q.cols();
    const Index kv = t.k.cols();
    t.q_raw = std::exchange(t.q, Array<S>(backend_, rows, q));
    t.k_raw = std::exchange(t.k, Array<S>(backend_, rows, kv));
    t.q_rstd = Array<S>(backend_, rows, q / q_weight().cols);
    t.k_rstd = Array<S>(backend_, rows, kv / k_weight().cols);
    backend_.norm(t.q_raw.view(), q_weight(), eps_, t.q.view(), t.q_rstd.view());
    backend_.norm(t.k_raw.view(), k_weight(), eps_, t.k.view(), t.k_rstd.view());
  }
  void norm_backward(const Tape& t, Array<S>& dq, Array<S>& dk) {
    Array<S> dq_raw(backend_, dq.rows(), dq.cols());
    Array<S> dk_raw(backend_, dk.rows(), dk.cols());
    backend_.norm_backward(dq.view(), t.q_raw.view(), q_weight(), t.q_rstd.view(), dq_raw.view(),
                           q_norm_.grad(), 0);
    backend_.norm_backward(dk.view(), t.k_raw.view(), k_weight(), t.k_rstd.view(), dk_raw.view(),
                           k_norm_.grad(), 0);
    dq = std::move(dq_raw);
    dk = std::move(dk_raw);
  }
  void turn(const Tape& t, View<S> q, View<S> k, bool transposed) {
    if (fourier_) {
      const Matrix<int> at = t.position.to_host();
      for (const View<S> x : {q, k})
        fourier_->turn(backend_, x, at.view(), transposed);
      return;
    }
    const Rotation r = rotary_.rotation(head_dim_, 0, interleaved_, t.furthest);
    backend_.rope(q, r, t.position.view(), transposed);
    backend_.rope(k, r, t.position.view(), transposed);
  }
  void stretch(const Tape& t, View<S> q) {  // rows as the slots of one expert that takes everyone
    const Matrix<int> everyone(q.rows, 1, 0);
    const Array<int> kept(backend_, everyone.view());
    backend_.scale_slots(q, backend_.plan(kept.view(), 1), t.stretch.view());
  }

  Backend<S>& backend_;
  std::shared_ptr<const Fourier<S>> fourier_;
  int head_dim_;
  bool interleaved_, turns_, norm_before_ = false, norm_after_ = false;
  double eps_, clip_;
  Rotary rotary_;
  Array<S> ones_;
  Parameter<S> wq_, wk_, wv_, bq_, bk_, bv_, q_norm_, k_norm_;
};

}  // namespace

template <class S>
std::unique_ptr<Heads<S>> make_grouped_heads(const ModelConfig& c, int layer, Backend<S>& b,
                                             std::shared_ptr<const Fourier<S>> fourier) {
  return std::make_unique<Grouped<S>>(c, layer, b, std::move(fourier));
}
template std::unique_ptr<Heads<float>> make_grouped_heads(const ModelConfig&, int, Backend<float>&,
                                                          std::shared_ptr<const Fourier<float>>);
template std::unique_ptr<Heads<double>> make_grouped_heads(const ModelConfig&, int,
                                                           Backend<double>&,
                                                           std::shared_ptr<const Fourier<double>>);

}  // namespace moe
