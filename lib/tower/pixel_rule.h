// What pictures and clips share on the way to an encoder: how their pixels become numbers, and what
// the files of processors say of that.
#pragma once
#include "lib/signal/resize.h"
#include "lib/tower/pixels.h"
#include "lib/tower/tower.h"

namespace moe {

// Settings of a processor that pictures and clips spell alike. Throws Error(input) that names file
// and key where one is not computed here.
void read_pixel_rule(const ConfigReader&, const TowerPatches&, PixelRule&);
// Throws Error(input) where a rule has not one mean and one deviation a channel.
void check_pixel_rule(const PixelRule&, const TowerPatches&, const std::string& file);
// Rows of patches of one picture, or of the frames of a clip. Throws Error(input) where they have
// another number of channels than the encoder.
Matrix<float> pixel_rows(std::span<const Picture>, const TowerPatches&, const PixelRule&);

// The bounds of areas that a processor says, where it says some.
struct PixelBounds {
  Index fewest = 0, most = 0;
};
PixelBounds read_pixel_bounds(const ConfigReader&, PixelBounds usual);

// A size that is only made smaller: at most so many patches, and so many to each side (Kimi); and
// that size filled up to whole blocks.
struct PaddedSize {
  PictureSize inner, filled;
};
struct PaddedBounds {
  int most_patches = 16384, most_side = 512;  // most_side: in patches
};
PaddedSize padded_size(PictureSize, const TowerPatches&, const PaddedBounds&);
PaddedBounds read_padded_bounds(const ConfigReader&, PaddedBounds usual);

}  // namespace moe
