// Clips from files: the frames of a film without its sound, as a folder NAME.clip of numbered
// pictures, as an array of bytes (frames, height, width, 3) that numpy.save wrote, or as a GIF. The
// first two are what any tool that reads films can write, and need no library of codecs here.
#pragma once
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/signal/gif.h"
#include "lib/signal/resize.h"

namespace moe {

// Whether a path may be one of clips by its ending: .clip, .npy, .gif.
bool is_clip_name(const std::filesystem::path&);

class ClipFile {
 public:
  // Throws Error(input) naming the file where it is no clip: a folder without pictures, an array of
  // another kind or shape, or of more than 1 GiB, a GIF that cannot be read.
  explicit ClipFile(const std::filesystem::path&);
  int frames() const {
    return frames_;
  }
  // How many frames are a second, as the file says; 0 where it does not.
  double frames_a_second() const {
    return gif_ ? gif_->frames_a_second() : 0;
  }
  // Of the first frame, which is read for it.
  PictureSize size() const;
  // These frames, from 0. Throws Error(input) naming the file of a frame that cannot be read.
  std::vector<Picture> read(std::span<const int> which) const;

 private:
  void read_array(const std::filesystem::path&);
  Picture frame(int) const;
  std::vector<Picture> composed(std::span<const int> which) const;

  std::vector<std::filesystem::path> files_;  // of a folder, by the number in their names
  std::optional<Gif> gif_;
  std::string bytes_;  // of an array, its header in front
  std::size_t data_at_ = 0;
  int frames_ = 0, height_ = 0, width_ = 0;
};

// The clip in a file; none where its ending is another, or it is a GIF of one frame, which is a
// picture. Throws as ClipFile.
std::optional<ClipFile> as_clip(const std::filesystem::path&);

}  // namespace moe
