// Grouped-query heads: products with or without bias, an optional norm of queries and keys before
// or after they are turned, a clamp, and rotary embedding of all or some of a head's numbers. In
// this order: product, norm (Qwen3, OLMoE), clamp (DBRX), rotation, norm (Hunyuan, Llama 4), or
// without rotation a stretch by position (Llama 4). Rows of the query matrix may hold the gate of
// the output too (Qwen3-Next); values may be normed or scaled, or be the keys as they come out of
// their product (Gemma 4).
#include "lib/model/mixers/attention.h"
#include "lib/model/norm.h"
#include "lib/model/rope_axes.h"

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
        gated_(c.attention_gate == AttentionGate::query),
        norm_kind_(c.norm),
        eps_(c.norm_eps),
        clip_(c.clip_qkv),
        value_scale_(c.value_scale),
        heads_(c.heads) {
    const Index q = Index(c.heads) * c.head_dim;
    const Index kv = Index(c.kv_heads) * c.head_dim;
    const Index values = Index(c.kv_heads) * (c.value_dim > 0 ? c.value_dim : c.head_dim);
    const Index queries = gated_ ? 2 * q : q;
    wq_ = Parameter<S>(b, "q", {queries, c.hidden});
    wk_ = Parameter<S>(b, "k", {kv, c.hidden});
    if (!c.values_from_keys)
      wv_ = Parameter<S>(b, "v", {values, c.hidden});
    const auto vector = [&](const char* name, Index n) {
      return Parameter<S>(b, name, {n}, ParameterKind::vector);
    };
    if (c.qkv_bias) {
      bq_ = vector("q_bias", queries);
      bk_ = vector("k_bias", kv);
      if (!c.values_from_keys)
        bv_ = vector("v_bias", values);
    }
    if (turns_)
      rotary_ = rotary_of(c.rope, c.rotary_dims(), c.rope_theta);
    if (const auto axes = rope_axes(c.rope_axes); axes && turns_)
      by_axis_ = by_axes(rotary_, *axes);
    make_norms(c);
  }

  void collect(std::vector<Parameter<S>*>& all) override {
    for (Parameter<S>* p : {&wq_, &wk_, &wv_, &bq_, &bk_, &bv_, &q_norm_, &k_norm_}) {
      if (!p->empty())
        all.push_back(p);
    }
  }

  void forward(View<const S> x, Tape& t) override {
    queries(x, t);
    t.k = Array<S>(backend_, x.rows, wk_.value().rows);
    project(backend_, x, wk_, bk_, t.k.view());
    values(x, t);
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
      stretch(backend_, t, t.q.view());
  }

  void backward(const Tape& t, View<const S> x, HeadGradients<S> d, View<S> dx) override {
    auto& [dq, dk, dv, dgate] = d;
    if (!t.stretch.empty())
      stretch(backend_, t, dq.view());
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
    queries_backward(x, dq, dgate, dx);
    values_backward(t, dv);
    if (wv_.empty())
      backend_.add(std::as_const(dv).view(), dk.view(), 1);
    project_backward(backend_, std::as_const(dk).view(), x, wk_, bk_, dx, S(1));
    if (!wv_.empty())
      project_backward(backend_, std::as_const(dv).view(), x, wv_, bv_, dx, S(1));
  }

 private:
  // of values, and of queries and keys before or after they are turned
  void make_norms(const ModelConfig& c) {
    const auto ones = [&](Index n) {
      const Matrix<S> one(1, n, S(1));
      return Array<S>(backend_, one.view());
    };
    if (c.value_norm)
      value_ones_ = ones(c.value_dim > 0 ? c.value_dim : c.head_dim);
    const bool after = c.qk_norm == QkNorm::head_after || c.qk_norm == QkNorm::length_after;
    norm_before_ = c.qk_norm != QkNorm::none && !after;
    norm_after_ = after && turns_;
    if (c.qk_norm == QkNorm::length_after) {
      ones_ = ones(c.head_dim);
    } else if (c.qk_norm != QkNorm::none) {
      const auto vector = [&](const char* name, int heads) {
        const Index n = Index(c.qk_norm == QkNorm::full ? heads : 1) * c.head_dim;
        return Parameter<S>(backend_, name, {n}, ParameterKind::vector);
      };
      q_norm_ = vector("q_norm", c.heads);
      k_norm_ = vector("k_norm", c.kv_heads);
    }
  }
  void queries(View<const S> x, Tape& t) {
    if (!gated_) {
      t.q = Array<S>(backend_, x.rows, wq_.value().rows);
      return project(backend_, x, wq_, bq_, t.q.view());
    }
    Array<S> both(backend_, x.rows, wq_.value().rows);
    project(backend_, x, wq_, bq_, both.view());
    t.q = Array<S>(backend_, x.rows, both.cols() / 2);
    t.gate = Array<S>(backend_, x.rows, both.cols() / 2);
    backend_.split_heads(both.view(), heads_, t.q.view(), t.gate.view());
  }
  void queries_backward(View<const S> x, const Array<S>& dq, const Array<S>& dgate, View<S> dx) {
    if (!gated_)
      return project_backward(backend_, dq.view(), x, wq_, bq_, dx, S(0));
    Array<S> both(backend_, x.rows, wq_.value().rows);
    backend_.join_heads(dq.view(), dgate.view(), heads_, both.view());
    project_backward(backend_, std::as_const(both).view(), x, wq_, bq_, dx, S(0));
  }
  // from their own product or from keys that nothing has been done to
  void values(View<const S> x, Tape& t) {
    if (wv_.empty()) {
      t.v = copy(t.k);
    } else {
      t.v = Array<S>(backend_, x.rows, wv_.value().rows);
      project(backend_, x, wv_, bv_, t.v.view());
    }
    if (!value_ones_.empty()) {
      t.v_raw = std::exchange(t.v, Array<S>(backend_, x.rows, t.v.cols()));
      t.v_rstd = Array<S>(backend_, x.rows, t.v_raw.cols() / value_ones_.cols());
      backend_.norm(t.v_raw.view(), value_ones_.view(), eps_, t.v.view(), t.v_rstd.view());
    }
    if (value_scale_ != 1)
      backend_.add(t.v.view(), t.v.view(), S(value_scale_ - 1));
  }
  void values_backward(const Tape& t, Array<S>& dv) {
    if (value_scale_ != 1)
      backend_.add(dv.view(), dv.view(), S(value_scale_ - 1));
    if (value_ones_.empty())
      return;
    Array<S> raw(backend_, dv.rows(), dv.cols());
    backend_.norm_backward(dv.view(), t.v_raw.view(), value_ones_.view(), t.v_rstd.view(),
                           raw.view(), {}, 0);
    dv = std::move(raw);
  }
  Array<S> copy(const Array<S>& a) {
    auto out = Array<S>::zeros(backend_, a.rows(), a.cols());
    backend_.add(a.view(), out.view(), 1);
    return out;
  }
  // the factors of a norm, in `room` where they are not the parameter itself
  View<const S> weight(const Parameter<S>& norm, Array<S>& room) const {
    return ones_.empty() ? norm_factors(backend_, norm_kind_, norm, room) : ones_.view();
  }

  void norm(Tape& t) {
    const Index rows = t.q.rows();
    const Index q = t.q.cols();
    const Index kv = t.k.cols();
    t.q_raw = std::exchange(t.q, Array<S>(backend_, rows, q));
    t.k_raw = std::exchange(t.k, Array<S>(backend_, rows, kv));
    Array<S> room[2];
    const View<const S> of_q = weight(q_norm_, room[0]);
    const View<const S> of_k = weight(k_norm_, room[1]);
    t.q_rstd = Array<S>(backend_, rows, q / of_q.cols);
    t.k_rstd = Array<S>(backend_, rows, kv / of_k.cols);
    backend_.norm(t.q_raw.view(), of_q, eps_, t.q.view(), t.q_rstd.view());
    backend_.norm(t.k_raw.view(), of_k, eps_, t.k.view(), t.k_rstd.view());
  }
  void norm_backward(const Tape& t, Array<S>& dq, Array<S>& dk) {
    Array<S> dq_raw(backend_, dq.rows(), dq.cols());
    Array<S> dk_raw(backend_, dk.rows(), dk.cols());
    Array<S> room[2];
    backend_.norm_backward(dq.view(), t.q_raw.view(), weight(q_norm_, room[0]), t.q_rstd.view(),
                           dq_raw.view(), q_norm_.grad(), 0);
    backend_.norm_backward(dk.view(), t.k_raw.view(), weight(k_norm_, room[1]), t.k_rstd.view(),
                           dk_raw.view(), k_norm_.grad(), 0);
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
    if (t.axes.empty())
      return turn(rotary_, t.position.view(), t.furthest, q, k, transposed);
    for (Index a = 0; a < 3; ++a)
      turn(by_axis_[std::size_t(a)], t.axes.view().slice(a, 1), t.furthest, q, k, transposed);
  }
  void turn(const Rotary& by, View<const int> position, int furthest, View<S> q, View<S> k,
            bool transposed) {
    const Rotation r = by.rotation(head_dim_, 0, interleaved_, furthest);
    backend_.rope(q, r, position, transposed);
    backend_.rope(k, r, position, transposed);
  }

  Backend<S>& backend_;
  std::shared_ptr<const Fourier<S>> fourier_;
  int head_dim_;
  bool interleaved_, turns_, gated_, norm_before_ = false, norm_after_ = false;
  NormKind norm_kind_;
  double eps_, clip_, value_scale_;
  int heads_;
  Rotary rotary_;
  std::array<Rotary, 3> by_axis_;  // where heads turn by three axes
  Array<S> ones_, value_ones_;
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
