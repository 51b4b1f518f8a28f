// MoE-LLaVA on StableLM: one layer of a CLIP encoder, the class row taken off, and products with
// GELU between them. config.json names the encoder and does not describe it: its own config.json
// lies in a folder of that name inside the checkpoint.
#include <charconv>
#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/tower/clip.h"
#include "lib/tower/families.h"
#include "lib/tower/settings.h"

namespace moe {
namespace {

constexpr int picture_id = -200;  // in the ids of a prompt; no id of the vocabulary

// How many products image_projector_type asks for: "linear" one, "mlp2x_gelu" two.
int products_of(const ConfigReader& c) {
  const std::string type = c.text("image_projector_type", "linear");
  if (type == "linear")
    return 1;
  const std::string_view before = "mlp";
  const std::string_view behind = "x_gelu";
  int count = 0;
  if (type.starts_with(before) && type.ends_with(behind)) {
    const char* first = type.data() + before.size();
    const char* last = type.data() + type.size() - behind.size();
    const auto read = std::from_chars(first, last, count);
    if (read.ec != std::errc() || read.ptr != last)
      count = 0;
  }
  if (count < 1 || count > 8) {
    c.refuse(concat("image_projector_type is '", type, "', which is not computed"),
             "linear, or mlpNx_gelu with N products");
  }
  return count;
}

template <class S>
class LlavaPictures final : public PictureTower<S> {
 public:
  LlavaPictures(const ConfigReader& c, ClipEncoder<S> clip, std::vector<Affine<S>> products,
                Backend<S>* backend)
      : backend_(backend),
        clip_(std::move(clip)),
        products_(std::move(products)),
        layers_(layers_in(c, "mm_vision_select_layer", clip_.layers())) {
    const std::string feature = c.text("mm_vision_select_feature", "patch");
    if (feature != "patch" && feature != "cls_patch")
      c.refuse(concat("mm_vision_select_feature is '", feature, "'"), "patch or cls_patch");
    with_class_ = feature == "cls_patch";
  }
  TowerPatches patches() const override {
    return clip_.patches();
  }
  Index rows_of(const PictureGrid& g) const override {
    (void)g;
    return clip_.length() + (with_class_ ? 1 : 0);
  }
  TowerOutput<S> encode(View<const S> x, std::span<const PictureGrid> grids) const override {
    Backend<S>& b = *backend_;
    typename ClipEncoder<S>::States s = clip_.states(x, grids, layers_);
    if (!with_class_)
      s.hidden = without_class_row(b, s.hidden.view(), clip_.length(), ClassRow::first);
    Array<S> rows = products_[0](b, s.hidden);
    for (std::size_t i = 1; i < products_.size(); ++i)
      rows = products_[i](b, activated(b, {Activation::gelu}, rows));
    TowerOutput<S> out;
    out.patch_embed = s.patch_embed.to_host();
    out.last_hidden = s.hidden.to_host();
    out.features = rows.to_host();
    for (const PictureGrid& g : grids)
      out.rows.push_back(rows_of(g));
    return out;
  }

 private:
  Backend<S>* backend_;
  ClipEncoder<S> clip_;
  std::vector<Affine<S>> products_;
  int layers_;
  bool with_class_ = false;
};

template <class S>
std::vector<Affine<S>> read_products(const ConfigReader& c, TowerTensors<S>& t) {
  const std::string at = "model.mm_projector.image_projector";
  const int count = products_of(c);
  const Index out = c.positive("hidden_size");
  Index in = c.positive("mm_hidden_size");
  std::vector<Affine<S>> all;
  for (int i = 0; i < count; ++i) {
    const bool alone = c.text("image_projector_type", "linear") == "linear";
    all.push_back(read_affine(t, alone ? at : concat(at, ".", 2 * i), out, in));
    in = out;
  }
  return all;
}

}  // namespace

template <class S>
Towers<S> moe_llava_towers(const TowerConfig& c, TowerTensors<S>& t) {
  Towers<S> out;
  out.placeholder.picture = picture_id;
  t.part("projector");
  std::vector<Affine<S>> products = read_products(c.root, t);
  const std::string name = c.root.text("mm_image_tower");
  const std::filesystem::path file = c.folder / name / "config.json";
  if (!std::filesystem::exists(file)) {
    if (!c.root.only_sizes()) {
      c.root.refuse(concat("mm_image_tower is '", name, "', and there is no '", file.string(), "'"),
                    "put the encoder's own checkpoint into a folder of that name");
    }
    t.part(concat("vision encoder ('", name, "' is not there)"));
    return out;
  }
  const Json config = read_json(file, {.python_words = true});
  TowerTensors<S> own = t.of(file.parent_path());
  own.part("vision encoder");
  ClipEncoder<S> clip(ConfigReader(config, file.string()), own);
  if (clip.hidden() != c.root.positive("mm_hidden_size")) {
    c.root.refuse(concat("mm_hidden_size is ", c.root.positive("mm_hidden_size"),
                         " and the encoder has ", clip.hidden()));
  }
  out.processor = {.sizing = PictureSizing::middle,
                   .pixels = {.mean = clip_mean, .deviation = clip_deviation},
                   .side = clip.patches().side,
                   .squared = c.root.text("image_aspect_ratio", "") == "pad",
                   .folder = file.parent_path()};
  out.picture =
      std::make_unique<LlavaPictures<S>>(c.root, std::move(clip), std::move(products), t.backend());
  return out;
}
MOE_TOWER_FAMILY(moe_llava_towers)

}  // namespace moe
