// Parameters, FLOPs and bytes from a configuration alone (equations.md section 10).
#include "lib/model/cost.h"

#include <algorithm>
#include <cmath>

#include "lib/model/config.h"
#include "lib/model/sizes.h"
#include "lib/router/mixing.h"
#include "lib/router/router.h"

namespace moe {
namespace {

constexpr Count f32 = 4, f64 = 8, i32 = 4;

// Numbers stored beyond the parameters: narrow experts are padded to the widest, and each expert
// has room for those of a constant one where there is any.
Count padding(const FeedShape& f, Count hidden) {
  if (!f.is_moe() || f.widths.empty())
    return 0;
  FeedShape even = f;
  even.widths.clear();
  even.constants = f.constants > 0 ? f.experts : 0;
  Count out = 0;
  for (const WeightPiece& p : pieces(even, hidden))
    out += p.rows * p.cols * p.count;
  for (const WeightPiece& p : pieces(f, hidden))
    out -= p.rows * p.cols * p.count;
  return out;
}

// Bytes that grow with the tokens of a batch, and those that do not: rows of the slots into which a
// router mixes tokens.
struct Bytes {
  Count token = 0, batch = 0;

  Count of(Count tokens) const {
    return token * tokens + batch;
  }
};

// What a body or a MoE layer leaves on the tape: pre-activations, the plan of its slots, and on the
// host the doubles of the routing. Numbers of a few bytes a token (plans of dense layers, losses)
// are left out.
Bytes feed_tape(const FeedShape& f, const ModelConfig& c) {
  // pre-activations of a hidden unit; of experts of attention the mixer beside them says it
  const Count kept = f.attends ? 0 : f.matrices - 1;
  if (!f.is_moe())
    return {.token = f32 * kept * f.width};
  Count shared = f.shared_width > 0 ? f32 * (kept * f.shared_width + c.hidden) : 0;
  shared += f32 * 2 * f.latent;
  const auto router = make_router(c.moe.router, c.moe.experts);
  const Count k = router->choices();
  // both mixtures on host and device
  if (const auto* mixing = capability<Mixing>(*router)) {
    const Count slots = mixing->slots();
    return {.token = 2 * f32 * slots + 5 * f64 * slots + shared + 2 * f64 * k,
            .batch = f32 * slots * (2 * c.hidden + kept * f.width)};
  }
  // products, logits, scores; with balance losses probabilities and two gradients
  const Count scored = router->projections().empty() ? 0 : f.experts;
  const Count matrices = c.moe.balance.empty() ? 3 : 6;
  // a choice: its weight on the device, on the host with its gradient; its expert, three of a plan
  return {.token = f32 * (kept * k * f.width + k) + shared + f64 * (matrices * scored + 2 * k) +
                   4 * i32 * k};
}

// What is taken on top while one layer goes backwards: rows of slots and their gradients, gradients
// of hidden units, scores in double and twice in float.
Bytes feed_backward(const FeedShape& f, const ModelConfig& c) {
  const Count both = 2 * f32 * c.hidden;
  if (!f.is_moe())
    return {.token = both + f32 * f.matrices * f.width};
  const auto router = make_router(c.moe.router, c.moe.experts);
  // gradients of both mixtures, on the device and twice on the host, and of the scores
  if (const auto* mixing = capability<Mixing>(*router)) {
    const Count slots = mixing->slots();
    return {.token = both + slots * (4 * f32 + 3 * f64),
            .batch = f32 * slots * (2 * c.hidden + f.matrices * f.width)};
  }
  const Count k = router->choices();
  const Count scored = router->projections().empty() ? 0 : f.experts;
  // gradients of scores come after those of the experts are gone
  const Count row = f.latent > 0 ? f.latent : Count(c.hidden);
  const Count experts = f32 * (3 * k * row + 2 * f.latent + f.matrices * k * f.width + k);
  return {.token = both + std::max(experts, 2 * f64 * scored)};
}

// Numbers of a token that a branch leaves where there are n streams: they instead of one, what it
// read and put out, the product of the streams.
Count stream_tape(const Architecture& a) {
  const Count n = a.streams;
  return n > 0 ? (n - 1) * a.hidden + 2 * a.hidden + (2 + n) * n + 1 : 0;
}
// While a branch goes backwards: what arrives at it and leaves it, streams before and behind.
Count stream_backward(const Architecture& a) {
  return a.streams > 0 ? 2 * a.hidden + 2 * a.streams * a.hidden + (2 + a.streams) * a.streams : 0;
}

// What the tape of `tokens` holds when forward has ended.
Count tape_bytes(const Architecture& a, const ModelConfig& c, Count tokens) {
  // last, normed, logits; token and target
  Bytes out{.token = f32 * (2 * a.hidden + 1 + a.vocabulary) + 2 * i32};
  if (c.embedding_norm)
    out.token += f32 * (a.hidden + 1);
  for (const MatrixShape& m : a.projectors)
    out.token += f32 * m.cols;
  if (a.streams > 0)
    out.token += f32 * a.streams * (a.hidden + 1);
  for (int l = 0; l < c.layers; ++l) {
    const LayerShape& layer = a.layers[std::size_t(l)];
    Bytes feed = layer.feed ? feed_tape(*layer.feed, c) : Bytes{};
    if (layer.beside)
      feed.token += feed_tape(*layer.beside, c).token;
    if (layer.beside && c.dense_beside == DenseBeside::normed)
      feed.token += f32 * (a.hidden + 1);  // both bodies' outputs, where one norm is counted
    // inputs of the branches, and what each norm reads or gives
    out.token += f32 * ((layer.branches() + layer.norms) * a.hidden + layer.norms) +
                 f32 * layer.branches() * stream_tape(a) + feed.token;
    out.batch += feed.batch;
    for (const MixerShape& m : layer.mixers)
      out.token += f32 * (m.tape_numbers + (m.cross ? 2 * a.hidden + 1 : 0));
  }
  if (a.encoder_decoder())  // the encoder's last rows and its output
    out.token += f32 * (2 * a.hidden + 1) + i32;
  return out.of(tokens);
}
Count backward_bytes(const Architecture& a, const ModelConfig& c, Count tokens) {
  // what arrives at a branch from the norm behind it
  const bool behind = c.norm_after || c.norm_both || c.moe_norm_after;
  const Count beside = c.dense_beside == DenseBeside::normed ? 4 : 0;  // rows of both bodies
  const Count arriving = f32 * ((behind + beside) * a.hidden + stream_backward(a)) * tokens;
  Count out = 0;
  for (const LayerShape& layer : a.layers) {
    Count freed = 0;  // what the feed-forward kept is gone before the mixer's turn
    if (layer.feed) {
      Count within = 0;  // attention between matrices of experts
      for (const MixerShape& m : layer.mixers)
        within += m.in_experts ? f32 * m.backward_numbers * tokens : 0;
      out = std::max(out, feed_backward(*layer.feed, c).of(tokens) + within + arriving);
      const Count norms = layer.norms / layer.branches();  // of the feed-forward
      freed =
          feed_tape(*layer.feed, c).of(tokens) + f32 * ((1 + norms) * a.hidden + norms) * tokens;
    }
    for (const MixerShape& m : layer.mixers)
      out = std::max(out, f32 * (2 * a.hidden + m.backward_numbers) * tokens + arriving - freed);
  }
  return out;
}

}  // namespace

ModelCost cost_of(const ModelConfig& c, Index tokens) {
  const Architecture a = architecture_of(c);
  ModelCost out;
  Count fixed = 0;  // parameters without a gradient
  double active = 0;
  for (const WeightPiece& p : pieces(a)) {
    if (p.moved == MovedBy::balancer || p.moved == MovedBy::fixed)
      continue;
    const Count n = p.rows * p.cols * p.count;
    out.parameters += n;
    active += p.size() * p.active;
    if (p.part == ModelPart::experts)
      out.expert_parameters += n;
    if (p.part == ModelPart::embedding || p.part == ModelPart::head)
      out.embedding_parameters += n;
    if (p.moved == MovedBy::nothing)
      fixed += n;
  }
  out.active_parameters = std::llround(active);
  const Flops work = flops(a, c.context);
  out.flops_per_token_forward = work.products + work.attention;
  Count stored = out.parameters;
  for (const LayerShape& l : a.layers)
    stored += l.feed ? padding(*l.feed, a.hidden) : 0;
  out.weight_bytes = f32 * stored;
  out.optimizer_bytes = 3 * f32 * (stored - fixed);
  out.tape_bytes = tape_bytes(a, c, tokens);
  out.activation_bytes = out.tape_bytes + backward_bytes(a, c, tokens);
  return out;
}

}  // namespace moe
