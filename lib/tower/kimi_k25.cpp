// Kimi K2.5: patches line by line, learned places read between the cells of a square table by a
// cubic, a wave for each frame of a video, rotation by column and row in turn, attention over the
// whole clip; the mean over its frames, blocks of patches side by side, a norm and two products.
#include <algorithm>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/tower/encoder.h"
#include "lib/tower/families.h"
#include "lib/tower/places.h"
#include "lib/tower/settings.h"

namespace moe {
namespace {

constexpr double norm_eps = 1e-5;  // the class's own, in no configuration

EncoderShape shape_of(const ConfigReader& v) {
  const EncoderShape s{.hidden = size_in(v, "hidden_size", 1152),
                       .width = size_in(v, "intermediate_size", 4304),
                       .heads = size_in(v, "num_attention_heads", 16),
                       .layers = size_in(v, "num_hidden_layers", 27),
                       .eps = norm_eps,
                       .activation = read_activation(v, "hidden_act", "gelu_pytorch_tanh")};
  check_heads(s, v.file());
  return s;
}

template <class S>
class KimiPictures final : public PictureTower<S> {
 public:
  KimiPictures(const TowerConfig& c, TowerTensors<S>& t);
  TowerPatches patches() const override {
    return patches_;
  }
  Index rows_of(const PictureGrid& g) const override {
    return g.area() / tall_ / wide_;
  }
  TowerOutput<S> encode(View<const S> x, std::span<const PictureGrid>) const override;

 private:
  void read_settings(const ConfigReader& v);
  void read_vision(TowerTensors<S>&, const std::string& at, const ConfigReader& v);
  void read_projector(TowerTensors<S>&, const std::string& at, const TowerConfig&);
  Array<S> embedded(View<const S> x, std::span<const PictureGrid>) const;
  Array<S> mean_of_frames(View<const S> x, std::span<const PictureGrid>) const;

