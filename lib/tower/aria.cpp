// Aria: an encoder like SigLIP's whose places are cells of a square table, one of its layers
// without the norm behind the last, and learned queries, as many as config.json says for so many
// patches, that look at its rows once; two products with tanh GELU. A picture fills the corner of a
// square; what is black there is no row here: the class masks it, so that no other row sees it.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/tower/encoder.h"
#include "lib/tower/families.h"
#include "lib/tower/places.h"
#include "lib/tower/settings.h"

namespace moe {
namespace {

constexpr double projector_eps = 1e-5;  // torch's own, which the class takes
constexpr int processor_side = 980, processor_shortest = 336;

// Patches of a picture to queries.
std::map<Index, Index> queries_of(const ConfigReader& c) {
  if (!c.has("projector_patch_to_query_dict"))
    return {{1225, 128}, {4900, 256}};
  const Json& said = c.at("projector_patch_to_query_dict");
  std::map<Index, Index> out;
  for (const auto& [patches, queries] : said.items()) {
    const bool digits = !patches.empty() && patches.size() < 10 &&
                        std::ranges::all_of(patches, [](char d) { return d >= '0' && d <= '9'; });
    if (!digits || !queries.is_number_integer() || queries < 1 || queries > 1'000'000)
      c.refuse(concat("projector_patch_to_query_dict holds ", patches, ": ", queries.dump()));
    out[std::stol(patches)] = queries.template get<Index>();
  }
  if (out.empty())
    c.refuse("projector_patch_to_query_dict is empty");
  return out;
}

// Learned rows that look at those of a picture.
template <class S>
class QueryProjector {
 public:
  QueryProjector(const ConfigReader& c, TowerTensors<S>& t, const std::string& at, int heads,
                 Index hidden);
  // how many rows a picture of so many patches becomes
  Index rows_for(Index patches) const {
    const auto found = queries_.find(patches);
    return found == queries_.end() ? 0 : std::min(found->second, most_);
  }
  // (all queries, D): counts[n] of picture n; `start` says where pictures begin in x
  Array<S> operator()(Backend<S>&, View<const S> x, std::span<const Index> start,
                      std::span<const Index> counts) const;

 private:
  Array<S> look(Backend<S>&, View<const S> queries, View<const S> x,
                std::span<const Index> query_start, std::span<const Index> start) const;

  std::map<Index, Index> queries_;
  Index most_ = 0;  // queries that there are: the class takes no more, whatever is asked for
  int heads_;
  Array<S> query_;
  Affine<S> q_, k_, v_, out_, linear_, in_q_, in_k_, in_v_;
  RowNorm<S> query_norm_, row_norm_, norm_;
  TwoLayers<S> feed_;
};

// Rows `which`*H .. of a matrix of three over each other.
template <class S>
Affine<S> third_of(TowerTensors<S>& t, const Matrix<S>& weight, const Matrix<S>& bias, Index which,
                   Index h) {
  Affine<S> a;
  if (t.counts_only())
    return a;
  a.weight = Array<S>(*t.backend(), weight.view().block(which, h));
  a.bias = Array<S>(*t.backend(), View<const S>{bias.data() + which * h, 1, h});
  return a;
}

template <class S>
QueryProjector<S>::QueryProjector(const ConfigReader& c, TowerTensors<S>& t, const std::string& at,
                                  int heads, Index h)
    : queries_(queries_of(c)), heads_(heads) {
  for (const auto& [patches, queries] : queries_)
    most_ = std::max(most_, queries);
  most_ = size_in(c, "max_value_projector_patch_to_query_dict", int(most_));
  query_ = t.array(at + "query", {most_, h});
  const std::string cross = at + "cross_attn.";
  q_ = read_affine(t, cross + "q_proj", h, h, Bias::without);
  k_ = read_affine(t, cross + "k_proj", h, h, Bias::without);
  v_ = read_affine(t, cross + "v_proj", h, h, Bias::without);
  const Matrix<S> weight = t.matrix(cross + "multihead_attn.in_proj_weight", {3 * h, h});
  const Matrix<S> bias = t.matrix(cross + "multihead_attn.in_proj_bias", {3 * h});
  in_q_ = third_of(t, weight, bias, 0, h);
  in_k_ = third_of(t, weight, bias, 1, h);
  in_v_ = third_of(t, weight, bias, 2, h);
  out_ = read_affine(t, cross + "multihead_attn.out_proj", h, h);
  linear_ = read_affine(t, cross + "linear", h, h);
  query_norm_ = read_layer_norm(t, cross + "layer_norm", h, projector_eps);
  row_norm_ = read_layer_norm(t, cross + "layer_norm_kv", h, projector_eps);
  norm_ = read_layer_norm(t, at + "layer_norm", h, projector_eps);
  const Index d = text_width(c);
  feed_ = {read_affine(t, at + "feed_forward.linear_in", d, h, Bias::without),
           read_affine(t, at + "feed_forward.linear_out", d, d, Bias::without),
           {Activation::gelu_tanh}};
}

template <class S>
Array<S> QueryProjector<S>::look(Backend<S>& b, View<const S> queries, View<const S> x,
                                 std::span<const Index> query_start,
                                 std::span<const Index> start) const {
  const Array<S> rows = row_norm_(b, x);
  const Array<S> q = in_q_(b, q_(b, query_norm_(b, queries)));
  const Array<S> k = in_k_(b, k_(b, rows));
  const Array<S> v = in_v_(b, v_(b, rows));
  return attention_both_ways(b, q.view(), k.view(), v.view(), heads_, query_start, start);
}

template <class S>
Array<S> QueryProjector<S>::operator()(Backend<S>& b, View<const S> x, std::span<const Index> start,
                                       std::span<const Index> counts) const {
  std::vector<int> which;
  std::vector<Index> query_start{0};
  for (const Index count : counts) {
    for (int i = 0; i < int(count); ++i)
      which.push_back(i);
    query_start.push_back(query_start.back() + count);
  }
  const Array<S> queries = chosen_rows(b, query_.view(), which);
  const Array<S> seen = look(b, queries.view(), x, query_start, start);
  return feed_(b, norm_(b, linear_(b, out_(b, seen))).view());
}

template <class S>
class AriaPictures final : public PictureTower<S> {
 public:
  AriaPictures(const TowerConfig& c, TowerTensors<S>& t);
  TowerPatches patches() const override {
    return patches_;
  }
  Index rows_of(const PictureGrid&) const override;
  TowerOutput<S> encode(View<const S> x, std::span<const PictureGrid>) const override;

