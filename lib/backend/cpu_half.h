// cpu:dtype=bf16: the cpu backend with the operands of products rounded to bf16 and summed in f32,
// on processors that multiply bf16. Master weights, activations, gradients and everything else stay
// f32; router scores are products in full f32 (Weight::exact), and so are a few rows times a weight
// that has a source, its gradients, and products that round activations to bytes. The same bytes
// for any number of threads, as in cpu.h.
#pragma once
#include "lib/backend/cpu.h"
#include "lib/backend/gemm_half.h"

namespace moe {

// The weights of experts as products read them.
struct RoundedExperts {
  Array<Half> space[3];
  View<const Half> gate, up, down;
};

struct SlotGradients;

class CpuHalf : public Cpu {
 public:
  std::string name() const override {
    return "cpu:dtype=bf16";
  }
  double rounding() const override {
    return 1.0 / 512;
  }
  DType operand_type() const override {
    return DType::bf16;
  }

  void linear(In x, const Weight& w, Out y, float beta) override;
  void linear_dx(In dy, const Weight& w, Out dx, float beta) override;
  void linear_dw(In dy, In x, Out dw) override;
  void grouped_linear(In x, const Weight& w, const Plan&, Out y, float beta) override;
  void grouped_linear_dx(In dy, const Weight& w, const Plan&, Out dx, float beta) override;
  void grouped_linear_dw(In dy, In x, const Plan&, Out dw) override;
  void experts(const ExpertWeights<float>&, In xs, const Plan&, ExpertTape<float>&,
               Out ys) override;
  void experts_backward(const ExpertWeights<float>&, const ExpertGrads<float>&, In xs, const Plan&,
                        const ExpertTape<float>&, In dys, In weight, Out dxs, Out dweight) override;

 private:
  using Halves = View<const Half>;
  struct Copy {
    std::uint64_t version = 0;
    Array<Half> numbers;
  };
  // What products read of a weight: its numbers where they lie as bf16, else a copy, kept by id and
  // version (half the weight's size).
  Halves halves(const Weight&, Array<Half>& space);
  RoundedExperts halves(const ExpertWeights<float>&);
  void add_weight_gradients(const ExpertGrads<float>&, In xs, const Plan&, const SlotGradients&);
  Array<Half> rounded(In);
  Array<float> rounded_numbers(In);  // the same as f32

  std::map<std::uint64_t, Copy> copies_;
};

}  // namespace moe
