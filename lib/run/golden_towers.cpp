#include "lib/run/golden_towers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "lib/checkpoint/safetensors.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/tower/pixels.h"
#include "lib/tower/tower.h"

namespace moe {
namespace {

constexpr double beyond = std::numeric_limits<double>::infinity();

std::vector<PictureGrid> grids_of(const GoldenFile& file, const std::string& name) {
  const auto said = file.integers(name);
  if (said.dims.size() != 2 || said.dims[1] != 3)
    throw Error(Exit::input, concat(name, " is not three numbers a picture"));
  std::vector<PictureGrid> out;
  for (std::size_t i = 0; i < said.values.size(); i += 3) {
    out.push_back({int(said.values[i]), int(said.values[i + 1]), int(said.values[i + 2])});
  }
  return out;
}

// Rows of `cols` numbers.
template <class S>
Matrix<S> rows_of(const GoldenArray<double>& a, Index cols) {
  if (cols < 1 || a.size() % cols != 0)
    throw Error(Exit::input, concat(a.size(), " numbers are no rows of ", cols));
  Matrix<S> m(a.size() / cols, cols);
  std::ranges::transform(a.values, m.data(), [](double v) { return S(v); });
  return m;
}

template <class S>
class Comparing {
 public:
  Comparing(const std::filesystem::path& folder, const GoldenFile& file, Backend<S>& backend)
      : folder_(folder), file_(file), towers_(open_towers<S>(folder, backend)) {}

  std::vector<TowerDifference> run() {
    pictures("pixel_values", "image_grid_thw", "", "image_features", picture_);
    pictures("pixel_values_videos", "video_grid_thw", "_videos", "video_features", video_);
    sounds();
    deepstack();
    inputs();
    for (const std::string& name : file_.datasets()) {
      const bool ours = name.starts_with("vision_") || name.starts_with("deepstack_") ||
                        name.starts_with("audio_") || name.find("_features") != std::string::npos;
      if (ours && name != "input_features" && !seen_.contains(name))
        out_.push_back({name, beyond, allowed_of_towers});
    }
    return std::move(out_);
  }

 private:
  void compare(const std::string& name, std::span<const S> got) {
    if (!file_.has(name))
      return;
    seen_.insert(name);
    const auto want = file_.reals(name).values;
    double most = want.size() == got.size() ? 0 : beyond;
    double largest = 1;
    for (const double v : want)
      largest = std::is_same_v<S, double> ? 1 : std::max(largest, std::abs(v));
    for (std::size_t i = 0; i < got.size() && most < beyond; ++i) {
      const double d = std::abs(double(got[i]) - want[i]);
      most = std::isnan(d) ? beyond : std::max(most, d);
    }
    out_.push_back({name, most, allowed_of_towers * largest});
  }
  void compare(const std::string& name, const Matrix<S>& got) {
    if (!got.empty())
      compare(name, got.flat());
  }

  void pictures(const std::string& pixels, const std::string& grid, const std::string& suffix,
                const std::string& features, TowerOutput<S>& to) {
    if (!file_.has(pixels))
      return;
    if (!towers_.picture)
      throw Error(Exit::input,
                  concat(folder_.string(), " has ", pixels, " and no encoder for them"));
    const TowerPatches rule = towers_.picture->patches();
    const auto values = file_.reals(pixels);
    if (file_.has(grid)) {
      to =
          towers_.picture->encode(rows_of<S>(values, rule.numbers()).view(), grids_of(file_, grid));
    } else {
      const PatchRows<S> cut = rows_of_pixels<S>(values.values, values.dims, rule);
      to = towers_.picture->encode(cut.row.view(), cut.grid);
    }
    compare("vision_patch_embed" + suffix, to.patch_embed);
    compare("vision_last_hidden" + suffix, to.last_hidden);
    compare(features, to.features);
    if (!suffix.empty())
      compare("image_features" + suffix, to.features);
  }

  void sounds() {
    if (!file_.has("input_features"))
      return;
    if (!towers_.sound)
      throw Error(Exit::input, concat(folder_.string(), " has sounds and no encoder for them"));
    const auto all = file_.reals("input_features");
    const auto mask = file_.integers("feature_attention_mask");
    if (all.dims.size() != 3 || mask.dims.size() != 2 || mask.dims[0] != all.dims[0])
      throw Error(Exit::input, "input_features are not (sounds, bands, frames) with a mask");
    const Index bands = all.dims[1];
    const Index frames = all.dims[2];
    std::vector<Matrix<S>> sounds;
    for (Index n = 0; n < all.dims[0]; ++n) {
      const auto valid = mask.values.begin() + std::ptrdiff_t(n * frames);
      const Index length = std::count(valid, valid + std::ptrdiff_t(frames), 1);
      Matrix<S> one(length, bands);
      for (Index f = 0; f < length; ++f) {
        for (Index i = 0; i < bands; ++i)
          one(f, i) = S(all.values[std::size_t((n * bands + i) * frames + f)]);
      }
      sounds.push_back(std::move(one));
    }
    sound_ = towers_.sound->encode(sounds);
    compare("audio_last_hidden", sound_.last_hidden);
    compare("audio_features", sound_.features);
  }

