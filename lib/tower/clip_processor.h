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
  // Where the time is to be drawn into frames and its font is not in the checkpoint's folder: the
  // font's name, else empty. Then it is not drawn.
  std::string missing_font() const {
    return draws_time_ && font_bytes_.empty() ? font_ : "";
  }
  // Draws the time of each chosen frame into its corner where the processor does (ERNIE 4.5 VL):
  // "time: 00:00:01.25" of a tenth of the shorter side, black in a border of white. Throws
  // Error(input) where frames are too small, and as write_text().
  void write_times(std::vector<Picture>&, std::span<const int> chosen, double a_second) const;
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
  void read_times(const ConfigReader&);
  PictureSize inner(int frames, PictureSize) const;
  int looked_at(int frames, double a_second) const;
  int padded(int frames) const;  // to whole rows

  TowerPatches patches_;
  ClipDefaults rule_;
  PaddedBounds padded_{.most_patches = 4096};  // of `chunked`
  bool samples_ = true;
  bool draws_time_ = false;
  std::string font_ = "Roboto-Regular.ttf";  // in the checkpoint's folder
  std::string font_bytes_;                   // empty where it is not there
};

}  // namespace moe
