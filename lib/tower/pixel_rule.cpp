#include "lib/tower/pixel_rule.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/dtype.h"
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

float in_bf16(float v) {
  return bf16_to_float(float_to_bf16(v));
}

}  // namespace

void read_pixel_rule(const ConfigReader& c, const TowerPatches& patches, PixelRule& rule) {
  for (const char* key : {"do_resize", "do_rescale", "do_normalize"}) {
    if (!c.flag(key, true))
      c.refuse(concat(key, " is false, which is not done here"));
  }
  if (std::abs(c.real("rescale_factor", 1 / brightest) - 1 / brightest) > 1e-9)
    c.refuse(concat("rescale_factor is ", c.real("rescale_factor", 0), " and must be 1/255"));
  const int resample = c.whole("resample", rule.filter == ResizeFilter::linear ? 2 : 3);
  if (resample != 2 && resample != 3)
    c.refuse(concat("resample is ", resample, ": only 2 (linear) and 3 (cubic) are computed"));
  rule.filter = resample == 2 ? ResizeFilter::linear : ResizeFilter::cubic;
  if (c.whole("patch_size", patches.patch) != patches.patch) {
    c.refuse(concat("patch_size is ", c.whole("patch_size"), " and the encoder's ", patches.patch));
  }
  rule.mean = channels_in(c, "image_mean", rule.mean);
  rule.deviation = channels_in(c, "image_std", rule.deviation);
}

void check_pixel_rule(const PixelRule& rule, const TowerPatches& patches, const std::string& file) {
  const std::size_t channels = std::size_t(patches.channels);
  if (rule.mean.size() != channels || rule.deviation.size() != channels) {
    throw Error(Exit::input,
                concat("'", file, "' has ", rule.mean.size(), " means and ", rule.deviation.size(),
                       " deviations for ", channels, " channels"));
  }
}

Matrix<float> pixel_rows(std::span<const Picture> frames, const TowerPatches& patches,
                         const PixelRule& pixels) {
  for (const Picture& p : frames) {
    if (p.channels != patches.channels) {
      throw Error(Exit::input, concat("a picture of ", p.channels, " channels for an encoder of ",
                                      patches.channels));
    }
  }
  PatchRule rule{.patch = patches.patch,
                 .merge = patches.merge,
                 .times = patches.times,
                 .mean = pixels.mean,
                 .deviation = pixels.deviation};
  if (pixels.in_bf16) {
    rule.mean.assign(pixels.mean.size(), 0);
    rule.deviation.assign(pixels.mean.size(), 1);
  }
  const Matrix<double> wide =
      frames.size() == 1 ? patches_of(frames[0], rule) : patches_of(frames, rule);
  Matrix<float> out(wide.rows(), wide.cols());
  std::ranges::copy(wide.flat(), out.data());
  if (!pixels.in_bf16)
    return out;
  const Index plane = Index(patches.times) * patches.patch * patches.patch;
  for (Index r = 0; r < out.rows(); ++r) {
    for (Index i = 0; i < out.cols(); ++i) {
      const auto c = std::size_t(i / plane);
      const float from_mean = in_bf16(in_bf16(out(r, i)) - in_bf16(float(pixels.mean[c])));
      out(r, i) = in_bf16(from_mean / in_bf16(float(pixels.deviation[c])));
    }
  }
  return out;
}

PixelBounds read_pixel_bounds(const ConfigReader& c, PixelBounds usual) {
  const bool has_size = c.has("size") && c.at("size").is_object();
  const ConfigReader size = has_size ? c.in("size") : c;
  const auto pixels = [&](const char* own, const char* edge, Index otherwise) {
    return Index(c.whole(own, has_size ? size.whole(edge, int(otherwise)) : int(otherwise)));
  };
  return {pixels("min_pixels", "shortest_edge", usual.fewest),
          pixels("max_pixels", "longest_edge", usual.most)};
}

PaddedSize padded_size(PictureSize s, const TowerPatches& p, const PaddedBounds& bounds) {
  const int side = bounds.most_side * p.patch;
  const double tall = std::max(1, s.height / p.patch);
  const double wide = std::max(1, s.width / p.patch);
  const double scale = std::min({1.0, std::sqrt(double(bounds.most_patches) / (tall * wide)),
                                 double(side) / s.height, double(side) / s.width});
  const auto scaled = [&](int length) {
    return std::min(std::max(1, int(length * scale)), side);
  };
  const PictureSize inner{scaled(s.height), scaled(s.width)};
  const int block = p.patch * p.multiple;
  return {inner, {up(inner.height, block), up(inner.width, block)}};
}

PaddedBounds read_padded_bounds(const ConfigReader& c, PaddedBounds usual) {
  usual.most_patches = c.whole("max_patches", usual.most_patches);
  if (c.has("size") && c.at("size").is_object())
    usual.most_side = c.in("size").whole("max_height", usual.most_side);
  return usual;
}

}  // namespace moe
