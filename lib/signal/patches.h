// Pictures as rows: square patches, each one row of normalised pixels, as image processors of
// published models make them. CLIP, ERNIE and Qwen write a patch channel by channel, Fuyu pixel by
// pixel; Qwen and ERNIE put 2x2 patches beside each other and a still picture twice in time.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "lib/core/matrix.h"

namespace moe {

struct Picture {
  int height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixel;  // (height, width, channels)

  std::uint8_t at(int y, int x, int c) const {
    return pixel[std::size_t((y * width + x) * channels + c)];
  }
};

struct PatchRule {
  int patch = 4;                        // pixels of a side
  int merge = 1;                        // patches come in blocks of merge x merge; 1 = line by line
  int times = 1;                        // frames that a row holds; a still picture is all of them
  bool pixel_first = false;             // colours beside each other; else channel by channel
  std::vector<double> mean, deviation;  // one a channel, of pixels from 0 to 1

  int numbers(int channels) const {  // columns of a row
    return channels * times * patch * patch;
  }
};

// The places of the patches of rows x columns, in the order of their rows.
struct PatchPlace {
  int row = 0, column = 0;
};
std::vector<PatchPlace> patch_places(int rows, int columns, int merge);

// (patches, rule.numbers(channels)): (pixel/255 - mean) / deviation. Throws Error(input) where the
// picture does not divide into patches and blocks, or the rule has not one mean a channel.
Matrix<double> patches_of(const Picture&, const PatchRule&);
// The same of the frames of a clip, rule.times of them in a row: the rows of the first ones, then
// of the next. Throws Error(input) as well where the frames differ in size or are no multiple of
// them.
Matrix<double> patches_of(std::span<const Picture> frames, const PatchRule&);

}  // namespace moe
