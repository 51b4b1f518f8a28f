// What one MoE layer is: sizes, kinds of experts, and the specs of its router, capacity rule and
// balancers.
#pragma once
#include <string>
#include <vector>

#include "lib/backend/kinds.h"
#include "lib/core/view.h"

namespace moe {

// What an expert computes: a feed-forward body, 0, x, or a1 x + a2 v with (a1,a2) = softmax(Wc x)
// (MoE++, 2410.07348).
enum class ExpertKind { ffn, zero, copy, constant };

struct LayerConfig {
  Index hidden = 64, width = 64;  // H, I
  int experts = 8;                // E
  Activation activation = Activation::swiglu;
  bool expert_bias = false;      // biases in the bodies, shared expert included
  bool router_bias = false;      // b of z = W x + b
  bool weight_on_input = false;  // Llama 4: the weight multiplies the expert's input
  Index shared_width = 0;        // 0 = no shared expert
  bool shared_gate = false;      // sigmoid(c.x) in front of it (Qwen2-MoE)
  // Experts read W_in x and their sum comes back through W_out: (latent,H), (H,latent); router and
  // shared expert see x (Nemotron 3, moe_latent_size). 0 = they read x
  Index latent_width = 0;
  // (E) hidden units of each expert, stored padded with zeros to the largest; empty = all `width`
  std::vector<Index> widths;
  std::vector<ExpertKind> types;  // (E); empty = all ffn
  // of experts that are not ffn: factor of their balance loss; ffn get 1/tau times their capacity
  double zc_tau = 1;
  // capacity per type: ffn : others = tau : 1; false = the same for all
  bool zc_capacity = false;
  // zero experts have weight 0 and do not count where weights are normalised
  bool zc_exclude_zero = false;
  bool output_bias = false;  // one of what the layer puts out, whoever computed it (JetMoE)
  bool attends = false;  // experts of attention, see expert_attention.h; `width`: of their heads
  bool expert_scale = false;   // a learned factor of each expert's weights (Gemma 4)
  bool gate_residual = false;  // z gets Wr z of the MoE layer before
  std::string router = "softmax:k=2", capacity = "none";
  std::vector<std::string> balance;

  ExpertKind type_of(int expert) const {
    return types.empty() ? ExpertKind::ffn : types[std::size_t(expert)];
  }
  Index expert_inputs() const {  // columns of what an expert reads
    return latent_width > 0 ? latent_width : hidden;
  }
  Index width_of(int expert) const {
    return type_of(expert) != ExpertKind::ffn ? 0
           : widths.empty()                   ? width
                                              : widths[std::size_t(expert)];
  }
  bool all_ffn() const;
};

// Throws Error(usage) where widths and types are not one an expert, or do not go with the rest.
void check_experts(const LayerConfig&);

// Lists as a user writes them, entries separated by ";" and repeated by "*":
// "ffn*5;constant;copy;zero", "128*4;64*4". The empty list has a name of its own.
std::vector<ExpertKind> expert_types_of(const std::string& text);  // empty: "ffn"
std::string list_text(const std::vector<ExpertKind>&);
std::vector<Index> widths_of(const std::string& text);  // empty: "even"
std::string list_text(const std::vector<Index>&);

}  // namespace moe
