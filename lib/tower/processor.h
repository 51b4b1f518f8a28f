// What happens to a picture before its encoder: to which size it is brought, whether it is cut into
// several, how its pixels become numbers, how these lie in rows of patches. By the checkpoint's own
// settings where they are there, else by the family's defaults.
#pragma once
#include "lib/tower/pixel_rule.h"
#include "lib/tower/tiles.h"

namespace moe {

class PictureProcessor {
 public:
  // Throws Error(input) that names file and key where a setting is not computed here.
  PictureProcessor(const TowerPatches&, const ProcessorDefaults&);
  // What the encoder sees of a picture of that size, without looking at it: one grid, or one for
  // each of its tiles.
  std::vector<PictureGrid> grids(PictureSize) const;
  // How the tiles lie, where a picture is cut into several and shown whole behind them.
  TileGrid tiles(PictureSize) const;
  // A picture of three channels as rows for the encoder, grids as above.
  PatchRows<float> rows(const Picture&) const;

 private:
  void read(const ConfigReader&);
  void read_splits(const ConfigReader&);
  void check_side(const ConfigReader&, const char* key, const char* inside) const;
  PictureSize inner(PictureSize) const;   // before anything is cut off or filled up
  PictureSize corner(PictureSize) const;  // of `corner`: what is not black
  std::vector<Picture> views(const Picture&) const;
  std::vector<Picture> tiled(const Picture&) const;
  Picture cornered(const Picture&) const;
  PictureGrid grid_of(PictureSize) const;
  PictureGrid corner_grid(PictureSize) const;

  TowerPatches patches_;
  ProcessorDefaults rule_;
  PaddedBounds padded_;              // of `padded`
  bool largest_ = false;             // of `tiles`
  std::vector<PictureSize> splits_;  // of `corner`: sizes that are cut into squares; empty = none
};

}  // namespace moe
