// What no model can be: sizes, and options of attention, layers and stacks that exclude each other.
#include <algorithm>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/model/config.h"
#include "lib/model/layer_list.h"
#include "lib/model/mixer_type.h"
#include "lib/model/rope_axes.h"
#include "lib/router/mixing.h"
#include "lib/router/router.h"

namespace moe {
namespace {

bool listed(const std::vector<int>& layers, int layer) {
  return std::ranges::find(layers, layer) != layers.end();
}

void refuse(bool when, const std::string& sentence, const std::string& hint) {
  if (when)
    throw Error(Exit::usage, sentence).hint(hint);
}

// Whether some layer turns queries and keys by position.
bool turns(const ModelConfig& c) {
  const auto by_mixer = [](const std::string& spec) {
    return spec != no_part && make_mixer_type(spec)->turns();
  };
  return c.has_experts_of_attention() ||
         std::ranges::any_of(layer_mixers(c.mixer, c.layers), by_mixer);
}

// Heads that turn by three axes are those of plain attention, whose pairs the axes share out.
void check_rope_axes(const ModelConfig& c) {
  const std::optional<RopeAxes> axes = rope_axes(c.rope_axes);
  if (!axes)
    return;
  const auto others = [](const std::string& spec) {
    if (spec == no_part)
      return false;
    const auto type = make_mixer_type(spec);
    return type->turns() && !type->turns_by_axes();
  };
  refuse(c.rope == rope_none || !turns(c) || c.kv_rank > 0 || c.has_experts_of_attention() ||
             std::ranges::any_of(layer_mixers(c.mixer, c.layers), others) ||
             rotary_of(c.rope, c.rotary_dims(), c.rope_theta).mixed,
         "rope_axes turns the heads of grouped-query attention by three positions, and the model "
         "has others",
         "mixer=attention,kv_rank=0 and a rope that turns pairs, or rope_axes left out");
  refuse(axes->pairs() != c.rotary_dims() / 2,
         concat("rope_axes=", c.rope_axes, " shares out ", axes->pairs(),
                " pairs, and a head turns in ", c.rotary_dims() / 2),
         concat("three numbers of pairs whose sum is ", c.rotary_dims() / 2));
}

void check_rotary(const ModelConfig& c) {
  check_rope_axes(c);
  if (c.rope == rope_none || !turns(c))
    return;
  refuse(c.rotary_dims() % 2 != 0 || c.rotary_dims() > c.head_dim,
         concat("rotary embedding turns pairs, and ", c.rotary_dims(), " of ", c.head_dim,
                " numbers of a head were asked for"),
         "rotary_dim=0 for all, or an even number");
  const bool mixed = rotary_of(c.rope, c.rotary_dims(), c.rope_theta).mixed;
  refuse(mixed && (c.rope_interleaved || c.rotary_dims() != c.head_dim),
         "Fourier position embedding turns whole heads in pairs (j, j + d/2)",
         "rope_interleaved=0,rotary_dim=0,kv_rank=0, or another rope");
}

void check_visible(const ModelConfig& c) {
  for (const auto* list :
       {&c.full_layers, &c.no_rope_layers, &c.dense_at, &c.index_shared, &c.table_layers}) {
    for (const int l : *list) {
      refuse(l >= c.layers, concat("layer ", l, " was named and the model has ", c.layers),
             "layers count from 0");
    }
  }
  refuse(c.window > 0 && c.chunk > 0,
         concat("window=", c.window, " and chunk=", c.chunk, " both cut what a query sees"),
         "chunk=0");
  refuse(c.logit_divisor == 0 || c.residual_scale == 0 || c.embedding_scale == 0,
         "a factor of 0 would silence the model",
         "embedding_scale=1,residual_scale=1,logit_divisor=1");
  refuse(c.stretch_scale != 0 && c.stretch_floor <= 0,
         concat("stretch_scale=", c.stretch_scale,
                " counts positions in steps of stretch_floor, which is ", c.stretch_floor),
         "stretch_floor=8192");
}

void check_latent(const ModelConfig& c) {
  if (c.kv_rank == 0) {
    return refuse(
        c.q_rank > 0 || c.nope_dim > 0 || c.rope_dim > 0 || c.q_latent_scale != 1 ||
            c.kv_latent_scale != 1,
        "q_rank, nope_dim, rope_dim and the scales of latents belong to latent attention, "
        "and kv_rank is 0",
        "kv_rank=32");
  }
  refuse(c.nope_dim < 1 || c.rope_dim < 2 || c.value_dim < 1,
         concat("latent attention needs nope_dim, rope_dim and value_dim, got ", c.nope_dim, ", ",
                c.rope_dim, " and ", c.value_dim),
         "nope_dim=16,rope_dim=8,value_dim=16");
  refuse(c.head_dim != c.nope_dim + c.rope_dim,
         concat("head_dim=", c.head_dim, " is not nope_dim + rope_dim = ", c.nope_dim + c.rope_dim),
         concat("head_dim=", c.nope_dim + c.rope_dim));
  refuse(c.heads != c.kv_heads,
         concat("latent attention has a key for each of its ", c.heads, " heads, and kv_heads is ",
                c.kv_heads),
         concat("kv_heads=", c.heads));
  refuse(
      c.qk_norm != QkNorm::none || c.clip_qkv > 0 || c.values_from_keys || c.value_norm ||
          c.value_scale != 1 || c.attention_gate == AttentionGate::query,
      "latent attention has neither qk_norm nor clip_qkv nor what is done to values, and no gate "
      "in its queries",
      "qk_norm=none,clip_qkv=0,values_from_keys=0,value_norm=0,value_scale=1,"
      "attention_gate=none");
}

void check_values(const ModelConfig& c) {
  refuse(c.value_dim < 0, concat("value_dim=", c.value_dim, " must be at least 0"), "value_dim=0");
  refuse(c.value_scale == 0 || c.q_latent_scale == 0 || c.kv_latent_scale == 0,
         "a factor of 0 would silence attention",
         "value_scale=1,q_latent_scale=1,kv_latent_scale=1");
  if (c.kv_rank > 0)
    return;
  const bool as_wide = c.value_dim == 0 || c.value_dim == c.head_dim;
  refuse(!as_wide && (c.values_from_keys || c.attention_gate == AttentionGate::query),
         concat("values of ", c.value_dim,
                " numbers a head are asked for, and keys or the gate in "
                "the query matrix have ",
                c.head_dim),
         "value_dim=0, or values_from_keys=0 and attention_gate=full");
  refuse(c.values_from_keys && c.clip_qkv > 0,
         "values that are the keys are not clamped apart from them", "clip_qkv=0");
}

// What has no meaning where encoder and decoder see different tokens.
void check_across_stacks(const ModelConfig& c) {
  refuse(c.moe.gate_residual,
         "gate_residual=1 adds logits of the MoE layer before, and encoder and decoder have "
         "different tokens",
         "gate_residual=0");
  for (const std::string& spec : c.moe.balance) {
    refuse(make_balancer(spec)->across_layers(),
           concat("balance ", spec,
                  " is over all layers together, and encoder and decoder have "
                  "different tokens"),
           "balance={switch:coef=0.01}");
  }
}

void check_encoder(const ModelConfig& c) {
  refuse(c.encoder_layers < 0 || c.decoder_width < 0 || c.start_token < -1 || c.pad_token < -1,
         concat("encoder_layers=", c.encoder_layers, ", decoder_width=", c.decoder_width,
                ", start_token=", c.start_token, " and pad_token=", c.pad_token,
                " count from 0, and ids that are none are -1"),
         "encoder_layers=0,decoder_width=0,start_token=-1,pad_token=-1");
  if (c.encoder_layers == 0) {
    return refuse(c.decoder_width > 0 || c.route_padding || c.encoder_embedding,
                  "decoder_width, route_padding and encoder_embedding are of a model with an "
                  "encoder, and encoder_layers is 0",
                  "encoder_layers=2");
  }
  refuse(c.encoder_layers >= c.layers,
         concat("encoder_layers=", c.encoder_layers, " leaves the decoder none of the ", c.layers,
                " layers"),
         concat("layers counts those of both: layers=", 2 * c.encoder_layers));
  const std::vector<std::optional<MixerShape>> mixers = mixer_shapes(c);
  for (int l = 0; l < c.encoder_layers; ++l) {
    refuse(!mixers[std::size_t(l)] || !mixers[std::size_t(l)]->both_sides,
           concat("layer ", l,
                  " is of the encoder, where a token sees those behind it too, and "
                  "its mixer does not"),
           "mixer=plain_attention");
  }
  refuse(
      c.norm_after || c.norm_both || c.moe_norm_after,
      "norm_after, norm_both and moe_norm_after say where the norms of two branches stand, and a "
      "decoder with an encoder has three",
      "norm_after=0,norm_both=0,moe_norm_after=0");
  refuse(
      c.dense_beside != DenseBeside::none || c.index_topk > 0 || c.layer_scale,
      concat(
          "dense_beside, index_topk and layer_scale are of decoders alone, and encoder_layers is ",
          c.encoder_layers),
      "dense_beside=none,index_topk=0,layer_scale=0");
  check_across_stacks(c);
  for (const int id : {c.start_token, c.pad_token}) {
    refuse(id >= c.vocabulary,
           concat("start_token or pad_token is ", id, " and the vocabulary has ", c.vocabulary),
           "an id of the vocabulary, or -1");
  }
  refuse(c.sinusoidal && (c.hidden % 2 != 0 || c.hidden < 4),
         concat("sinusoidal positions are pairs, and the hidden size is ", c.hidden),
         "an even hidden size of 4 or more");
}

void check_heads(const ModelConfig& c) {
  refuse(c.heads % c.kv_heads != 0,
         concat(c.heads, " query heads do not share ", c.kv_heads, " key heads evenly"),
         concat("kv_heads=", c.heads, " or a divisor of it"));
  refuse(
      c.rope != rope_none && c.rotary_dim == 0 && c.kv_rank == 0 && c.head_dim % 2 != 0 && turns(c),
      concat("head_dim=", c.head_dim, " is odd and rotary embedding turns pairs"),
      concat("head_dim=", c.head_dim + 1));
  refuse(!(c.rope_theta > 0), concat("rope_theta=", c.rope_theta, " must be above 0"),
         "rope_theta=10000");
  refuse(!(c.norm_eps >= 0), concat("norm_eps=", c.norm_eps, " must be at least 0"),
         "norm_eps=1e-5");
  refuse(c.window < 0, concat("window=", c.window, " must be at least 0"), "window=0 for no limit");
}

void check_feeds(const ModelConfig& c) {
  if (c.feed.empty())
    return;
  refuse(
      c.dense_layers > 0 || c.moe_every > 1 || !c.dense_at.empty(),
      "feed= names the feed-forward of every layer, and dense_layers, moe_every and dense_at say "
      "it in other words",
      "one of the two");
  const std::vector<FeedKind> feeds = c.feeds();
  const std::vector<std::string> mixer = layer_mixers(c.mixer, c.layers);
  const std::vector<std::string> feed = layer_entries(c.feed, c.layers, "feed");
  for (std::size_t l = 0; l < feeds.size(); ++l) {
    refuse(feeds[l] == FeedKind::none && mixer[l] == no_part,
           concat("layer ", l, " has neither a mixer nor a feed-forward"),
           "lists over the layers: mixer=mamba2+none,feed=none+moe");
    refuse(feed[l] == attention_experts && mixer[l] != no_part,
           concat("layer ", l, " has experts of attention and the mixer ", mixer[l]),
           "two layers, each with one of them: mixer=none,feed=moa+moe");
    refuse(feeds[l] == FeedKind::mixer && Spec(feed[l]).name() == Spec(mixer[l]).name(),
           concat("layer ", l, " has '", Spec(mixer[l]).name(), "' as its mixer and as its feed"),
           "two layers, each with one of them");
  }
}

// Experts of attention have queries and an output matrix, and share plain keys and values.
void check_attention_experts(const ModelConfig& c) {
  refuse(!(c.final_norm_eps >= 0),
         concat("final_norm_eps=", c.final_norm_eps, " must be at least 0"),
         "final_norm_eps=0 for that of the other norms");
  if (!c.has_experts_of_attention())
    return;
  const bool plain_heads = c.kv_rank == 0 && c.qk_norm == QkNorm::none && c.clip_qkv == 0 &&
                           !c.qkv_bias && !c.o_bias && !c.sinks && !c.values_from_keys &&
                           !c.value_norm && c.value_scale == 1 && c.chunk == 0 &&
                           c.attention_gate == AttentionGate::none && c.stretch_scale == 0 &&
                           (c.value_dim == 0 || c.value_dim == c.head_dim);
  refuse(!plain_heads,
         "feed=moa has experts of attention, whose heads are plain, and fields that change heads "
         "are set",
         "kv_rank, qk_norm, clip_qkv, qkv_bias, o_bias, sinks, values_from_keys, value_norm, "
         "value_scale, value_dim, chunk, attention_gate and stretch_scale as they are by default");
  refuse(rotary_of(c.rope, c.rotary_dims(), c.rope_theta).mixed,
         "Fourier position embedding is not computed in experts of attention", "rope=default");
  const LayerConfig& m = c.moe;
  refuse(m.shared_width > 0 || m.latent_width > 0 || !m.widths.empty() || !m.all_ffn() ||
             m.weight_on_input || m.expert_bias,
         "feed=moa has experts of attention, which are all alike: matrices of queries and outputs",
         "shared_width=0,latent_width=0,widths=even,expert_types=ffn,weight_on_input=0,"
         "expert_bias=0");
  refuse(capability<Mixing>(*make_router(m.router, m.experts)) != nullptr,
         concat(m.router, " mixes rows, and experts of attention take rows of the text"),
         "--router softmax:k=2");
  refuse(c.encoder_layers > 0 || c.dense_beside != DenseBeside::none,
         "experts of attention are of decoders, without a dense feed-forward beside them",
         "encoder_layers=0,dense_beside=none");
}

void check_residual(const ModelConfig& c) {
  const ResidualFactors& f = c.residual;
  refuse(c.halve_every < 0, concat("halve_every=", c.halve_every, " must be at least 0"),
         "halve_every=0");
  refuse(c.residual_normed && (c.norm_after || c.norm_both || c.residual_scale != 1),
         "residual_normed=1 goes on from what the norms before the branches give, weighed by alpha "
         "and beta",
         "norm_after=0,norm_both=0,residual_scale=1");
  refuse(f.attention_beta == 0 || f.recurrent_beta == 0 || f.feed_beta == 0,
         "a factor beta of 0 would silence a branch", "attention_beta=1");
  refuse(!c.residual_normed &&
             (f.attention_alpha != 1 || f.attention_beta != 1 || f.recurrent_alpha != 1 ||
              f.recurrent_beta != 1 || f.feed_alpha != 1 || f.feed_beta != 1),
         "the factors alpha and beta belong to residual_normed=1", "residual_normed=1");
}

void check_streams(const ModelConfig& c) {
  constexpr int most = 64;
  refuse(c.streams < 0 || c.streams > most || c.stream_rounds < 1 || !(c.stream_eps >= 0),
         concat("streams=", c.streams, ", stream_rounds=", c.stream_rounds, " and stream_eps=",
                c.stream_eps, " are not 0 to ", most, " streams, a round or more and no negative"),
         "streams=4,stream_rounds=20,stream_eps=1e-6");
  refuse(c.streams > 0 && (c.norm_after || c.norm_both || c.moe_norm_after || c.residual_normed ||
                           c.residual_scale != 1 || c.dense_beside != DenseBeside::none ||
                           c.layer_scale || c.encoder_layers > 0),
         "streams have their own way back from a branch, and norms behind it, factors of the "
         "residual, bodies beside each other or an encoder are asked for too",
         "streams=0, or norm_after=0,norm_both=0,moe_norm_after=0,residual_normed=0,"
         "residual_scale=1,dense_beside=none,layer_scale=0,encoder_layers=0");
}

void check_tables(const ModelConfig& c) {
  const float limit = c.moe.activation.limit;
  refuse(!(limit >= 0), concat("swiglu_limit=", limit, " must be at least 0"), "swiglu_limit=0");
  refuse(limit > 0 && !c.moe.activation.limited(),
         concat("swiglu_limit=", limit, " cuts what swiglu multiplies, and the activation is ",
                name_of(c.moe.activation)),
         "activation=swiglu, or swiglu_limit=0");
  for (const int l : c.table_layers) {
    refuse(!c.dense && !c.is_moe(l),
           concat("table_layers names layer ", l, ", which is no MoE layer"),
           "numbers of MoE layers, from 0");
    make_router(c.moe_of(l).router, c.moe.experts);  // says what it does not go with
  }
}

void check_layers(const ModelConfig& c) {
  check_residual(c);
  check_streams(c);
  check_tables(c);
  check_feeds(c);
  check_attention_experts(c);
  refuse(c.moe.hidden != c.hidden,
         concat("the MoE layers have hidden size ", c.moe.hidden, " and the model ", c.hidden),
         "give both the same");
  refuse(!c.dense && c.moe_layers() == 0,
         concat("none of the ", c.layers, " layers is MoE with dense_layers=", c.dense_layers,
                " and moe_every=", c.moe_every),
         "fewer dense layers, or dense=1 for a dense model");
  refuse(c.moe.shared_gate && c.moe.shared_width == 0,
         "shared_gate=1 needs a shared expert and shared_width is 0",
         concat("shared_width=", c.moe.width));
  refuse(c.moe.router_bias && make_router(c.moe.router, c.moe.experts)->projections().empty(),
         concat("router_bias=1 needs a router with scores, and ", c.moe.router, " has none"),
         "router_bias=0");
  refuse(c.logit_cap < 0, concat("logit_cap=", c.logit_cap, " must be at least 0"), "logit_cap=0");
  refuse(c.dense_beside == DenseBeside::normed && !c.norm_both,
         "dense_beside=normed stands between the norms of norm_both=1", "norm_both=1");
  if (c.dense_beside == DenseBeside::shortcut) {
    bool pairs = c.layers % 2 == 0 && !c.dense && !c.norm_after && !c.norm_both;
    for (int l = 0; l < c.layers; ++l)
      pairs &= c.is_moe(l) == (l % 2 == 0);
    refuse(!pairs,
           "dense_beside=shortcut has experts in the first of each two layers, whose output is "
           "added behind the second",
           "an even number of layers, dense_at=1+3+5, norms before the branches");
  }
  refuse(int(c.norm_after) + int(c.norm_both) + int(c.moe_norm_after) > 1,
         "norm_after, norm_both and moe_norm_after each say where norms stand, and two are 1",
         "one of them, the others 0");
}

void check_signals(const ModelConfig& c) {
  const int places = place_ids(c.signal);
  refuse(places >= c.vocabulary,
         concat("the last ids of the vocabulary are those of ", places,
                " places of pictures and sounds, and there are ", c.vocabulary, " in all"),
         concat("vocabulary=", 320 + places, ", or fewer places"));
  refuse(!c.signal.empty() && c.encoder_layers > 0,
         "signal= brings pictures and sounds into a decoder alone, and encoder_layers is not 0",
         "encoder_layers=0");
}

}  // namespace

void check_sizes(const ModelConfig& c) {
  refuse(c.vocabulary < 2 || c.hidden < 1 || c.layers < 1 || c.heads < 1 || c.kv_heads < 1 ||
             c.head_dim < 1 || c.context < 1,
         concat("a model needs sizes of at least 1 and two words, got vocabulary=", c.vocabulary,
                ", hidden=", c.hidden, ", layers=", c.layers, ", heads=", c.heads,
                ", kv_heads=", c.kv_heads, ", head_dim=", c.head_dim, ", context=", c.context),
         "see moe list models");
  refuse(c.moe_every < 1, concat("moe_every=", c.moe_every, " must be at least 1"), "moe_every=1");
  refuse(c.dense_width < 0, concat("dense_width=", c.dense_width, " must be at least 0"),
         "dense_width=0 for as many active parameters as a MoE layer");
  refuse(c.moe.experts < 1 || c.moe.width < 1 || c.moe.shared_width < 0,
         concat("a MoE layer needs experts, got experts=", c.moe.experts, ", width=", c.moe.width,
                ", shared_width=", c.moe.shared_width),
         "experts=8,width=192");
}

namespace {

void check_index(const ModelConfig& c) {
  refuse(c.index_topk < 0 || c.index_heads < 0 || c.index_dim < 0,
         "index_topk, index_heads and index_dim must be at least 0", "index_topk=0");
  if (c.index_topk == 0) {
    return refuse(
        c.index_heads > 0 || c.index_dim > 0 || !c.index_shared.empty(),
        "index_heads, index_dim and index_shared belong to an indexer, and index_topk is 0",
        "index_topk=8");
  }
  refuse(c.q_rank == 0 || c.window > 0 || c.chunk > 0,
         "an indexer reads the latent row of queries, and chooses among all keys before",
         "latent attention with q_rank, window=0,chunk=0");
  refuse(c.index_heads < 1 || c.index_dim < c.rope_dim,
         concat("an indexer needs heads of at least rope_dim=", c.rope_dim, " numbers, got ",
                c.index_heads, " of ", c.index_dim),
         "index_heads=4,index_dim=16");
  refuse(listed(c.index_shared, 0), "layer 0 has no layer before it whose keys it could take",
         "index_shared=1");
}

}  // namespace

void check_attention(const ModelConfig& c) {
  check_heads(c);
  check_rotary(c);
  check_visible(c);
  check_latent(c);
  check_values(c);
  check_index(c);
}

void check(const ModelConfig& c) {
  check_sizes(c);
  check_attention(c);
  check_layers(c);
  check_encoder(c);
  check_signals(c);
}

}  // namespace moe
