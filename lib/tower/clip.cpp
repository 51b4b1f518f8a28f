#include "lib/tower/clip.h"

#include "lib/core/text.h"
#include "lib/tower/settings.h"

namespace moe {
namespace {

EncoderShape shape_of(const ConfigReader& v) {
  return {.hidden = size_in(v, "hidden_size", 768),
          .width = size_in(v, "intermediate_size", 3072),
          .heads = size_in(v, "num_attention_heads", 12),
          .layers = size_in(v, "num_hidden_layers", 12),
          .eps = v.real("layer_norm_eps", 1e-5),
          .activation = read_activation(v, "hidden_act", "quick_gelu")};
}

}  // namespace

template <class S>
ClipEncoder<S>::ClipEncoder(const ConfigReader& config, TowerTensors<S>& t)
    : backend_(t.backend()) {
  const ConfigReader v = config.has("vision_config") ? config.in("vision_config") : config;
  const EncoderShape s = shape_of(v);
  check_heads(s, v.file());
  patches_ = {.patch = side_in(v, "patch_size", 32),
              .channels = size_in(v, "num_channels", 3),
              .side = side_in(v, "image_size", 224)};
  const int side = patches_.side / patches_.patch;
  if (side < 1)
    v.refuse(concat("patch_size is ", patches_.patch, " in pictures of ", patches_.side));
  length_ = Index(side) * side;
  const std::string at = concat(t.beginning({"vision_model.", ""}, "embeddings.class_embedding"));
  class_row_ = t.array(at + "embeddings.class_embedding", {s.hidden});
  patch_matrix_ = read_patch_matrix(t, at + "embeddings.patch_embedding",
                                    {s.hidden, patches_.channels, patches_.patch, patches_.patch},
                                    Bias::without);
  places_ = t.array(at + "embeddings.position_embedding.weight", {length_ + 1, s.hidden});
  before_ = read_layer_norm(t, at + "pre_layrnorm", s.hidden, s.eps);  // their spelling
  encoder_ = Encoder<S>(t, at + "encoder.layers.", clip_names(), s);
  behind_ = read_layer_norm(t, at + "post_layernorm", s.hidden, s.eps);
}

template <class S>
typename ClipEncoder<S>::States ClipEncoder<S>::states(View<const S> x,
                                                       std::span<const PictureGrid> grids,
                                                       int layers) const {
  check_rows(x, grids, patches_);
  Backend<S>& b = *backend_;
  States out;
  out.patch_embed = patch_matrix_(b, x);
  Array<S> rows =
      with_class_row(b, out.patch_embed.view(), class_row_.view(), length_, ClassRow::first);
  std::vector<int> place_ids;
  std::vector<Index> start{0};
  for (std::size_t n = 0; n < grids.size(); ++n) {
    for (int i = 0; i <= int(length_); ++i)
      place_ids.push_back(i);
    start.push_back(start.back() + length_ + 1);
  }
  b.add(chosen_rows(b, places_.view(), place_ids).view(), rows.view(), 1);
  out.hidden = before_(b, rows);
  encoder_.forward(b, out.hidden.view(), start, nullptr, layers);
  return out;
}

template class ClipEncoder<float>;
template class ClipEncoder<double>;

}  // namespace moe
