// The blocks of a decoder, made from its architecture: mixers, feed-forwards, norms, and the names
// of their parameters.
#include <cmath>

#include "lib/core/error.h"
#include "lib/model/architecture.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/model/mixer_type.h"
#include "lib/model/mixers/expert_attention.h"
#include "lib/model/mixers/plain_attention.h"
#include "lib/router/learns_from_text.h"
#include "lib/router/router.h"
#include "lib/router/token_table.h"

namespace moe {
namespace {

// Of norms in front of a layer.
double eps_before(const ModelConfig& c, int layer) {
  return c.halve_every > 0 ? c.norm_eps * std::pow(4.0, layer / c.halve_every) : c.norm_eps;
}

}  // namespace

template <class S>
Decoder<S>::Decoder(const ModelConfig& config, Backend<S>& b, Storage experts)
    : config_(std::make_unique<const ModelConfig>(resolved(config))),
      backend_(b),
      shared_(std::make_unique<SharedParts<S>>()) {
  const ModelConfig& c = *config_;
  embedding_ = Parameter<S>(b, "embedding", {c.vocabulary, c.hidden});
  for (const SignalShape& s : c.signal) {
    projector_.emplace_back(b, concat("projector.", modality_names()[s.modality]), c.projector,
                            c.hidden, s.numbers);
  }
  if (c.embedding_norm)
    embedding_norm_ = Norm<S>(b, "embedding_norm", c.norm, c.hidden, c.norm_eps);
  final_norm_ = Norm<S>(b, "final_norm", c.norm, c.hidden,
                        c.final_norm_eps > 0 ? c.final_norm_eps : eps_before(c, c.layers));
  if (c.encoder_embedding)
    encoder_embedding_ = Parameter<S>(b, "encoder_embedding", {c.vocabulary, c.hidden});
  if (c.encoder_layers > 0)
    encoder_norm_ = Norm<S>(b, "encoder_norm", c.norm, c.hidden, c.norm_eps);
  if (!c.tied)
    output_ = Parameter<S>(b, "output", {c.vocabulary, c.hidden});
  if (c.output_bias)
    output_bias_ = Parameter<S>(b, "output_bias", {c.vocabulary}, ParameterKind::vector);
  if (c.streams > 0)
    head_streams_.emplace(c, b, "streams.", "hc_head_", true);
  build_blocks(experts);
}

template <class S>
Decoder<S>::~Decoder() = default;

template <class S>
void Decoder<S>::build_blocks(Storage experts) {
  const ModelConfig& c = *config_;
  const Architecture shape = architecture_of(c);
  for (LayerMixer<S>& mixer : make_mixers(c, backend_, *shared_)) {
    const std::size_t l = blocks_.size();
    const std::string at = concat("layers.", l, ".");
    Block& block = blocks_.emplace_back();
    block.mixer_name = mixer.name;
    block.mixer = std::move(mixer.mixer);
    if (c.encoder_layers > 0 && !c.in_encoder(int(l))) {
      block.cross_norm = Norm<S>(backend_, at + "cross_norm", c.norm, c.hidden, c.norm_eps);
      block.cross = std::make_unique<CrossAttention<S>>(c, backend_);
    }
    build_feed(int(l), shape.layers[l].feed, experts);
    build_beside(block, shape.layers[l].beside, at);
    build_norms(block, int(l), at);
    build_streams(block, at);
    build_joints(block, !shape.layers[l].mixers.empty() && shape.layers[l].mixers[0].attends());
    name_parameters(block, at);
  }
}

template <class S>
void Decoder<S>::build_beside(Block& b, const std::optional<FeedShape>& dense,
                              const std::string& at) {
  const ModelConfig& c = *config_;
  if (dense) {
    b.dense.emplace(backend_, "", c.moe.activation, dense->width, c.hidden);
    b.beside.emplace(c, backend_, at);
  }
  if (c.layer_scale) {
    b.scale = Parameter<S>(backend_, at + "layer_scale", {1}, ParameterKind::vector);
    b.scale.freeze();
  }
}

template <class S>
void Decoder<S>::build_norms(Block& b, int layer, const std::string& at) {
  const ModelConfig& c = *config_;
  const auto make = [&](const std::string& name) {
    return Norm<S>(backend_, at + name, c.norm, c.hidden, eps_before(c, layer));
  };
  if (b.mixer)
    (c.norm_after ? b.mixer_after : b.mixer_norm) = make("attention_norm");
  const bool attends = b.moe && b.moe->attention();
  const std::string feed = attends ? "attention_norm" : "feed_norm";
  if (b.feeds())
    (c.norm_after ? b.feed_after : b.feed_norm) = make(feed);
  if (b.mixer && c.norm_both)
    b.mixer_after = make("attention_norm_after");
  if (b.feeds() && (c.norm_both || (c.moe_norm_after && b.moe)))
    b.feed_after = make(feed + "_after");
}

template <class S>
void Decoder<S>::build_streams(Block& b, const std::string& at) {
  if (config_->streams == 0)
    return;
  if (b.mixer)
    b.mixer_streams.emplace(*config_, backend_, at + "mixer_streams.", "hc_attn_", false);
  if (b.feeds())
    b.feed_streams.emplace(*config_, backend_, at + "feed_streams.", "hc_ffn_", false);
}

template <class S>
void Decoder<S>::build_joints(Block& b, bool attends) {
  const ModelConfig& c = *config_;
  if (!c.residual_normed) {
    b.mixer_joint.beta = b.feed_joint.beta = c.residual_scale;
    return;
  }
  const ResidualFactors& f = c.residual;
  b.mixer_joint = attends ? Joint{f.attention_alpha, f.attention_beta, true}
                          : Joint{f.recurrent_alpha, f.recurrent_beta, true};
  b.feed_joint = {f.feed_alpha, f.feed_beta, true};
}

template <class S>
void Decoder<S>::build_feed(int layer, const std::optional<FeedShape>& feed, Storage experts) {
  const ModelConfig& c = *config_;
  Block& block = blocks_[std::size_t(layer)];
  if (c.feeds()[std::size_t(layer)] == FeedKind::mixer) {
    LayerMixer<S> mixer = make_mixer<S>(c.feed_mixer(layer), {c, layer, backend_, *shared_});
    block.feed_mixer_name = mixer.name;
    block.feed_mixer = std::move(mixer.mixer);
  }
  if (!feed)
    return;
  if (!feed->is_moe()) {
    block.dense.emplace(backend_, "", c.moe.activation, feed->width, c.hidden, feed->bias);
    return;
  }
  LayerConfig moe = c.moe_of(layer);
  if (moe.widths.empty())
    moe.width = feed->width;
  moe.gate_residual = feed->gate_residual > 0;
  block.moe.emplace(moe, backend_, experts);
  if (moe.attends)
    block.moe->attend_with(make_expert_attention<S>(c, layer, backend_));
  if (auto* learned = capability<LearnsFromText>(block.moe->router()))
    learned->set_vocabulary(c.vocabulary);
  if (auto* table = capability<TokenTable>(block.moe->router()))
    table->set_vocabulary(c.vocabulary);
}

template <class S>
void Decoder<S>::name_parameters(Block& block, const std::string& at) {
  const auto name = [](const std::string& prefix, const std::vector<Parameter<S>*>& part) {
    for (Parameter<S>* p : part)
      p->rename(prefix + p->name());
  };
  const auto name_mixer = [&](Mixer<S>* mixer, const std::string& group) {
    std::vector<ModelParameter<S>> own;
    if (mixer)
      mixer->collect(own);
    name(at + group + ".", pointers(own));
  };
  name_mixer(block.mixer.get(), block.mixer_name);
  name_mixer(block.feed_mixer.get(), block.feed_mixer_name);
  if (block.cross) {
    std::vector<ModelParameter<S>> cross;
    block.cross->collect(cross);
    name(at + "cross.", pointers(cross));
  }
  std::vector<Parameter<S>*> experts;
  if (block.moe)
    block.moe->collect(experts);
  name(at + "moe.", experts);
  std::vector<Parameter<S>*> dense;
  if (block.dense)
    block.dense->collect(dense);
  name(at + "dense.", dense);
}

// decoder.h leaves what it declares to decoder.cpp, so each of these is asked for by itself.
#define INSTANTIATE(S)                                                                 \
  template Decoder<S>::Decoder(const ModelConfig&, Backend<S>&, Storage);              \
  template Decoder<S>::~Decoder();                                                     \
  template void Decoder<S>::build_blocks(Storage);                                     \
  template void Decoder<S>::build_feed(int, const std::optional<FeedShape>&, Storage); \
  template void Decoder<S>::build_beside(Block&, const std::optional<FeedShape>&,      \
                                         const std::string&);                          \
  template void Decoder<S>::build_norms(Block&, int, const std::string&);              \
  template void Decoder<S>::build_joints(Block&, bool);                                \
  template void Decoder<S>::build_streams(Block&, const std::string&);                 \
  template void Decoder<S>::name_parameters(Block&, const std::string&);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace moe
