#include "lib/tower/qwen3_visual.h"

#include <algorithm>
#include <cmath>

#include "lib/core/text.h"
#include "lib/tower/places.h"
#include "lib/tower/settings.h"

namespace moe {
namespace {

constexpr double norm_eps = 1e-6;  // the classes' own, in no configuration

EncoderShape shape_of(const ConfigReader& v) {
  const EncoderShape s{.hidden = size_in(v, "hidden_size", 1152),
                       .width = size_in(v, "intermediate_size", 4304),
                       .heads = size_in(v, "num_heads", 16),
                       .layers = size_in(v, "depth", 27),
                       .eps = norm_eps,
                       .activation = read_activation(v, "hidden_act", "gelu_pytorch_tanh")};
  check_heads(s, v.file());
  return s;
}

}  // namespace

template <class S>
QwenPictures<S>::QwenPictures(const ConfigReader& v, TowerTensors<S>& t, const std::string& at,
                              const MergerNames& names, Index width)
    : backend_(t.backend()) {
  const EncoderShape s = shape_of(v);
  const int merge = size_in(v, "spatial_merge_size", 2);
  patches_ = {.patch = side_in(v, "patch_size", 16),
              .channels = size_in(v, "in_channels", 3),
              .times = side_in(v, "temporal_patch_size", 2),
              .merge = merge,
              .multiple = merge};
  theta_ = vision_theta(v, "axial", s);
  const int cells = size_in(v, "num_position_embeddings", 2304);
  side_ = int(std::sqrt(double(cells)));
  const Index out = size_in(v, "out_hidden_size", 3584);
  if (out != width) {
    v.refuse(concat("out_hidden_size is ", out, " and the language model has vectors of ", width));
  }
  patch_matrix_ = read_patch_matrix(
      t, at + "patch_embed.proj",
      {s.hidden, patches_.channels, patches_.times, patches_.patch, patches_.patch});
  places_ = t.matrix(at + "pos_embed.weight", {cells, s.hidden});
  encoder_ = Encoder<S>(t, at + "blocks.", block_names("mlp.linear_fc1", "mlp.linear_fc2"), s);
  merger_ = read_merger(t, at + "merger.", names, false, out);
  deep_layers_ = v.has("deepstack_visual_indexes") ? v.wholes("deepstack_visual_indexes")
                                                   : std::vector<int>{8, 16, 24};
  for (std::size_t i = 0; i < deep_layers_.size(); ++i)
    deep_.push_back(read_merger(t, concat(at, names.list, ".", i, "."), names, true, out));
}

template <class S>
typename QwenPictures<S>::Merger QwenPictures<S>::read_merger(TowerTensors<S>& t,
                                                              const std::string& name,
                                                              const MergerNames& names,
                                                              bool joined_norm, Index out) const {
  const Index hidden = encoder_.shape().hidden;
  const Index block = hidden * patches_.merge * patches_.merge;
  Merger m;
  m.joined_norm = joined_norm;
  m.norm = read_layer_norm(t, name + names.norm, joined_norm ? block : hidden, norm_eps);
  m.layers = {read_affine(t, name + names.first, block, block),
              read_affine(t, name + names.second, out, block),
              {Activation::gelu}};
  return m;
}

template <class S>
Array<S> QwenPictures<S>::merged(const Merger& m, View<const S> x) const {
  const Index block = Index(patches_.merge) * patches_.merge;
  const Array<S> rows = m.norm(*backend_, m.joined_norm ? joined(x, block) : x);
  return m.layers(*backend_, m.joined_norm ? rows.view() : joined(rows, block));
}

template <class S>
TowerOutput<S> QwenPictures<S>::encode(View<const S> x, std::span<const PictureGrid> grids) const {
  check_rows(x, grids, patches_);
  Backend<S>& b = *backend_;
  const std::vector<PatchPlace> places = places_of(grids, patches_.merge);
  TowerOutput<S> out;
  Array<S> rows = patch_matrix_(b, x);
  out.patch_embed = rows.to_host();
  const Matrix<S> learned =
      vectors_of_places(PlaceRule::corners, places_, side_, grids, patches_.merge);
  b.add(Array<S>(b, learned.view()).view(), rows.view(), 1);
  const EncoderShape& s = encoder_.shape();
  const PatchRotation<S> rotation(
      b, patch_angles(RotationRule::halves, places, int(s.hidden / s.heads), theta_));
  const std::vector<Index> start = frame_starts(grids);
  encoder_.forward(b, rows.view(), start, &rotation, [&](int layer, View<const S> now) {
    const auto found = std::ranges::find(deep_layers_, layer);
    if (found != deep_layers_.end()) {
      const Merger& m = deep_[std::size_t(found - deep_layers_.begin())];
      out.deepstack.push_back(merged(m, now).to_host());
    }
  });
  out.last_hidden = rows.to_host();
  out.features = merged(merger_, rows.view()).to_host();
  for (const PictureGrid& g : grids)
    out.rows.push_back(rows_of(g));
  return out;
}

template class QwenPictures<float>;
template class QwenPictures<double>;

}  // namespace moe
