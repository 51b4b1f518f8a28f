// Every parameter of a decoder in its fixed order, with what is known of it: a mixer says it of its
// own, the rest is said here.
#include <cmath>

#include "lib/core/error.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/model/mixer_type.h"
#include "lib/router/router.h"

namespace moe {
namespace {

// Of a MoE layer; `name` is the parameter's inside the layer: "router.weight", "experts.down".
std::string moe_group(const std::string& name) {
  for (const char* group : {"router", "experts", "shared", "latent"}) {
    if (name.starts_with(group))
      return group;
  }
  throw Error(Exit::bug, concat("the parameter '", name, "' is in no group"));
}

template <class S>
Start feed_start(const ModelConfig& c, const std::string& name, const Parameter<S>& p) {
  const Index fan_in = p.dims().back();
  if (name == "router.slots")
    return {.std = 1 / std::sqrt(double(fan_in))};
  if (name == "experts.const_vec")
    return {.std = 1};
  if (p.kind() == ParameterKind::vector)
    return {};
  const bool output = name.ends_with("down") || name == "latent.out";
  return matrix_start(c, output ? MatrixRole::feed_output : MatrixRole::other, fan_in);
}

template <class S>
Start moe_start(const ModelConfig& c, const MoeLayer<S>& layer, const std::string& name,
                const Parameter<S>& p) {
  if (name == "router.residual_weight")
    return {};
  for (const Projection& product : layer.router().projections()) {
    if (product.zero_init && name == "router." + product.name)
      return {};
    if (product.cosine && name == "router." + product.scale_name)
      return {.value = product.scale_start};
  }
  return feed_start(c, name, p);
}

Start norm_parameter_start(NormKind kind, const std::string& name) {
  return {.value = name.ends_with("_bias") ? 0 : norm_start(kind)};
}

// Those of a mixer, or of what mixers share.
template <class S, class Part>
void collect_part(Part& part, const std::string& group, int layer,
                  std::vector<ModelParameter<S>>& all) {
  const std::size_t first = all.size();
  part.collect(all);
  for (std::size_t i = first; i < all.size(); ++i) {
    all[i].group = group;
    all[i].layer = layer;
  }
}

}  // namespace

template <class S>
std::vector<ModelParameter<S>> Decoder<S>::inventory() {
  std::vector<ModelParameter<S>> all;
  const auto add = [&](Parameter<S>& p, const Start& start, const std::string& group, int layer) {
    all.push_back({.parameter = &p, .start = start, .group = group, .layer = layer});
  };
  const auto add_norm = [&](Norm<S>& norm, int layer) {
    std::vector<Parameter<S>*> own;
    norm.collect(own);
    for (Parameter<S>* p : own)
      add(*p, norm_parameter_start(config_->norm, p->name()), "norms", layer);
  };
  const Start plain = matrix_start(*config_, MatrixRole::other, config_->hidden);
  add(embedding_, plain, "embedding", -1);
  add_norm(embedding_norm_, -1);
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    Block& b = blocks_[l];
    add_norm(b.mixer_norm, int(l));
    add_norm(b.mixer_after, int(l));
    if (b.mixer)
      collect_part(*b.mixer, b.mixer_name, int(l), all);
    add_norm(b.feed_norm, int(l));
    add_norm(b.feed_after, int(l));
    collect_feed(b, int(l), all);
  }
  add_norm(final_norm_, -1);
  if (!output_.empty())
    add(output_, plain, "embedding", -1);
  if (!output_bias_.empty())
    add(output_bias_, {}, "embedding", -1);
  for (auto& [name, shared] : shared_->entry)
    collect_part(*shared.part, shared.group, -1, all);
  return all;
}

template <class S>
void Decoder<S>::collect_feed(Block& b, int layer, std::vector<ModelParameter<S>>& all) {
  if (b.feed_mixer)
    collect_part(*b.feed_mixer, b.feed_mixer_name, layer, all);
  std::vector<Parameter<S>*> own;
  if (b.moe)
    b.moe->collect(own);
  else if (b.dense)
    b.dense->collect(own);
  const std::string prefix = concat("layers.", layer, b.moe ? ".moe." : ".dense.");
  for (Parameter<S>* p : own) {
    const std::string name = p->name().substr(prefix.size());
    all.push_back(
        {.parameter = p,
         .start = b.moe ? moe_start(*config_, *b.moe, name, *p) : feed_start(*config_, name, *p),
         .group = b.moe ? moe_group(name) : "dense",
         .layer = layer});
  }
}

template std::vector<ModelParameter<float>> Decoder<float>::inventory();
template std::vector<ModelParameter<double>> Decoder<double>::inventory();
template void Decoder<float>::collect_feed(Block&, int, std::vector<ModelParameter<float>>&);
template void Decoder<double>::collect_feed(Block&, int, std::vector<ModelParameter<double>>&);

}  // namespace moe
