// A GGUF file as the weights of a model: asked for tensors by the names that llama.cpp has today,
// in the shapes and the order of rows of the published model. What its converter did to them is
// turned back here, row by row, so that experts can stay in the mapped file.
#pragma once
#include "lib/checkpoint/weights.h"
#include "lib/files/gguf.h"

namespace moe {

// What of the converter's work depends on the model.
struct GgufLayout {
  // rows of a head of queries and keys whose two halves were laced into pairs; 0 = as published
  Index laced_head = 0;
  Index query_rows = 0, key_rows = 0;    // of attn_qkv, where that stands for q, k and v
  Index heads = 0, nope = 0, value = 0;  // of attn_k_b and attn_v_b, which are kv_b
};

// These forms are read for a wanted NAME, in this order:
// - NAME itself, with the order of its rows turned back where the layout says so;
// - attn_qkv for attn_q, attn_k, attn_v (weights and biases);
// - ffn_gate_up_exps for ffn_gate_exps, ffn_up_exps;
// - ffn_gate.E for ffn_gate_exps and so on, one tensor an expert (files from before 2024-04);
// - attn_k_b and attn_v_b for attn_kv_b.
// Sizes of 1 in front count for nothing where shapes are compared. Throws Error(input) naming
// tensor and type or shapes.
std::unique_ptr<const Weights> gguf_weights(std::shared_ptr<const GgufFile>, const GgufLayout&);

}  // namespace moe
