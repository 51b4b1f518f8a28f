// The rules by which the fields of a ModelConfig make layers.
#include "lib/model/architecture.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/model/config.h"
#include "lib/model/layer_list.h"
#include "lib/model/mixer_type.h"
#include "lib/model/mixers/expert_attention.h"
#include "lib/model/mixers/plain_attention.h"
#include "lib/model/rotary.h"
#include "lib/router/mixing.h"
#include "lib/router/router.h"
#include "lib/router/token_table.h"

namespace moe {
namespace {

bool listed(const std::vector<int>& layers, int layer) {
  return std::ranges::find(layers, layer) != layers.end();
}

FeedShape dense_of(const ModelConfig& c) {
  FeedShape f;
  f.width = c.dense_baseline_width();
  f.matrices = is_gated(c.moe.activation) ? 3 : 2;
  f.bias = c.dense_bias;
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

bool holds_experts(FeedKind kind) {
  return kind == FeedKind::moe || kind == FeedKind::experts_of_attention;
}

// `moe` of a model in a layer whose experts are those of attention.
LayerConfig experts_of_attention(const ModelConfig& c) {
  LayerConfig out = c.moe;
  out.attends = true;
  out.width = Index(c.kv_heads) * c.head_dim;
  out.activation = Activation::relu;  // none is computed: two matrices, as of bodies without a gate
  out.expert_bias = false;
  return out;
}

// The feed-forwards of all layers, asked for in order.
class Feeds {
 public:
  explicit Feeds(const ModelConfig& c) : c_(c), kinds_(c.feeds()) {
    const auto any = [&](FeedKind kind) {
      return std::ranges::find(kinds_, kind) != kinds_.end();
    };
    if (any(FeedKind::dense))
      dense_ = dense_of(c);
    if (any(FeedKind::moe))
      moe_ = feed_of(c.moe);
    if (any(FeedKind::experts_of_attention))
      attention_ = feed_of(experts_of_attention(c));
    if (std::ranges::any_of(kinds_, holds_experts))
      all_look_up_ = capability<TokenTable>(*make_router(c.moe.router, c.moe.experts)) != nullptr;
    residual_ = std::max(moe_.gate_residual, attention_.gate_residual);
    moe_.gate_residual = attention_.gate_residual = 0;  // the first has no logits before it
  }
  void add(int layer, LayerShape& to) {
    const FeedKind kind = kinds_[std::size_t(layer)];
    if (kind == FeedKind::dense)
      to.feed = dense_;
    else if (kind == FeedKind::mixer)
      to.mixers.push_back(make_mixer_type(c_.feed_mixer(layer))->shape(c_, layer));
    if (kind == FeedKind::experts_of_attention) {
      to.mixers.push_back(expert_attention_shape(c_, layer, attention_.k));
      to.feed = attention_;
    } else if (kind == FeedKind::moe) {
      to.feed = moe_;
    } else {
      return;
    }
    moe_.gate_residual = attention_.gate_residual = residual_;
    if (!all_look_up_ && !listed(c_.table_layers, layer))
      return;
    to.feed->correction_bias = false;
    to.feed->table = Count(c_.vocabulary) * to.feed->k;
  }

 private:
  const ModelConfig& c_;
  std::vector<FeedKind> kinds_;
  FeedShape dense_, moe_, attention_;
  Count residual_ = 0;
  bool all_look_up_ = false;  // the router itself is a table
};

// `dense`: the dense baseline of the model, where plain attention stands for experts of attention.
FeedKind feed_kind(const std::string& entry, bool dense) {
  if (entry == no_part)
    return FeedKind::none;
  if (entry == "moe" || entry == "dense")
    return entry == "moe" && !dense ? FeedKind::moe : FeedKind::dense;
  if (entry == attention_experts)
    return dense ? FeedKind::mixer : FeedKind::experts_of_attention;
  if (!mixers().find(Spec(entry).name())) {
    std::vector<std::string> names = mixers().names();
    names.insert(names.begin(),
                 {"moe", "dense", std::string(attention_experts), std::string(no_part)});
    no_such("feed-forward", entry, names);
  }
  return FeedKind::mixer;
}

// One matrix of cosines and one of sines, for all heads or for each key head (fourier.h).
Count fourier_numbers(const ModelConfig& c) {
  const Rotary rotary = rotary_of(c.rope, c.rotary_dims(), c.rope_theta);
  if (!rotary.mixed)
    return 0;
  const Count n = Count(rotary.frequency.size());
  return 2 * n * n * (rotary.mixed_by_head ? c.kv_heads : 1);
}

// The dense feed-forward beside the experts of a layer, with its norms and the router's.
void add_beside(const ModelConfig& c, LayerShape& to) {
  if (c.dense_beside == DenseBeside::none || !to.feed || !to.feed->is_moe())
    return;
  to.beside = dense_of(c);
  if (c.dense_beside != DenseBeside::normed)
    return;
  to.norms += 3;
  to.feed->router_vector += c.hidden;
}

std::vector<Extra> extras(const ModelConfig& c, bool norm_bias,
                          const std::vector<std::optional<MixerShape>>& mixers) {
  std::vector<Extra> out;
  if (c.embedding_norm)
    out.push_back({"norm of the embedding", Count(c.hidden) * (norm_bias ? 2 : 1)});
  if (c.encoder_embedding)
    out.push_back({"embedding of the encoder", Count(c.vocabulary) * c.hidden});
  if (c.output_bias)
    out.push_back({"bias of the output", c.vocabulary});
  const bool attends = std::ranges::any_of(
      mixers, [](const std::optional<MixerShape>& m) { return m && m->attends(); });
  if (const Count n = attends ? fourier_numbers(c) : 0; n > 0)
    out.push_back({"Fourier matrices", n, MovedBy::nothing});
  return out;
}

// What a layer of an encoder-decoder has besides.
void place_in_stack(const ModelConfig& c, int l, LayerShape& layer) {
  if (c.in_encoder(l)) {
    layer.stack = Stack::encoder;
    return;
  }
  layer.mixers.push_back(cross_shape(c));
  layer.norms = 3;
  if (c.decoder_width > 0)
    layer.feed->width = c.decoder_width;
}

}  // namespace

std::vector<FeedKind> ModelConfig::feeds() const {
  std::vector<FeedKind> out;
  for (int l = 0; feed.empty() && l < layers; ++l)
    out.push_back(is_moe(l) ? FeedKind::moe : FeedKind::dense);
  if (feed.empty())
    return out;
  for (const std::string& entry : layer_entries(feed, layers, "feed"))
    out.push_back(feed_kind(entry, dense));
  return out;
}
std::string ModelConfig::feed_mixer(int layer) const {
  const std::string entry = layer_entries(feed, layers, "feed")[std::size_t(layer)];
  return entry == attention_experts ? mixers().names().front() : entry;
}
bool ModelConfig::is_moe(int layer) const {
  if (!feed.empty())
    return holds_experts(feeds()[std::size_t(layer)]);
  const int own = in_encoder(layer) ? layer : layer - encoder_layers;
  return !dense && own >= dense_layers && (own - dense_layers + 1) % moe_every == 0 &&
         !listed(dense_at, layer);
}
bool ModelConfig::has_experts_of_attention() const {
  return std::ranges::count(feeds(), FeedKind::experts_of_attention) > 0;
}
LayerConfig ModelConfig::moe_of(int layer) const {
  const bool attends =
      !feed.empty() && feeds()[std::size_t(layer)] == FeedKind::experts_of_attention;
  LayerConfig out = attends ? experts_of_attention(*this) : moe;
  if (!listed(table_layers, layer) ||
      moe::router_facts(moe.router, moe.experts).needs_recorded_routes)
    return out;
  out.router = table_router(moe.router);
  // in its place, since layers say their losses in the same order
  std::ranges::replace_if(
      out.balance, [](const std::string& b) { return make_balancer(b)->moves_bias(); }, "none");
  return out;
}
bool ModelConfig::has_rope(int layer) const {
  return rope != rope_none && !listed(no_rope_layers, layer);
}
bool ModelConfig::sees_all(int layer) const {
  return listed(no_rope_layers, layer) || listed(full_layers, layer);
}
int ModelConfig::moe_layers() const {
  return int(std::ranges::count_if(feeds(), holds_experts));
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
  const FeedShape* first = nullptr;
  for (const LayerShape& l : layers) {
    if (!l.feed || !l.feed->is_moe())
      continue;
    if (!l.feed->attends)
      return &*l.feed;
    if (!first)
      first = &*l.feed;
  }
  return first;
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
  f.latent = c.latent_width;
  f.router = router_products(projections, c);
  f.output_bias = c.output_bias;
  f.attends = c.attends;
  f.correction_bias = !router->correction_bias().empty();
  for (const Projection& p : projections)
    f.router_vector += p.cosine;
  f.router_vector += c.expert_scale ? c.experts : 0;
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
  a.streams = c.streams;
  for (const SignalShape& s : c.signal) {
    a.projectors.push_back({c.hidden, s.numbers});
    if (c.projector == ProjectorKind::mlp2x_gelu) {
      a.projectors.push_back({c.hidden, c.hidden});
      a.projector_biases += 2 * c.hidden;
    }
  }
  a.final_norms = c.encoder_layers > 0 ? 2 : 1;
  Feeds feeds(c);
  const std::vector<std::optional<MixerShape>> mixers = mixer_shapes(c);
  for (int l = 0; l < c.layers; ++l) {
    LayerShape& layer = a.layers.emplace_back();
    if (mixers[std::size_t(l)])
      layer.mixers.push_back(*mixers[std::size_t(l)]);
    feeds.add(l, layer);
    const bool one_more = c.moe_norm_after && layer.feed && layer.feed->is_moe();
    layer.norms = layer.branches() * (c.norm_both ? 2 : 1) + (one_more ? 1 : 0);
    layer.scalars = c.layer_scale;
    add_beside(c, layer);
    if (c.encoder_layers > 0)
      place_in_stack(c, l, layer);
  }
  a.extra = extras(c, a.norm_bias, mixers);
  return a;
}

}  // namespace moe
