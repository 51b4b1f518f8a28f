// The rules by which the fields of a ModelConfig make layers.
#include "lib/model/architecture.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/model/config.h"
#include "lib/model/mixer_type.h"
#include "lib/model/rotary.h"
#include "lib/router/mixing.h"
#include "lib/router/router.h"

namespace moe {
namespace {

bool listed(const std::vector<int>& layers, int layer) {
  return std::ranges::find(layers, layer) != layers.end();
}

FeedShape dense_of(const ModelConfig& c) {
  FeedShape f;
  f.width = c.dense_baseline_width();
  f.matrices = is_gated(c.moe.activation) ? 3 : 2;
  return f;
}

std::vector<MatrixShape> router_products(const std::vector<Projection>& projections,
                                         const LayerConfig& c) {
  std::vector<MatrixShape> out;
  for (const Projection& p : projections) {
    out.push_back({p.rows, p.through > 0 ? p.through : c.hidden});
    if (p.through > 0)
      out.push_back({p.through, c.hidden});
  }
  return out;
}

// One matrix of cosines and one of sines, for all heads or for each key head (fourier.h).
Count fourier_numbers(const ModelConfig& c) {
  const Rotary rotary = rotary_of(c.rope, c.rotary_dims(), c.rope_theta);
  if (!rotary.mixed)
    return 0;
  const Count n = Count(rotary.frequency.size());
  return 2 * n * n * (rotary.mixed_by_head ? c.kv_heads : 1);
}

}  // namespace

bool ModelConfig::is_moe(int layer) const {
  return !dense && layer >= dense_layers && (layer - dense_layers + 1) % moe_every == 0 &&
         !listed(dense_at, layer);
}
bool ModelConfig::has_rope(int layer) const {
  return !listed(no_rope_layers, layer);
}
bool ModelConfig::sees_all(int layer) const {
  return !has_rope(layer) || listed(full_layers, layer);
}
int ModelConfig::moe_layers() const {
  int n = 0;
  for (int l = 0; l < layers; ++l)
    n += is_moe(l);
  return n;
}
int ModelConfig::dense_baseline_width() const {
  if (dense_width > 0)
    return dense_width;
  const Index wide = make_router(moe.router, moe.experts)->choices() * moe.width + moe.shared_width;
  if (wide > std::numeric_limits<int>::max())
    throw Error(Exit::usage, concat("a dense feed-forward would be ", wide, " wide"));
  return int(wide);
}

const FeedShape* Architecture::moe() const {
  for (const LayerShape& l : layers) {
    if (l.feed && l.feed->is_moe())
      return &*l.feed;
  }
  return nullptr;
}
Count Architecture::moe_layers() const {
  return std::ranges::count_if(layers,
                               [](const LayerShape& l) { return l.feed && l.feed->is_moe(); });
}
bool Architecture::encoder_decoder() const {
  const auto in = [&](Stack stack) {
    return std::ranges::any_of(layers, [&](const LayerShape& l) { return l.stack == stack; });
  };
  return in(Stack::encoder) && in(Stack::decoder);
}

FeedShape feed_of(const LayerConfig& c) {
  const auto router = make_router(c.router, c.experts);
  const std::vector<Projection> projections = router->projections();
  FeedShape f;
  f.experts = c.experts;
  f.k = capability<Mixing>(*router) ? c.experts : router->choices();
  f.width = c.widths.empty() ? c.width : std::ranges::max(c.widths);
  f.matrices = is_gated(c.activation) ? 3 : 2;
  f.bias = c.expert_bias;
  f.shared_width = c.shared_width;
  f.shared_gate = c.shared_gate;
  f.router = router_products(projections, c);
  f.correction_bias = !router->correction_bias().empty();
  for (const Projection& p : projections)
    f.router_vector += p.cosine;
  if (!projections.empty()) {
    f.gate_residual = c.gate_residual ? projections[0].rows : 0;
    f.router_vector += c.router_bias ? projections[0].rows : 0;
  }
  if (c.widths.empty() && c.all_ffn())
    return f;
  for (int e = 0; e < c.experts; ++e) {
    f.widths.push_back(c.width_of(e));
    f.constants += c.type_of(e) == ExpertKind::constant;
  }
  return f;
}

Architecture architecture_of(const ModelConfig& c) {
  Architecture a;
  a.name = c.preset;
  a.family = "moe";
  a.hidden = c.hidden;
  a.vocabulary = c.vocabulary;
  a.context = c.context;
  a.tied = c.tied;
  a.norm_bias = c.norm == NormKind::layer_bias;
  const bool sparse = c.moe_layers() > 0;
  const FeedShape dense = c.moe_layers() < c.layers ? dense_of(c) : FeedShape{};
  FeedShape moe = sparse ? feed_of(c.moe) : FeedShape{};
  const Count residual = std::exchange(moe.gate_residual, 0);
  const std::vector<MixerShape> mixers = mixer_shapes(c);
  for (int l = 0; l < c.layers; ++l) {
    LayerShape& layer = a.layers.emplace_back();
    layer.mixers = {mixers[std::size_t(l)]};
    layer.feed = c.is_moe(l) ? moe : dense;
    layer.norms = c.norm_both ? 4 : c.moe_norm_after && c.is_moe(l) ? 3 : 2;
    if (c.is_moe(l))
      moe.gate_residual = residual;  // the first has no logits before it
  }
  if (c.output_bias)
    a.extra.push_back({"bias of the output", c.vocabulary});
  const bool attends = std::ranges::any_of(mixers, &MixerShape::attends);
  if (const Count n = attends ? fourier_numbers(c) : 0; n > 0)
    a.extra.push_back({"Fourier matrices", n, MovedBy::nothing});
  return a;
}

}  // namespace moe
