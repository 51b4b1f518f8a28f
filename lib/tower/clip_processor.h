// What happens to a clip before its encoder: which of its frames are looked at, to which size they
// are brought, how they lie in rows of patches. By the checkpoint's own settings where they are
// there, else by the family's defaults.
#pragma once
#include "lib/tower/pixel_rule.h"

namespace moe {

class ClipProcessor {
 public:
  // Throws Error(input) that names file and key where a setting is not computed here.
  ClipProcessor(const TowerPatches&, const ClipDefaults&);
  const ClipDefaults& rule() const {
    return rule_;
  }
  // Whether the file asks for the time to be drawn into frames, which is not done here.
  bool draws_time() const {
    return draws_time_;
  }
  // Which of so many frames are looked at, of a clip of so many a second; some may come twice.
  std::vector<int> chosen(int frames, double a_second) const;
  // What the encoder sees of so many chosen frames of that size: one grid, or one for each chunk.
  std::vector<PictureGrid> grids(int frames, PictureSize) const;
  // The chosen frames as rows for the encoder, grids as above.
  PatchRows<float> rows(std::span<const Picture>) const;
  // Seconds from the first frame of the clip to what the encoder sees as one: frames `first` up to
  // `first + count` of the chosen ones, the last of which stands for those that are missing.
  double seconds_between(std::span<const int> chosen, int first, int count, double a_second) const;

 private:
  void read(const ConfigReader&);
  PictureSize inner(int frames, PictureSize) const;
  int looked_at(int frames, double a_second) const;
  int padded(int frames) const;  // to whole rows

  TowerPatches patches_;
  ClipDefaults rule_;
  PaddedBounds padded_{.most_patches = 4096};  // of `chunked`
  bool samples_ = true;
  bool draws_time_ = false;
};

}  // namespace moe