  Backend<S>* backend_;
  TowerPatches patches_;
  int side_ = 0;         // of the table of places
  int most_frames_ = 0;  // of a video
  int tall_ = 1;
  int wide_ = 1;  // patches of a block
  double theta_ = 0;
  std::string file_;
  Affine<S> patch_matrix_;
  Matrix<S> places_;
  Encoder<S> encoder_;
  RowNorm<S> norm_, before_;
  TwoLayers<S> projector_;
};

template <class S>
KimiPictures<S>::KimiPictures(const TowerConfig& c, TowerTensors<S>& t)
    : backend_(t.backend()), file_(c.root.file()) {
  t.part("vision encoder");
  const ConfigReader v = object_in(c.root, "vision_config");
  read_settings(v);
  read_vision(t, "vision_tower.", v);
  t.part("projector");
  read_projector(t, "mm_projector.", c);
}

template <class S>
void KimiPictures<S>::read_settings(const ConfigReader& v) {
  const std::vector<int> block =
      v.has("merge_kernel_size") ? v.wholes("merge_kernel_size") : std::vector<int>{2, 2};
  if (block.size() != 2 || block[0] < 1 || block[1] < 1)
    v.refuse("merge_kernel_size is not two numbers from 1");
  tall_ = block[0];
  wide_ = block[1];
  patches_ = {.patch = side_in(v, "patch_size", 14), .multiple = std::lcm(tall_, wide_)};
  theta_ = vision_theta(v, "axial", shape_of(v));
  side_ = size_in(v, "pos_emb_height", 64);
  if (size_in(v, "pos_emb_width", 64) != side_) {
    v.refuse(concat("pos_emb_height is ", side_, " and pos_emb_width ", v.whole("pos_emb_width"),
                    ": the class can only read a square table of places"));
  }
  most_frames_ = size_in(v, "pos_emb_time", 4);
}

template <class S>
void KimiPictures<S>::read_vision(TowerTensors<S>& t, const std::string& at,
                                  const ConfigReader& v) {
  const EncoderShape s = shape_of(v);
  // transformers 5.24 writes this one below the encoder
  const std::string patches = t.beginning({at, at + "encoder."}, "patch_embed.proj.weight");
  patch_matrix_ = read_patch_matrix(t, patches + "patch_embed.proj",
                                    {s.hidden, patches_.channels, patches_.patch, patches_.patch});
  const Matrix<S> table = t.matrix(at + "patch_embed.pos_emb.weight", {side_, side_, s.hidden});
  places_ = Matrix<S>(table.size() / s.hidden, s.hidden);
  std::ranges::copy(table.flat(), places_.data());
  encoder_ = Encoder<S>(t, at + "encoder.blocks.",
                        {.first_norm = "norm0",
                         .joint = "wqkv",
                         .out = "wo",
                         .second_norm = "norm1",
                         .up = "mlp.fc0",
                         .down = "mlp.fc1"},
                        s);
  norm_ = read_layer_norm(t, at + "encoder.final_layernorm", s.hidden, norm_eps);
}

template <class S>
void KimiPictures<S>::read_projector(TowerTensors<S>& t, const std::string& at,
                                     const TowerConfig& c) {
  const Index hidden = encoder_.shape().hidden;
  const int said = size_in(c.root, "projection_hidden_size", 1152);
  if (said != hidden)
    c.root.refuse(concat("projection_hidden_size is ", said, " and the encoder has ", hidden));
  const Index block = hidden * tall_ * wide_;
  // and this one below the model
  const std::string norm = t.beginning({at, "model." + at}, "pre_norm.weight");
  before_ =
      read_layer_norm(t, norm + "pre_norm", hidden, c.root.real("projection_layer_norm_eps", 1e-5));
  projector_ = {read_affine(t, at + "proj.0", block, block),
                read_affine(t, at + "proj.2", text_width(c.root), block),
                {Activation::gelu}};
}

template <class S>
Array<S> KimiPictures<S>::embedded(View<const S> x, std::span<const PictureGrid> grids) const {
  Backend<S>& b = *backend_;
  Array<S> rows = patch_matrix_(b, x);
  Matrix<S> learned = vectors_of_places(PlaceRule::halves, places_, side_, grids, 1);
  Index row = 0;
  for (const PictureGrid& g : grids) {
    if (g.times > most_frames_) {
      throw Error(Exit::input, concat(file_, ": a video of ", g.times,
                                      " frames, and pos_emb_time is ", most_frames_));
    }
    for (int f = 0; f < g.times; ++f) {
      const Matrix<S> wave = vector_of_time<S>(f, learned.cols());
      for (Index i = 0; i < g.area(); ++i, ++row) {
        for (Index h = 0; g.times > 1 && h < learned.cols(); ++h)
          learned(row, h) += wave(0, h);
      }
    }
  }
  b.add(Array<S>(b, learned.view()).view(), rows.view(), 1);
  return rows;
}

// Frames of a clip become one, whose patches come block by block.
template <class S>
Array<S> KimiPictures<S>::mean_of_frames(View<const S> x,
                                         std::span<const PictureGrid> grids) const {
  Backend<S>& b = *backend_;
  const Array<S> by_block = chosen_rows(b, x, block_order(grids, tall_, wide_));
  Index all = 0;
  for (const PictureGrid& g : grids)
    all += g.area();
  Array<S> out = Array<S>::zeros(b, all, x.cols);
  Index from = 0;
  Index to = 0;
  for (const PictureGrid& g : grids) {
    for (int f = 0; f < g.times; ++f) {
      b.add(by_block.view().slice(from, g.area()), out.view().slice(to, g.area()),
            S(1) / S(g.times));
      from += g.area();
    }
    to += g.area();
  }
  return out;
}

template <class S>
TowerOutput<S> KimiPictures<S>::encode(View<const S> x, std::span<const PictureGrid> grids) const {
  check_rows(x, grids, patches_);
  Backend<S>& b = *backend_;
  TowerOutput<S> out;
  Array<S> rows = embedded(x, grids);
  out.patch_embed = rows.to_host();
  const EncoderShape& s = encoder_.shape();
  const std::vector<PatchPlace> places = places_of(grids, 1);
  const PatchRotation<S> rotation(
      b, patch_angles(RotationRule::alternating, places, int(s.hidden / s.heads), theta_));
  const std::vector<Index> start = clip_starts(grids);
  encoder_.forward(b, rows.view(), start, &rotation);
  const Array<S> last = norm_(b, rows);
  out.last_hidden = last.to_host();
  const Array<S> normed = before_(b, mean_of_frames(last.view(), grids));
  out.features = projector_(b, joined(normed, Index(tall_) * wide_)).to_host();
  for (const PictureGrid& g : grids)
    out.rows.push_back(rows_of(g));
  return out;
}

}  // namespace

template <class S>
Towers<S> kimi_k25_towers(const TowerConfig& c, TowerTensors<S>& t) {
  Towers<S> out;
  out.placeholder.picture = id_in(c.root, "image_token_id", 163605);
  out.placeholder.video = id_in(c.root, "video_token_id", 163840);
  ids_around(c.root, "vision_start_token_id", "vision_end_token_id", out.before, out.behind);
  out.processor = {.sizing = PictureSizing::padded, .folder = c.folder};
  out.clips = {.style = ClipStyle::chunked, .rate = 2, .most_frames = 1 << 20, .folder = c.folder};
  out.picture = std::make_unique<KimiPictures<S>>(c, t);
  return out;
}
MOE_TOWER_FAMILY(kimi_k25_towers)

}  // namespace moe
