// ERNIE 4.5 VL: an encoder without learned places, and a resampler: blocks of patches side by side,
// then pairs of frames side by side (a still picture with itself), products with GELU and a norm
// after each, one product more and an RMSNorm.
#include <cmath>

#include "lib/core/text.h"
#include "lib/tower/encoder.h"
#include "lib/tower/families.h"
#include "lib/tower/settings.h"

namespace moe {
namespace {

EncoderShape shape_of(const ConfigReader& v) {
  const EncoderShape s{.hidden = size_in(v, "hidden_size", 1280),
                       .width = size_in(v, "intermediate_size", 5120),
                       .heads = size_in(v, "num_heads", 16),
                       .layers = size_in(v, "depth", 32),
                       .eps = v.real("rms_norm_eps", 1e-6),
                       .activation = read_activation(v, "hidden_act", "quick_gelu")};
  check_heads(s, v.file());
  return s;
}

// Two products with GELU between them and a norm behind.
template <class S>
struct NormedLayers {
  TwoLayers<S> layers;
  RowNorm<S> norm;

  Array<S> operator()(Backend<S>& b, View<const S> x) const {
    return norm(b, layers(b, x));
  }
};
template <class S>
NormedLayers<S> read_normed(TowerTensors<S>& t, const std::string& at, Index out, Index in,
                            double eps) {
  return {
      {read_affine(t, at + ".0", out, in), read_affine(t, at + ".2", out, out), {Activation::gelu}},
      read_layer_norm(t, at + ".3", out, eps)};
}

// Rows of the first and of the second frame of every pair; the last of an odd number of frames is
// left out, as the class does.
struct FramePairs {
  std::vector<int> first, second;
  std::vector<Index> rows;  // of each picture
};
FramePairs frame_pairs(std::span<const PictureGrid> grids, int block) {
  FramePairs out;
  int start = 0;
  for (const PictureGrid& g : grids) {
    const int area = int(g.area()) / block;
    const int step = g.times > 1 ? 1 : 0;
    Index rows = 0;
    for (int f = 0; f + step < g.times; f += 2) {
      for (int i = 0; i < area; ++i) {
        out.first.push_back(start + f * area + i);
        out.second.push_back(start + (f + step) * area + i);
      }
      rows += area;
    }
    out.rows.push_back(rows);
    start += g.times * area;
  }
  return out;
}

template <class S>
class ErniePictures final : public PictureTower<S> {
 public:
  ErniePictures(const TowerConfig& c, TowerTensors<S>& t);
  TowerPatches patches() const override {
    return patches_;
  }
  Index rows_of(const PictureGrid& g) const override {
    return frame_pairs({&g, 1}, patches_.merge * patches_.merge).rows[0];
  }
  TowerOutput<S> encode(View<const S> x, std::span<const PictureGrid>) const override;

 private:
  void read_resampler(TowerTensors<S>&, const std::string& at, const ConfigReader& root);
  Array<S> resampled(View<const S> x, const FramePairs&) const;

