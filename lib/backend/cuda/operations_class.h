// The class Operations: what cuda/operations.h describes, declared.
#pragma once
#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "lib/backend/backend.h"
#include "lib/backend/cuda/bodies_attention.h"
#include "lib/backend/cuda/bodies_each.h"
#include "lib/backend/cuda/bodies_slots.h"
#include "lib/backend/cuda/bodies_top_k.h"
#include "lib/backend/cuda/gemm_call.h"
#include "lib/backend/native.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe::gpu {

struct Choices {
  // operands of products are rounded to bf16; sums and everything else stay f32
  bool half = false;
  bool grouped = true;  // all experts in one library call; false: one call an expert
};
inline Choices choices_of(Spec& spec) {
  Choices c;
  c.half = spec.choice("dtype", {"f32", "bf16"}) == "bf16";
  c.grouped = spec.get("grouped", true);
  if (!spec.get("deterministic", true)) {
    throw Error(
        Exit::usage,
        "the CUDA backend gives the same bytes every time: it has no faster way that would not")
        .hint("leave deterministic=0 out");
  }
  return c;
}

template <class Engine>
class Operations : public Backend<float>, public OnDevice<float> {
 public:
  using In = View<const float>;
  using Out = View<float>;

  template <class... A>
  explicit Operations(Choices c, A&&... a) : choices_(c), engine_(std::forward<A>(a)...) {}

  std::string name() const override {
    return concat("cuda:dtype=", choices_.half ? "bf16" : "f32",
                  choices_.grouped ? "" : ",grouped=0");
  }
  double rounding() const override {
    return choices_.half ? 1.0 / 512 : 0;
  }
  void* allocate(std::size_t bytes) override {
    return engine_.allocate(bytes);
  }
  void release(void* p, std::size_t bytes) noexcept override {
    engine_.release(p, bytes);
  }
  void to_device(const void* host, void* device, std::size_t bytes) override {
    engine_.to_device(host, device, bytes);
  }
  void to_host(const void* device, void* host, std::size_t bytes) override {
    engine_.to_host(device, host, bytes);
  }
  void zero(void* p, std::size_t bytes) override {
    engine_.zero(p, bytes);
  }
  void wait() override {
    engine_.wait("waiting");
  }
  void* queue() override {
    if constexpr (requires { engine_.stream(); })
      return engine_.stream();
    else
      return nullptr;
  }
  bool native(Operation op) const override {
    return overrides<Operations>(op);
  }

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
  void adamw(Out value, Out grad, Out m, Out v, const AdamW&) override;
  double sum_squares(In) override;
  void top_k(In z, const TopK&, View<const double> bias, View<const int> valid, View<int> expert,
             Out weight, Out seen) override;
  void top_k_backward(In z, const TopK&, View<const int> valid, View<const int> expert, In dweight,
                      View<const double> dprobability, double dsquare, Out dz) override;
  void add_squares(In x, View<double> sum) override;
  std::function<void()> plain_products(Index rows, Index hidden, Index width,
                                       bool backward) override;
  // As the default, but an operand that several products read is rounded once.
  void experts(const ExpertWeights<float>&, In xs, const Plan&, ExpertTape<float>&,
               Out ys) override;
  void experts_backward(const ExpertWeights<float>&, const ExpertGrads<float>&, In xs, const Plan&,
                        const ExpertTape<float>&, In dys, In weight, Out dxs, Out dweight) override;

  Engine& engine() {
    return engine_;
  }

 private:
  // A matrix as products read it: f32 where it lies, or a bf16 copy (its own, or one of the cache).
  struct Operand {
    const void* data = nullptr;
    bool half = false;
    Index rows = 0, cols = 0;
    Array<std::uint16_t> copy;
    const void* at(Index row) const {
      return static_cast<const char*>(data) + row * cols * (half ? 2 : 4);
    }
  };
  Operand operand(In x, bool half);
  Operand operand(In x) {
    return operand(x, choices_.half);
  }
  Operand operand(const Weight& w);
  void multiply(const Gemm&, bool half);

  // The three grouped products on operands; `count` and `first` of every expert are known to the
  // host.
  enum class Kind { forward, dx, dw };
  void grouped(Kind, const Operand& a, const Operand& b, const Plan&, Out c, float beta);
  template <class Target>
  std::vector<Gemm> expert_calls(Kind, const Operand& a, const Operand& b,
                                 const std::vector<Index>& offset, float beta, const Target&);
  void through_inner(const Operand& d, const Weight&, const Operand& x, const Plan&, Out dx,
                     float beta, Out dw);
  void inner_bias_grads(In dup, In dgate, const Plan&, const ExpertGrads<float>&);
  std::shared_ptr<Array<std::uint16_t>> numbers(Index size, std::uint64_t seed);
  std::vector<Index> offsets_on_host(const Plan&);

  void sum_columns(const char* name, const Value&, const int* offset, Index experts, Index rows,
                   Out out);
  Heads heads_of(const AttentionShape& a) {
    return {a.heads, a.kv_heads, a.head_dim, a.value_columns(), float(a.scale)};
  }
  Array<int> ranges_of_queries(const AttentionShape&, Index queries);
  Array<int> ranges_of_keys(const AttentionShape&, Index keys);

  struct Copy {
    std::uint64_t version = 0;
    Array<std::uint16_t> numbers;
  };

  Choices choices_;
  Engine engine_;                         // before what lives in its memory
  std::map<std::uint64_t, Copy> copies_;  // of weights in bf16, by id
  std::size_t copied_ = 0;                // bytes
};

}  // namespace moe::gpu