  // Which rows of a kind come where: 0, 1, 2, 3 as in the dataset modality.
  std::vector<int> kinds() const {
    std::vector<int> out;
    const Placeholders& p = towers_.placeholder;
    for (const auto id : file_.integers("input_ids").values) {
      out.push_back(p.picture && id == *p.picture ? 1
                    : p.video && id == *p.video   ? 2
                    : p.sound && id == *p.sound   ? 3
                                                  : 0);
    }
    return out;
  }

  // Rows of pictures and videos as they follow each other; pictures alone where the file has no
  // more.
  void deepstack() {
    for (std::size_t l = 0; file_.has(concat("deepstack_", l)); ++l) {
      const auto level = [&](const TowerOutput<S>& o) {
        return l < o.deepstack.size() ? &o.deepstack[l] : nullptr;
      };
      const Matrix<S>* of[] = {nullptr, level(picture_), level(video_)};
      const Index wanted = file_.reals(concat("deepstack_", l)).size();
      if (of[1] && of[1]->size() == wanted) {
        compare(concat("deepstack_", l), *of[1]);
        continue;
      }
      std::vector<S> both;
      Index next[] = {0, 0, 0};
      for (const int kind : kinds()) {
        if (kind < 1 || kind > 2 || !of[kind] || next[kind] >= of[kind]->rows())
          continue;
        const auto row = of[kind]->row(next[kind]++);
        both.insert(both.end(), row.begin(), row.end());
      }
      compare(concat("deepstack_", l), std::span<const S>(both));
    }
    for (std::size_t l = 0; l < video_.deepstack.size(); ++l)
      compare(concat("deepstack_", l, "_videos"), video_.deepstack[l]);
  }

  // The table of embeddings, by the end of its name.
  Matrix<float> embeddings() const {
    const Tensors tensors(folder_);
    for (const std::string& name : tensors.names()) {
      if (name.ends_with("embed_tokens.weight"))
        return tensors.get(name).to_float();
    }
    throw Error(Exit::input, concat(folder_.string(), " has no embed_tokens.weight"));
  }

  // What the first decoder layer reads: embeddings, and features where placeholders stand.
  void inputs() {
    if (!file_.has("inputs_embeds"))
      return;
    const Matrix<float> table = embeddings();
    const auto ids = file_.integers("input_ids").values;
    const std::vector<int> kind = kinds();
    const Matrix<S>* of[] = {nullptr, &picture_.features, &video_.features, &sound_.features};
    Index next[] = {0, 0, 0, 0};
    std::vector<S> rows;
    for (std::size_t t = 0; t < ids.size(); ++t) {
      const int k = kind[t];
      if (k == 0) {
        if (ids[t] < 0 || ids[t] >= table.rows())
          throw Error(Exit::input, concat("id ", ids[t], " is none of the vocabulary"));
        const auto row = table.row(ids[t]);
        rows.insert(rows.end(), row.begin(), row.end());
      } else if (next[k] < of[k]->rows()) {
        const auto row = of[k]->row(next[k]++);
        rows.insert(rows.end(), row.begin(), row.end());
      }
    }
    for (int k = 1; k < 4; ++k) {
      if (next[k] != of[k]->rows())
        out_.push_back(
            {"inputs_embeds (rows of features without a place)", beyond, allowed_of_towers});
    }
    compare("inputs_embeds", std::span<const S>(rows));
  }

  const std::filesystem::path& folder_;
  const GoldenFile& file_;
  Towers<S> towers_;
  TowerOutput<S> picture_, video_, sound_;
  std::set<std::string> seen_;
  std::vector<TowerDifference> out_;
};

}  // namespace

template <class S>
std::vector<TowerDifference> compare_towers(const std::filesystem::path& folder,
                                            const GoldenFile& expected, Backend<S>& backend) {
  const bool any = expected.has("pixel_values") || expected.has("pixel_values_videos") ||
                   expected.has("input_features");
  if (!any)
    return {};
  return Comparing<S>(folder, expected, backend).run();
}

template std::vector<TowerDifference> compare_towers(const std::filesystem::path&,
                                                     const GoldenFile&, Backend<float>&);
template std::vector<TowerDifference> compare_towers(const std::filesystem::path&,
                                                     const GoldenFile&, Backend<double>&);

}  // namespace moe
