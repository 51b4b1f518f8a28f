#include "lib/tower/processor.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr double brightest = 255;

// One number a channel, from a list or from one for all.
std::vector<double> channels_in(const ConfigReader& c, const char* key,
                                const std::vector<double>& usual) {
  if (!c.has(key))
    return usual;
  if (!c.at(key).is_number())
    return c.reals(key);
  return std::vector<double>(usual.size(), c.real(key, 0));
}

int up(int n, int by) {
  return (n + by - 1) / by * by;
}

}  // namespace

PictureProcessor::PictureProcessor(const TowerPatches& patches, const ProcessorDefaults& rule)
    : patches_(patches), rule_(rule) {
  const std::filesystem::path file = rule.folder / "preprocessor_config.json";
  if (std::filesystem::exists(file))
    read(file);
  const std::size_t channels = std::size_t(patches_.channels);
  if (rule_.mean.size() != channels || rule_.deviation.size() != channels) {
    throw Error(Exit::input,
                concat("'", file.string(), "' has ", rule_.mean.size(), " means and ",
                       rule_.deviation.size(), " deviations for ", channels, " channels"));
  }
}

void PictureProcessor::read(const std::filesystem::path& file) {
  const Json json = read_json(file, {.python_words = true});
  const ConfigReader c(json, file.string());
  for (const char* key : {"do_resize", "do_rescale", "do_normalize"}) {
    if (!c.flag(key, true))
      c.refuse(concat(key, " is false, which is not done here"));
  }
  if (std::abs(c.real("rescale_factor", 1 / brightest) - 1 / brightest) > 1e-9)
    c.refuse(concat("rescale_factor is ", c.real("rescale_factor", 0), " and must be 1/255"));
  const int resample = c.whole("resample", 3);
  if (resample != 2 && resample != 3)
    c.refuse(concat("resample is ", resample, ": only 2 (linear) and 3 (cubic) are computed"));
  filter_ = resample == 2 ? ResizeFilter::linear : ResizeFilter::cubic;
  if (c.whole("patch_size", patches_.patch) != patches_.patch) {
    c.refuse(
        concat("patch_size is ", c.whole("patch_size"), " and the encoder's ", patches_.patch));
  }
  read_bounds(c);
}

void PictureProcessor::read_bounds(const ConfigReader& c) {
  rule_.mean = channels_in(c, "image_mean", rule_.mean);
  rule_.deviation = channels_in(c, "image_std", rule_.deviation);
  const bool has_size = c.has("size") && c.at("size").is_object();
  const ConfigReader size = has_size ? c.in("size") : c;
  const auto pixels = [&](const char* own, const char* edge, Index usual) {
    return Index(c.whole(own, has_size ? size.whole(edge, int(usual)) : int(usual)));
  };
  rule_.fewest_pixels = pixels("min_pixels", "shortest_edge", rule_.fewest_pixels);
  rule_.most_pixels = pixels("max_pixels", "longest_edge", rule_.most_pixels);
  most_patches_ = c.whole("max_patches", int(most_patches_));
  most_side_ = size.whole("max_height", most_side_);
}

PictureSize PictureProcessor::inner(PictureSize s) const {
  if (rule_.sizing == PictureSizing::bounded) {
    return bounded_size(s, patches_.patch * patches_.multiple, rule_.fewest_pixels,
                        rule_.most_pixels);
  }
  if (rule_.sizing == PictureSizing::padded) {
    const int side = most_side_ * patches_.patch;
    const double tall = std::max(1, s.height / patches_.patch);
    const double wide = std::max(1, s.width / patches_.patch);
    const double scale = std::min({1.0, std::sqrt(double(most_patches_) / (tall * wide)),
                                   double(side) / s.height, double(side) / s.width});
    const auto scaled = [&](int length) {
      return std::min(std::max(1, int(length * scale)), side);
    };
    return {scaled(s.height), scaled(s.width)};
  }
  return {rule_.side, rule_.side};
}

PictureGrid PictureProcessor::grid(PictureSize s) const {
  PictureSize size = inner(s);
  if (rule_.sizing == PictureSizing::padded) {
    const int block = patches_.patch * patches_.multiple;
    size = {up(size.height, block), up(size.width, block)};
  }
  return {1, size.height / patches_.patch, size.width / patches_.patch};
}

Picture PictureProcessor::fitted(const Picture& p) const {
  if (rule_.sizing == PictureSizing::middle)
    return middle_square(p, rule_.side);
  const PictureSize size = inner({p.height, p.width});
  Picture out = resized(p, size.height, size.width, filter_);
  if (rule_.sizing != PictureSizing::padded)
    return out;
  const PictureGrid whole = grid({p.height, p.width});
  return cropped(out, 0, 0, whole.rows * patches_.patch, whole.columns * patches_.patch);
}

PatchRows<float> PictureProcessor::rows(const Picture& p) const {
  if (p.channels != patches_.channels) {
    throw Error(Exit::input, concat("a picture of ", p.channels, " channels for an encoder of ",
                                    patches_.channels));
  }
  const PatchRule rule{.patch = patches_.patch,
                       .merge = patches_.merge,
                       .times = patches_.times,
                       .mean = rule_.mean,
                       .deviation = rule_.deviation};
  const Matrix<double> wide = patches_of(fitted(p), rule);
  PatchRows<float> out{Matrix<float>(wide.rows(), wide.cols()), {grid({p.height, p.width})}};
  std::ranges::copy(wide.flat(), out.row.data());
  return out;
}

}  // namespace moe