 private:
  Backend<S>* backend_;
  TowerPatches patches_;
  int side_ = 0;  // of the table of places
  int layers_ = 0;
  std::string file_;
  Affine<S> patch_matrix_;
  Array<S> places_;
  Encoder<S> encoder_;
  RowNorm<S> behind_;
  std::optional<QueryProjector<S>> projector_;
};

EncoderShape shape_of(const ConfigReader& v) {
  const EncoderShape s{.hidden = size_in(v, "hidden_size", 1152),
                       .width = size_in(v, "intermediate_size", 3072),
                       .heads = size_in(v, "num_attention_heads", 16),
                       .layers = size_in(v, "num_hidden_layers", 12),
                       .eps = v.real("layer_norm_eps", 1e-6),
                       .activation = read_activation(v, "hidden_act", "gelu_pytorch_tanh")};
  check_heads(s, v.file());
  return s;
}

template <class S>
AriaPictures<S>::AriaPictures(const TowerConfig& c, TowerTensors<S>& t)
    : backend_(t.backend()), file_(c.root.file()) {
  const ConfigReader v = object_in(c.root, "vision_config");
  const EncoderShape s = shape_of(v);
  layers_ = c.root.has("vision_feature_layer") ? layers_in(c.root, "vision_feature_layer", s.layers)
                                               : s.layers;
  patches_ = {.patch = side_in(v, "patch_size", 32), .channels = size_in(v, "num_channels", 3)};
  side_ = side_in(v, "image_size", 224) / patches_.patch;
  if (side_ < 1)
    v.refuse("patch_size is larger than image_size");
  const std::string before =
      t.beginning({"", "model."}, "vision_tower.embeddings.patch_embedding.weight");
  const std::string at = before + "vision_tower.";
  t.part("vision encoder");
  patch_matrix_ = read_patch_matrix(t, at + "embeddings.patch_embedding",
                                    {s.hidden, patches_.channels, patches_.patch, patches_.patch});
  places_ = t.array(at + "embeddings.position_embedding.weight", {Index(side_) * side_, s.hidden});
  encoder_ = Encoder<S>(t, at + "encoder.layers.", clip_names(), s);
  behind_ = read_layer_norm(t, at + "post_layernorm", s.hidden, s.eps);
  t.part("projector");
  projector_.emplace(c.root, t, before + "multi_modal_projector.", s.heads, s.hidden);
}

template <class S>
Index AriaPictures<S>::rows_of(const PictureGrid& g) const {
  if (g.times != 1)
    throw Error(Exit::input, concat(file_, ": this encoder takes no videos"));
  const Index patches = g.whole > 0 ? g.whole : g.patches();
  const Index rows = projector_->rows_for(patches);
  if (rows == 0) {
    throw Error(Exit::input,
                concat(file_, ": projector_patch_to_query_dict has no number of queries for the ",
                       patches, " patches of a picture"));
  }
  return rows;
}

template <class S>
TowerOutput<S> AriaPictures<S>::encode(View<const S> x, std::span<const PictureGrid> grids) const {
  check_rows(x, grids, patches_);
  Backend<S>& b = *backend_;
  TowerOutput<S> out;
  std::vector<int> cells;
  for (const PictureGrid& g : grids) {
    for (const int cell : cells_of_places(side_, g.rows, g.columns))
      cells.push_back(cell);
    out.rows.push_back(rows_of(g));
  }
  const std::vector<Index> start = clip_starts(grids);
  Array<S> rows = patch_matrix_(b, x);
  b.add(chosen_rows(b, places_.view(), cells).view(), rows.view(), 1);
  out.patch_embed = rows.to_host();
  Array<S> seen = copy_of(b, rows.view());  // what the projector looks at
  encoder_.forward(b, rows.view(), start, nullptr, [&](int layer, View<const S> now) {
    if (layer + 1 == layers_)
      seen = copy_of(b, now);
  });
  out.last_hidden = behind_(b, rows).to_host();
  out.features = (*projector_)(b, seen.view(), start, out.rows).to_host();
  return out;
}

}  // namespace

template <class S>
Towers<S> aria_towers(const TowerConfig& c, TowerTensors<S>& t) {
  Towers<S> out;
  const auto usual = id_in(c.root, "image_token_index", 9);
  out.placeholder.picture = id_in(c.root, "image_token_id", usual);
  out.processor = {.sizing = PictureSizing::corner,
                   .side = processor_side,
                   .shortest = processor_shortest,
                   .folder = c.folder};
  out.picture = std::make_unique<AriaPictures<S>>(c, t);
  return out;
}
MOE_TOWER_FAMILY(aria_towers)

}  // namespace moe
