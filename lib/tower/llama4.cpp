// Llama 4: patches line by line and a class row behind them, learned places and a rotation by
// column and row (counted from 1, the class row not at all), encoder, blocks of patches side by
// side ("pixel shuffle"), two products with GELU behind each, one product more. Every picture is
// one tile of image_size pixels, or several.
#include <cmath>

#include "lib/core/text.h"
#include "lib/tower/encoder.h"
#include "lib/tower/families.h"
#include "lib/tower/settings.h"

namespace moe {
namespace {

// The class takes the defaults of torch for both: exact GELU and this eps, whatever hidden_act and
// norm_eps say.
constexpr double norm_eps = 1e-5;
const TowerActivation exact_gelu{Activation::gelu};

template <class S>
class Llama4Pictures final : public PictureTower<S> {
 public:
  Llama4Pictures(const TowerConfig& c, TowerTensors<S>& t);
  TowerPatches patches() const override {
    return patches_;
  }
  Index rows_of(const PictureGrid& g) const override {
    (void)g;
    return length_ / patches_.multiple / patches_.multiple;
  }
  TowerOutput<S> encode(View<const S> x, std::span<const PictureGrid>) const override;

 private:
  void read_vision(TowerTensors<S>&, const std::string& at, const ConfigReader& v);
  void read_adapter(TowerTensors<S>&, const std::string& at, const ConfigReader& v);
  Array<S> encoded(View<const S> embedded, std::span<const PictureGrid>) const;

