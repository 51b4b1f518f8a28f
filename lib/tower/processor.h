// What happens to a picture before its encoder: to which size it is brought, how its pixels become
// numbers, how these lie in rows of patches. By the checkpoint's preprocessor_config.json where
// that is there, else by the family's own defaults.
#pragma once
#include "lib/signal/resize.h"
#include "lib/tower/pixels.h"
#include "lib/tower/tower.h"

namespace moe {

class PictureProcessor {
 public:
  // Throws Error(input) that names file and key where a setting is not computed here.
  PictureProcessor(const TowerPatches&, const ProcessorDefaults&);
  // Of a picture of that size, without looking at it.
  PictureGrid grid(PictureSize) const;
  // A picture of three channels as rows for the encoder.
  PatchRows<float> rows(const Picture&) const;

 private:
  void read(const std::filesystem::path& file);
  void read_bounds(const ConfigReader&);
  PictureSize inner(PictureSize) const;  // before anything is cut off or filled up
  Picture fitted(const Picture&) const;

  TowerPatches patches_;
  ProcessorDefaults rule_;
  ResizeFilter filter_ = ResizeFilter::cubic;
  Index most_patches_ = 16384;
  int most_side_ = 512;  // in patches; both of `padded`
};

}  // namespace moe
