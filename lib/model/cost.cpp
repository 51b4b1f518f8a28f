// Parameters, FLOPs and bytes from a configuration alone (equations.md section 10).
#include "lib/model/config.h"

#include <algorithm>

namespace moe {
namespace {

std::int64_t body_parameters(Activation a, Index hidden, Index width, bool bias) {
  const std::int64_t m = is_gated(a) ? 3 : 2;
  return m * hidden * width + (bias ? (m - 1) * width + hidden : 0);
}
std::int64_t body_flops(Activation a, Index hidden, Index width) {
  return 2 * (is_gated(a) ? 3 : 2) * hidden * width;
}

// What one token leaves on the tape of a feed-forward or MoE layer: floats in the backend's memory,
// doubles of the routing.
std::int64_t feed_bytes(const ModelConfig& c, bool moe) {
  const std::int64_t kept = is_gated(c.moe.activation) ? 2 : 1;  // pre-activations
  if (!moe)
    return 4 * kept * c.twin_width();
  const auto router = make_router(c.moe.router, c.moe.experts);
  const std::int64_t k = router->choices();
  const std::int64_t scored = router->projections().empty() ? 0 : c.moe.experts;
  // rows are slots, however many tokens; both mixtures on host and device
  if (const Index slots = router->slots(); slots > 0) {
    return 4 * 2 * slots + 8 * 5 * slots +
           (c.moe.shared_width ? 4 * (kept * c.moe.shared_width + c.hidden) : 0) + 16 * k;
  }
  // products, logits, scores; with balance losses probabilities and two gradients
  const std::int64_t matrices = c.moe.balance.empty() ? 3 : 6;
  return 4 * (kept * k * c.moe.width + k) +
         (c.moe.shared_width ? 4 * (kept * c.moe.shared_width + c.hidden) : 0) +
         8 * (matrices * scored + 2 * k) + 16 * k;
}

// What one token takes on top while one layer goes backwards: rows of slots and their gradients,
// gradients of hidden units, scores in double and twice in float.
std::int64_t backward_bytes(const ModelConfig& c, bool moe) {
  const std::int64_t m = is_gated(c.moe.activation) ? 3 : 2;
  const std::int64_t both = 8 * c.hidden;
  if (!moe)
    return both + 4 * m * c.twin_width();
  const auto router = make_router(c.moe.router, c.moe.experts);
  const std::int64_t k = router->choices();
  const std::int64_t scored = router->projections().empty() ? 0 : c.moe.experts;
  return both + 4 * (3 * k * c.hidden + m * k * c.moe.width + k) + 16 * scored;
}

struct AttentionSizes {
  std::int64_t matrices = 0, vectors = 0;  // parameters: products; norms, biases, sinks
};
AttentionSizes attention_sizes(const ModelConfig& c) {
  const std::int64_t q = std::int64_t(c.heads) * c.head_dim;
  const std::int64_t kv = std::int64_t(c.kv_heads) * c.head_dim;
  const std::int64_t h = c.hidden;
  AttentionSizes s{.matrices = 2 * h * q + 2 * h * kv,
                   .vectors = (c.o_bias ? h : 0) + (c.sinks ? c.heads : 0)};
  if (c.kv_rank > 0) {
    const std::int64_t value = std::int64_t(c.heads) * c.value_dim;
    const std::int64_t narrow = c.kv_rank + c.rope_dim;
    s.matrices = (c.q_rank > 0 ? c.q_rank * (h + q) : h * q) + h * narrow +
                 std::int64_t(c.kv_rank) * (std::int64_t(c.heads) * c.nope_dim + value) + h * value;
    s.vectors += c.q_rank + c.kv_rank + (c.qkv_bias ? c.q_rank + narrow : 0);
    return s;
  }
  if (c.qkv_bias)
    s.vectors += q + 2 * kv;
  if (c.qk_norm == QkNorm::full)
    s.vectors += q + kv;
  if (c.qk_norm == QkNorm::head || c.qk_norm == QkNorm::head_after)
    s.vectors += 2 * c.head_dim;
  return s;
}
// by a query at the end of a full context
std::int64_t keys_seen(const ModelConfig& c, int layer) {
  const int limit = c.sees_all(layer) ? 0 : c.window > 0 ? c.window : c.chunk;
  return limit > 0 ? std::min(limit, c.context) : c.context;
}

}  // namespace

LayerCost cost_of(const LayerConfig& c) {
  const auto router = make_router(c.router, c.experts);
  const auto projections = router->projections();
  LayerCost out;
  for (const Projection& p : projections)
    out.router += p.through > 0 ? p.rows * p.through + p.through * c.hidden : p.rows * c.hidden;
  if (c.gate_residual && !projections.empty())
    out.router += projections[0].rows * projections[0].rows;
  out.router_flops = 2 * out.router;
  for (const Projection& p : projections)
    out.router += p.cosine;
  if (c.router_bias && !projections.empty())
    out.router += projections[0].rows;
  out.expert = body_parameters(c.activation, c.hidden, c.width, c.expert_bias);
  std::int64_t flops = 0;
  std::int64_t light = 0;
  for (int e = 0; e < c.experts; ++e) {
    const bool ffn = c.type_of(e) == ExpertKind::ffn;
    const bool constant = c.type_of(e) == ExpertKind::constant;
    out.experts += ffn ? body_parameters(c.activation, c.hidden, c.width_of(e), c.expert_bias)
                   : constant ? 3 * c.hidden
                              : 0;
    flops += ffn ? body_flops(c.activation, c.hidden, c.width_of(e)) : constant ? 8 * c.hidden : 0;
    light += constant;
  }
  // Every slot is computed, whatever the number of tokens: as though each token brought its share
  // of a batch as large as the slots.
  const std::int64_t each = router->slots() > 0 ? c.experts : router->choices();
  out.routed_flops = each * flops / c.experts;
  if (c.shared_width > 0) {
    out.shared = body_parameters(c.activation, c.hidden, c.shared_width, c.expert_bias) +
                 (c.shared_gate ? c.hidden : 0);
    out.shared_flops =
        body_flops(c.activation, c.hidden, c.shared_width) + (c.shared_gate ? 2 * c.hidden : 0);
  }
  out.total = out.router + out.experts + out.shared;
  out.active = out.router + each * out.experts / c.experts + out.shared;
  out.stored = out.router + c.experts * (out.expert + (light > 0 ? 3 * c.hidden : 0)) + out.shared;
  return out;
}

ModelCost cost_of(const ModelConfig& c, Index tokens) {
  const std::int64_t q = std::int64_t(c.heads) * c.head_dim;
  const std::int64_t kv = std::int64_t(c.kv_heads) * c.head_dim;
  const std::int64_t h = c.hidden;
  const std::int64_t value = std::int64_t(c.heads) * (c.kv_rank > 0 ? c.value_dim : c.head_dim);
  const AttentionSizes sizes = attention_sizes(c);
  const std::int64_t attention = sizes.matrices;
  const std::int64_t norms = sizes.vectors;
  const std::int64_t each_norm = c.norm == NormKind::layer_bias ? 2 * h : h;
  const LayerCost layer = cost_of(c.moe);
  ModelCost out;
  out.embedding_parameters = std::int64_t(c.vocabulary) * h * (c.tied ? 1 : 2);
  out.parameters = out.active_parameters =
      out.embedding_parameters + each_norm + (c.output_bias ? c.vocabulary : 0);
  out.flops_per_token_forward = 2.0 * double(c.vocabulary) * double(h);
  // last, normed, logits; token and target
  std::int64_t padding = 0;
  std::int64_t kept = 4 * (2 * h + 1 + c.vocabulary) + 8;
  std::int64_t backward = 0;
  for (int l = 0; l < c.layers; ++l) {
    const bool moe = c.is_moe(l);
    const std::int64_t dense = body_parameters(c.moe.activation, h, c.twin_width(), false);
    out.parameters += attention + norms + 2 * each_norm + (moe ? layer.total : dense);
    out.active_parameters += attention + norms + 2 * each_norm + (moe ? layer.active : dense);
    out.expert_parameters += moe ? layer.experts : 0;
    padding += moe ? layer.stored - layer.total : 0;
    out.flops_per_token_forward +=
        2.0 * double(attention) + 2.0 * double(keys_seen(c, l)) * double(q + value) +
        double(moe ? layer.router_flops + layer.routed_flops + layer.shared_flops
                   : body_flops(c.moe.activation, h, c.twin_width()));
    kept += 4 * (4 * h + 2 + 2 * q + 2 * kv + c.heads + 1) +
            (c.qk_norm == QkNorm::none ? 0 : 4 * (q + kv + c.heads + c.kv_heads)) +
            (c.clip_qkv > 0 ? 4 * (q + kv) : 0) +
            (c.kv_rank > 0 ? 8 * (c.q_rank + c.kv_rank + 1) : 0) + feed_bytes(c, moe);
    backward = std::max(backward, backward_bytes(c, moe));
  }
  if (c.moe.gate_residual && c.moe_layers() > 0) {  // the first MoE layer has no logits before it
    out.parameters -= std::int64_t(c.moe.experts) * c.moe.experts;
    out.active_parameters -= std::int64_t(c.moe.experts) * c.moe.experts;
    out.flops_per_token_forward -= 2.0 * c.moe.experts * c.moe.experts;
  }
  out.weight_bytes = 4 * (out.parameters + padding);
  out.optimizer_bytes = 12 * (out.parameters + padding);
  out.activation_bytes = (kept + backward) * tokens;
  return out;
}

}  // namespace moe
