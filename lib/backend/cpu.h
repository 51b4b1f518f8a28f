// The fast host backend in f32. Products are cut into tiles whose sizes depend on the shapes alone,
// every tile is one single-threaded library product and every sum has a fixed order: the same bytes
// come out for any number of threads.
#pragma once
#include <functional>
#include <map>
#include <memory>

#include "lib/backend/gemm.h"
#include "lib/backend/host_memory.h"
#include "lib/backend/scans.h"

namespace moe {

class Cpu : public HostBackend<float>, public Scans<float> {
 public:
  using In = View<const float>;
  using Out = View<float>;

  // A notice where bf16 was asked for and this machine has none.
  explicit Cpu(std::string notice = {}) : notice_(std::move(notice)) {}

  std::string name() const override {
    return "cpu";
  }
  std::string notice() const override {
    return notice_;
  }
  bool native(Operation) const override;

  void linear(In x, const Weight& w, Out y, float beta) override;
  void linear_dx(In dy, const Weight& w, Out dx, float beta) override;
  void linear_dw(In dy, In x, Out dw) override;
  void add_bias(In b, Out y) override;
  void bias_grad(In dy, Out db) override;
  void grouped_linear(In x, const Weight& w, const Plan&, Out y, float beta) override;
  void grouped_linear_dx(In dy, const Weight& w, const Plan&, Out dx, float beta) override;
  void grouped_linear_dw(In dy, In x, const Plan&, Out dw) override;
  void grouped_add_bias(In b, const Plan&, Out y) override;
  void grouped_bias_grad(In dy, const Plan&, Out db) override;
  Plan plan(View<const int> kept, int experts) override;
  void dispatch(In x, const Plan&, Out xs) override;
  void combine(In ys, const Plan&, In weight, Out y, float beta) override;
  void combine_backward(In dy, In ys, const Plan&, In weight, Out dys, Out dweight) override;
  void scale_slots(Out xs, const Plan&, In weight) override;
  void activate(Activation, In gate, In up, Out h) override;
  void activate_backward(Activation, In gate, In up, const Plan&, In weight, In share, Out dh,
                         Out dgate, Out dup, Out dweight) override;
  void norm(In x, In w, double eps, Out y, Out rstd) override;
  void norm_backward(In dy, In x, In w, In rstd, Out dx, Out dw, float beta) override;
  void center(Out x) override;
  void clamp(Out x, double limit) override;
  void clamp_backward(In y, double limit, Out dy) override;
  void softcap(Out x, double cap) override;
  void softcap_backward(In y, double cap, Out dy) override;
  void rope(Out x, const Rotation&, View<const int> position, bool transposed) override;
  void join_heads(In a, In b, int heads, Out y) override;
  void split_heads(In y, int heads, Out a, Out b) override;
  void add(In x, Out y, float scale) override;
  void sigmoid_gate(In gate, In x, Out y) override;
  void sigmoid_gate_backward(In dy, In gate, In x, Out dgate, Out dx) override;
  void embed(const Weight& table, View<const int> id, Out y) override;
  void embed_backward(In dy, View<const int> id, Out dtable) override;
  void cross_entropy(Out z, View<const int> target, Out loss, float scale, bool backward) override;
  void attention(In q, In k, In v, const AttentionShape&, Out out, Out lse) override;
  void attention_backward(In q, In k, In v, In out, In lse, In dout, const AttentionShape&, Out dq,
                          Out dk, Out dv) override;
  void attention_sink(In sink, Out out, Out lse) override;
  void attention_sink_backward(In sink, In out, In lse, In dout, Out dsink) override;
  void biased_attention(In q, In k, In v, In bias, const AttentionShape&, const KeyRule&, Out out,
                        Out lse) override;
  void biased_attention_backward(In q, In k, In v, In bias, In out, In lse, In dout,
                                 const AttentionShape&, const KeyRule&, Out dq, Out dk, Out dv,
                                 Out dbias) override;
  void causal_conv(In x, In w, In bias, std::span<const Index> start, In before, Out y) override;
  void causal_conv_backward(In dy, In x, In w, std::span<const Index> start, Out dx, Out dw,
                            Out dbias) override;
  void scan(const ScanInputs<float>&, const ScanShape&, Out last, Out out) override;
  void scan_backward(const ScanInputs<float>&, const ScanShape&, In dout, In dlast,
                     const ScanGradients<float>&) override;
  void adamw(Out value, Out grad, Out m, Out v, const AdamW&) override;
  double sum_squares(In) override;
  // A tile of rows goes through gate, up, activation and down while it is in the cache.
  void experts(const ExpertWeights<float>&, In xs, const Plan&, ExpertTape<float>&,
               Out ys) override;
  void experts_backward(const ExpertWeights<float>&, const ExpertGrads<float>&, In xs, const Plan&,
                        const ExpertTape<float>&, In dys, In weight, Out dxs, Out dweight) override;

 private:
  // Cosines and sines of positions 0, 1, ... for one set of frequencies: (positions, n) each.
  struct Angles {
    Matrix<float> cosine, sine;
  };
  std::shared_ptr<const Angles> angles(const Rotation&, Index positions);

  std::string notice_;
  std::mutex angles_mutex_;
  std::map<std::pair<double, std::vector<double>>, std::shared_ptr<const Angles>> angles_;
};

// Calls each(i) for tasks 0..count: by all threads where the work (multiply-adds) is worth waking
// them, else here and now. The same tasks either way.
void run_tasks(Index count, double work, const std::function<void(Index)>& each);

// Rows [first, first+count) of expert e: what one task of a grouped product computes.
struct RowTile {
  Index expert, first, count;
};
// The used slots of every expert in nearly equal tiles of at most `height` rows, cut by the counts
// alone.
std::vector<RowTile> row_tiles(View<const int> offset, Index height);

}  // namespace moe