  Backend<S>* backend_;
  TowerPatches patches_;
  Index length_ = 0;  // patches of a picture
  double theta_ = 0;
  Affine<S> patch_matrix_, adapter_up_, adapter_out_, projector_;
  Array<S> class_row_, places_;
  RowNorm<S> before_, behind_;
  Encoder<S> encoder_;
};

EncoderShape shape_of(const ConfigReader& v) {
  return {.hidden = size_in(v, "hidden_size", 768),
          .width = size_in(v, "intermediate_size", 5632),
          .heads = size_in(v, "num_attention_heads", 16),
          .layers = size_in(v, "num_hidden_layers", 34),
          .eps = norm_eps,
          .activation = exact_gelu};
}

// Patches of a side of a block, from the ratio by which sides shrink.
int block_side(const ConfigReader& v, const EncoderShape& s) {
  const double ratio = v.real("pixel_shuffle_ratio", 0.5);
  const int side = ratio > 0 && ratio <= 1 ? int(std::lround(1 / ratio)) : 0;
  if (side < 1 || std::abs(ratio * side - 1) > 1e-6)
    v.refuse(concat("pixel_shuffle_ratio is ", ratio, " and must be 1 over a whole number"));
  if (s.width != s.hidden * side * side) {
    v.refuse(concat("intermediate_size is ", s.width, ", and a block of ", side, " x ", side,
                    " patches has ", s.hidden * side * side,
                    " numbers: the class takes it for both"));
  }
  return side;
}

template <class S>
Llama4Pictures<S>::Llama4Pictures(const TowerConfig& c, TowerTensors<S>& t)
    : backend_(t.backend()) {
  const ConfigReader v = object_in(c.root, "vision_config");
  const std::string at = t.beginning({"", "model."}, "vision_model.class_embedding");
  t.part("vision encoder");
  read_vision(t, at + "vision_model.", v);
  t.part("projector");
  projector_ = read_affine(t, at + "multi_modal_projector.linear_1", text_width(c.root),
                           size_in(v, "vision_output_dim", 7680), Bias::without);
}

template <class S>
void Llama4Pictures<S>::read_vision(TowerTensors<S>& t, const std::string& at,
                                    const ConfigReader& v) {
  const EncoderShape s = shape_of(v);
  check_heads(s, v.file());
  patches_ = {.patch = side_in(v, "patch_size", 14),
              .channels = size_in(v, "num_channels", 3),
              .side = side_in(v, "image_size", 448)};
  const int side = patches_.side / patches_.patch;
  if (side < 1)
    v.refuse(concat("patch_size is ", patches_.patch, " in pictures of ", patches_.side));
  length_ = Index(side) * side;
  patches_.multiple = block_side(v, s);
  theta_ = vision_theta(v, "default", s);
  patch_matrix_ =
      read_affine(t, at + "patch_embedding.linear", s.hidden, patches_.numbers(), Bias::without);
  class_row_ = t.array(at + "class_embedding", {s.hidden});
  places_ = t.array(at + "positional_embedding_vlm", {length_ + 1, s.hidden});
  before_ = read_layer_norm(t, at + "layernorm_pre", s.hidden, norm_eps);
  behind_ = read_layer_norm(t, at + "layernorm_post", s.hidden, norm_eps);
  encoder_ = Encoder<S>(t, at + "model.layers.",
                        {.first_norm = "input_layernorm",
                         .query = "self_attn.q_proj",
                         .key = "self_attn.k_proj",
                         .value = "self_attn.v_proj",
                         .out = "self_attn.o_proj",
                         .second_norm = "post_attention_layernorm",
                         .up = "mlp.fc1",
                         .down = "mlp.fc2"},
                        s);
  read_adapter(t, at + "vision_adapter.mlp.", v);
}

template <class S>
void Llama4Pictures<S>::read_adapter(TowerTensors<S>& t, const std::string& at,
                                     const ConfigReader& v) {
  const int middle = size_in(v, "projector_input_dim", 4096);
  const int out = size_in(v, "projector_output_dim", 4096);
  const int said = size_in(v, "vision_output_dim", 7680);
  if (middle != out || out != said) {
    v.refuse(concat("projector_input_dim is ", middle, ", projector_output_dim ", out,
                    " and vision_output_dim ", said,
                    ": the class can only compute with three equal ones"));
  }
  adapter_up_ = read_affine(t, at + "fc1", middle, encoder_.shape().width, Bias::without);
  adapter_out_ = read_affine(t, at + "fc2", out, out, Bias::without);
}

// From the patch matrix to the norm behind the encoder, the class row taken off.
template <class S>
Array<S> Llama4Pictures<S>::encoded(View<const S> embedded,
                                    std::span<const PictureGrid> grids) const {
  Backend<S>& b = *backend_;
  Array<S> rows = with_class_row(b, embedded, class_row_.view(), length_, ClassRow::last);
  std::vector<PatchPlace> places;
  std::vector<int> place_ids;
  std::vector<Index> start{0};
  for (const PictureGrid& g : grids) {
    for (const PatchPlace& p : places_of({&g, 1}, 1))
      places.push_back(p);
    places.push_back({-1, -1});  // counted from 1, this is position 0: the class row is not turned
    for (int i = 0; i <= int(length_); ++i)
      place_ids.push_back(i);
    start.push_back(start.back() + length_ + 1);
  }
  b.add(chosen_rows(b, places_.view(), place_ids).view(), rows.view(), 1);
  Array<S> x = before_(b, rows);
  const PatchRotation<S> rotation(b, patch_angles(RotationRule::neighbours, places,
                                                  int(x.cols()) / encoder_.shape().heads, theta_));
  encoder_.forward(b, x.view(), start, &rotation);
  return without_class_row(b, behind_(b, x).view(), length_, ClassRow::last);
}

template <class S>
TowerOutput<S> Llama4Pictures<S>::encode(View<const S> x,
                                         std::span<const PictureGrid> grids) const {
  check_rows(x, grids, patches_);
  Backend<S>& b = *backend_;
  const Array<S> embedded = patch_matrix_(b, x);
  const Array<S> rows = encoded(embedded.view(), grids);
  const int side = patches_.multiple;
  const Array<S> blocks = chosen_rows(b, rows.view(), block_order(grids, side, side));
  const Array<S> middle =
      activated(b, exact_gelu, adapter_up_(b, joined(blocks, Index(side) * side)));
  const Array<S> last = activated(b, exact_gelu, adapter_out_(b, middle));
  TowerOutput<S> out;
  out.patch_embed = embedded.to_host();
  out.last_hidden = last.to_host();
  out.features = projector_(b, last).to_host();
  for (const PictureGrid& g : grids)
    out.rows.push_back(rows_of(g));
  return out;
}

}  // namespace

template <class S>
Towers<S> llama4_towers(const TowerConfig& c, TowerTensors<S>& t) {
  Towers<S> out;
  const auto usual = id_in(c.root, "image_token_index", 200092);
  out.placeholder.picture = id_in(c.root, "image_token_id", usual);
  if (c.root.has("boi_token_index"))
    ids_around(c.root, "boi_token_index", "eoi_token_index", out.before, out.behind);
  else
    ids_around(c.root, "boi_token_id", "eoi_token_id", out.before, out.behind);
  out.picture = std::make_unique<Llama4Pictures<S>>(c, t);
  out.processor = {.sizing = PictureSizing::tiles,
                   .pixels = {.filter = ResizeFilter::linear, .in_bf16 = true},
                   .side = out.picture->patches().side,
                   .folder = c.folder};
  out.tile_words = {"<|image|>", "<|tile_x_separator|>", "<|tile_y_separator|>"};
  return out;
}
MOE_TOWER_FAMILY(llama4_towers)

}  // namespace moe
