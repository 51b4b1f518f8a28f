// The definition of every operation: plain loops in S, sums in double, no tricks. Read it beside
// equations.md.
#pragma once
#include "lib/backend/host_memory.h"

namespace moe {

template <class S>
class Reference : public HostBackend<S> {
 public:
  std::string name() const override {
    return sizeof(S) == 8 ? "reference:f64" : "reference";
  }

  void linear(View<const S> x, const Weight& w, View<S> y, S beta) override;
  void linear_dx(View<const S> dy, const Weight& w, View<S> dx, S beta) override;
  void linear_dw(View<const S> dy, View<const S> x, View<S> dw) override;
  void add_bias(View<const S> b, View<S> y) override;
  void bias_grad(View<const S> dy, View<S> db) override;
  void grouped_linear(View<const S> x, const Weight& w, const Plan&, View<S> y, S beta) override;
  void grouped_linear_dx(View<const S> dy, const Weight& w, const Plan&, View<S> dx,
                         S beta) override;
  void grouped_linear_dw(View<const S> dy, View<const S> x, const Plan&, View<S> dw) override;
  void grouped_add_bias(View<const S> b, const Plan&, View<S> y) override;
  void grouped_bias_grad(View<const S> dy, const Plan&, View<S> db) override;
  Plan plan(View<const int> kept, int experts) override;
  void dispatch(View<const S> x, const Plan&, View<S> xs) override;
  void combine(View<const S> ys, const Plan&, View<const S> weight, View<S> y, S beta) override;
  void combine_backward(View<const S> dy, View<const S> ys, const Plan&, View<const S> weight,
                        View<S> dys, View<S> dweight) override;
  void scale_slots(View<S> xs, const Plan&, View<const S> weight) override;
  void activate(Activation, View<const S> gate, View<const S> up, View<S> h) override;
  void activate_backward(Activation, View<const S> gate, View<const S> up, const Plan&,
                         View<const S> weight, View<const S> share, View<S> dh, View<S> dgate,
                         View<S> dup, View<S> dweight) override;
  void norm(View<const S> x, View<const S> w, double eps, View<S> y, View<S> rstd) override;
  void norm_backward(View<const S> dy, View<const S> x, View<const S> w, View<const S> rstd,
                     View<S> dx, View<S> dw, S beta) override;
  void center(View<S> x) override;
  void clamp(View<S> x, double limit) override;
  void clamp_backward(View<const S> y, double limit, View<S> dy) override;
  void rope(View<S> x, const Rotation&, View<const int> position, bool transposed) override;
  void join_heads(View<const S> a, View<const S> b, int heads, View<S> y) override;
  void split_heads(View<const S> y, int heads, View<S> a, View<S> b) override;
  void add(View<const S> x, View<S> y, S scale) override;
  void sigmoid_gate(View<const S> gate, View<const S> x, View<S> y) override;
  void sigmoid_gate_backward(View<const S> dy, View<const S> gate, View<const S> x, View<S> dgate,
                             View<S> dx) override;
  void embed(const Weight& table, View<const int> id, View<S> y) override;
  void embed_backward(View<const S> dy, View<const int> id, View<S> dtable) override;
  void cross_entropy(View<S> z, View<const int> target, View<S> loss, S scale,
                     bool backward) override;
  void attention(View<const S> q, View<const S> k, View<const S> v, const AttentionShape&,
                 View<S> out, View<S> lse) override;
  void attention_backward(View<const S> q, View<const S> k, View<const S> v, View<const S> out,
                          View<const S> lse, View<const S> dout, const AttentionShape&, View<S> dq,
                          View<S> dk, View<S> dv) override;
  void attention_sink(View<const S> sink, View<S> out, View<S> lse) override;
  void attention_sink_backward(View<const S> sink, View<const S> out, View<const S> lse,
                               View<const S> dout, View<S> dsink) override;
  void causal_conv(View<const S> x, View<const S> w, View<const S> bias,
                   std::span<const Index> start, View<const S> before, View<S> y) override;
  void causal_conv_backward(View<const S> dy, View<const S> x, View<const S> w,
                            std::span<const Index> start, View<S> dx, View<S> dw,
                            View<S> dbias) override;
  void adamw(View<S> value, View<S> grad, View<S> m, View<S> v, const AdamW&) override;
  double sum_squares(View<const S>) override;
};

}  // namespace moe
