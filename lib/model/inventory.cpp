// Every parameter of a decoder in its fixed order, with what is known of it: a mixer says it of its
// own, the rest is said here.
#include <cmath>

#include "lib/core/error.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/model/mixer_type.h"
#include "lib/model/mixers/plain_attention.h"
#include "lib/router/router.h"

namespace moe {
namespace {

// Of a MoE layer; `name` is the parameter's inside the layer: "router.weight", "experts.down".
std::string moe_group(const std::string& name) {
  if (name == "output_bias")
    return "latent";  // as what stands around experts
  if (name.starts_with("attention."))
    return mixers().names().front();
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
  if (name.starts_with("attention."))
    return matrix_start(c, MatrixRole::mixer, fan_in);
  const bool output = name.ends_with("down") || name == "latent.out";
  return matrix_start(c, output ? MatrixRole::feed_output : MatrixRole::other, fan_in);
}

template <class S>
Start moe_start(const ModelConfig& c, const MoeLayer<S>& layer, const std::string& name,
                const Parameter<S>& p) {
  if (name == "router.residual_weight")
    return {};
  if (name == "router.expert_scale")
    return {.value = 1};
  for (const Projection& product : layer.router().projections()) {
    if (product.zero_init && name == "router." + product.name)
      return {};
    if (product.cosine && name == "router." + product.scale_name)
      return {.value = product.scale_start};
  }
  return feed_start(c, name, p);
}

Start norm_parameter_start(NormKind kind, const std::string& name) {
  if (name.ends_with("router_norm"))
    return {.value = 1};  // an RMSNorm whatever the others are
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

template <class S>
void collect_norms(const std::vector<Norm<S>*>& norms, NormKind kind, int layer,
                   std::vector<ModelParameter<S>>& all) {
  std::vector<Parameter<S>*> own;
  for (Norm<S>* norm : norms)
    norm->collect(own);
  for (Parameter<S>* p : own) {
    all.push_back({.parameter = p,
                   .start = norm_parameter_start(kind, p->name()),
                   .group = "norms",
                   .layer = layer});
  }
}

template <class S>
std::vector<Norm<S>*> feed_norms(typename Decoder<S>::Block& b) {
  std::vector<Norm<S>*> out{&b.feed_norm, &b.feed_after};
  if (b.beside) {
    for (Norm<S>* norm : b.beside->norms())
      out.push_back(norm);
  }
  return out;
}

template <class S>
void collect_cross(typename Decoder<S>::Block& b, NormKind kind, int layer,
                   std::vector<ModelParameter<S>>& all) {
  if (!b.cross)
    return;
  collect_norms<S>({&b.cross_norm}, kind, layer, all);
  collect_part(*b.cross, "cross_attention", layer, all);
}

template <class S>
void collect_mixers(typename Decoder<S>::Block& b, NormKind kind, int layer,
                    std::vector<ModelParameter<S>>& all) {
  collect_norms<S>({&b.mixer_norm, &b.mixer_after}, kind, layer, all);
  if (b.mixer)
    collect_part(*b.mixer, b.mixer_name, layer, all);
  collect_cross<S>(b, kind, layer, all);
}

template <class S>
void collect_streams(std::optional<HyperConnection<S>>& streams, int layer,
                     std::vector<ModelParameter<S>>& all) {
  if (streams)
    collect_part(*streams, "streams", layer, all);
}

template <class S>
void collect_projectors(std::vector<SignalProjector<S>>& projectors, const ModelConfig& c,
                        std::vector<ModelParameter<S>>& all) {
  for (SignalProjector<S>& p : projectors)
    p.collect(c, all);
}

constexpr const char* table = "embedding";  // the group of a row for each token

}  // namespace

template <class S>
std::vector<ModelParameter<S>> Decoder<S>::inventory() {
  std::vector<ModelParameter<S>> all;
  const auto add = [&](Parameter<S>& p, const Start& start, const std::string& group, int layer) {
    if (!p.empty()) {
      all.push_back({.parameter = &p,
                     .start = start,
                     .only_products = group == table,
                     .group = group,
                     .layer = layer});
    }
  };
  const NormKind kind = config_->norm;
  const Start plain = matrix_start(*config_, MatrixRole::other, config_->hidden);
  add(embedding_, plain, table, -1);
  add(encoder_embedding_, plain, table, -1);
  collect_projectors(projector_, *config_, all);
  collect_norms<S>({&embedding_norm_}, kind, -1, all);
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    Block& b = blocks_[l];
    const int layer = int(l);
    collect_mixers<S>(b, kind, layer, all);
    collect_norms(feed_norms<S>(b), kind, layer, all);
    add(b.scale, {.value = 1}, "norms", layer);
    collect_streams<S>(b.mixer_streams, layer, all);
    collect_streams<S>(b.feed_streams, layer, all);
    collect_feed(b, layer, all);
  }
  collect_norms<S>({&encoder_norm_, &final_norm_}, kind, -1, all);
  collect_streams<S>(head_streams_, -1, all);
  add(output_, plain, table, -1);
  add(output_bias_, {}, table, -1);
  for (auto& [name, shared] : shared_->entry)
    collect_part(*shared.part, shared.group, -1, all);
  return all;
}

template <class S>
void Decoder<S>::collect_feed(Block& b, int layer, std::vector<ModelParameter<S>>& all) {
  if (b.feed_mixer)
    collect_part(*b.feed_mixer, b.feed_mixer_name, layer, all);
  const auto add = [&](auto& part, const char* place, const auto& start, const auto& group,
                       const auto& is_body) {
    std::vector<Parameter<S>*> own;
    part.collect(own);
    const std::string prefix = concat("layers.", layer, place);
    for (Parameter<S>* p : own) {
      const std::string name = p->name().substr(prefix.size());
      all.push_back({.parameter = p,
                     .start = start(name, *p),
                     .only_products = is_body(name),
                     .group = group(name),
                     .layer = layer});
    }
  };
  if (b.moe) {
    const auto start = [&](const std::string& name, const Parameter<S>& p) {
      return moe_start(*config_, *b.moe, name, p);
    };
    add(*b.moe, ".moe.", start, moe_group, [](const std::string& name) {
      return name.starts_with("experts.") || name.starts_with("shared.");
    });
  }
  if (b.dense) {
    const auto start = [&](const std::string& name, const Parameter<S>& p) {
      return feed_start(*config_, name, p);
    };
    add(
        *b.dense, ".dense.", start, [](const std::string&) { return std::string("dense"); },
        [](const std::string&) { return true; });
  }
}

template std::vector<ModelParameter<float>> Decoder<float>::inventory();
template std::vector<ModelParameter<double>> Decoder<double>::inventory();
template void Decoder<float>::collect_feed(Block&, int, std::vector<ModelParameter<float>>&);
template void Decoder<double>::collect_feed(Block&, int, std::vector<ModelParameter<double>>&);

}  // namespace moe