  Backend<S>* backend_;
  TowerPatches patches_;
  double theta_ = 0;
  Affine<S> patch_matrix_, product_;
  Encoder<S> encoder_;
  RowNorm<S> norm_, after_norm_;
  NormedLayers<S> blocks_, pairs_;
};

template <class S>
ErniePictures<S>::ErniePictures(const TowerConfig& c, TowerTensors<S>& t) : backend_(t.backend()) {
  const ConfigReader v = object_in(c.root, "vision_config");
  const EncoderShape s = shape_of(v);
  const int merge = size_in(v, "spatial_merge_size", 2);
  patches_ = {.patch = side_in(v, "patch_size", 14),
              .channels = size_in(v, "in_channels", 3),
              .merge = merge,
              .multiple = merge};
  theta_ = vision_theta(v, "axial", s);
  if (size_in(v, "temporal_merge_size", 2) != 2)
    v.refuse("temporal_merge_size is not 2, and the class pairs frames whatever it says");
  const std::string before = t.beginning({"model.", ""}, "vision_model.patch_embed.proj.weight");
  const std::string at = before + "vision_model.";
  t.part("vision encoder");
  patch_matrix_ =
      read_affine(t, at + "patch_embed.proj", s.hidden, patches_.numbers(), Bias::without);
  encoder_ = Encoder<S>(t, at + "blocks.", block_names("mlp.fc1", "mlp.fc2"), s);
  norm_ = read_layer_norm(t, at + "ln", s.hidden, s.eps);
  t.part("projector");
  read_resampler(t, before + "resampler_model.", c.root);
}

template <class S>
void ErniePictures<S>::read_resampler(TowerTensors<S>& t, const std::string& at,
                                      const ConfigReader& root) {
  const EncoderShape& s = encoder_.shape();
  const Index block = s.hidden * patches_.merge * patches_.merge;
  const Index width = text_width(root);
  blocks_ = read_normed(t, at + "spatial_linear", block, block, s.eps);
  pairs_ = read_normed(t, at + "temporal_linear", block, 2 * block, s.eps);
  product_ = read_affine(t, at + "mlp", width, block);
  after_norm_ =
      read_rms_norm(t, at + "after_norm", width, root.in("text_config").real("rms_norm_eps", 1e-5));
}

template <class S>
Array<S> ErniePictures<S>::resampled(View<const S> x, const FramePairs& pairs) const {
  Backend<S>& b = *backend_;
  const Array<S> rows = blocks_(b, joined(x, Index(patches_.merge) * patches_.merge));
  const Array<S> first = chosen_rows(b, rows.view(), pairs.first);
  const Array<S> second = chosen_rows(b, rows.view(), pairs.second);
  Array<S> beside(b, first.rows(), 2 * first.cols());
  b.join_heads(first.view(), second.view(), 1, beside.view());
  return after_norm_(b, product_(b, pairs_(b, beside.view())));
}

template <class S>
TowerOutput<S> ErniePictures<S>::encode(View<const S> x, std::span<const PictureGrid> grids) const {
  check_rows(x, grids, patches_);
  Backend<S>& b = *backend_;
  const std::vector<PatchPlace> places = places_of(grids, patches_.merge);
  TowerOutput<S> out;
  Array<S> rows = patch_matrix_(b, x);
  out.patch_embed = rows.to_host();
  const EncoderShape& s = encoder_.shape();
  const PatchRotation<S> rotation(
      b, patch_angles(RotationRule::halves, places, int(s.hidden / s.heads), theta_));
  const std::vector<Index> start = frame_starts(grids);
  encoder_.forward(b, rows.view(), start, &rotation);
  const Array<S> last = norm_(b, rows);
  out.last_hidden = last.to_host();
  const FramePairs pairs = frame_pairs(grids, patches_.merge * patches_.merge);
  out.features = resampled(last.view(), pairs).to_host();
  out.rows = pairs.rows;
  return out;
}

}  // namespace

template <class S>
Towers<S> ernie_vl_towers(const TowerConfig& c, TowerTensors<S>& t) {
  Towers<S> out;
  out.placeholder.picture = id_in(c.root, "image_token_id", 100295);
  out.placeholder.video = id_in(c.root, "video_token_id", 103367);
  ids_around(c.root, "image_start_token_id", "image_end_token_id", out.before, out.behind);
  out.frame_routes = true;
  out.three_axes = true;
  const PixelRule pixels{.mean = clip_mean, .deviation = clip_deviation};
  out.processor = {.pixels = pixels, .most_pixels = 28 * 28 * 6177, .folder = c.folder};
  out.clips = {.style = ClipStyle::paired,
               .pixels = pixels,
               .fewest_frames = 16,
               .most_frames = 180,
               .fewest_pixels = 28 * 28 * 299,
               .most_pixels = 28 * 28 * 1196,
               .folder = c.folder};
  ids_around(c.root, "video_start_token_id", "video_end_token_id", out.clip_before,
             out.clip_behind);
  out.picture = std::make_unique<ErniePictures<S>>(c, t);
  return out;
}
MOE_TOWER_FAMILY(ernie_vl_towers)

}  // namespace moe
