// GIF: a picture, or a clip whose frames are composed: each is drawn over what the one before left,
// and says what becomes of its own place afterwards (GIF89a, section 23).
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lib/signal/patches.h"

namespace moe {

// One frame as it is stored: numbers of colours in a rectangle of the screen.
struct GifFrame {
  int left = 0, top = 0, width = 0, height = 0;
  int hundredths = 0;                // of a second that it is shown; 0 = not said
  int disposal = 0;                  // 0 = not said, 1 stays, 2 is cleared, 3 is undone
  int transparent = -1;              // the number that is not drawn; -1 = none
  std::vector<std::uint8_t> colour;  // (n,3) red, green, blue; empty = number i is grey of level i
  std::vector<std::uint8_t> number;  // (height,width)
};

struct Gif {
  int width = 0, height = 0;  // of the screen
  int background = 0;         // what cleared places show where a frame is not transparent
  std::vector<GifFrame> frame;

  // By the mean time that a frame is shown; 0 where that is not said of every one.
  double frames_a_second() const;
};

// Reads all frames of a file, at most 1 GiB of numbers. Throws Error(input) that begins with `name`
// where it is damaged, cut off, without frames or has one that is not inside the screen, and
// Error(environment) where this program was built without giflib.
Gif read_gif(std::span<const std::byte>, const std::string& name);
bool is_gif_name(const std::filesystem::path&);  // by its ending, in any case

// What is seen of a GIF, frame after frame, as Pillow composes it: the screen begins with the first
// frame's transparent number, else its number 0; a disposal that is not said is the one before;
// cleared places become transparent where the clip is, else the background. What is transparent in
// the end is white, as in every picture here. The Gif must outlive it.
class GifScreen {
 public:
  explicit GifScreen(const Gif&);
  // Draws the next frame; there are as many as frames.
  void next();
  Picture picture() const;

 private:
  struct Pixel {
    std::uint8_t colour[3] = {0, 0, 0};
    bool seen = true;
  };
  // A rectangle of the screen to be put back before the next frame.
  struct Kept {
    const GifFrame* frame = nullptr;  // its place; none = nothing to do
    std::vector<Pixel> pixel;
  };
  Pixel shown(const GifFrame&, int number) const;
  Pixel cleared(const GifFrame&) const;
  Kept kept(const GifFrame&) const;
  void draw(const GifFrame&);
  Pixel& at(const GifFrame& f, int y, int x) {
    return screen_[std::size_t(f.top + y) * std::size_t(gif_.width) + std::size_t(f.left + x)];
  }

  const Gif& gif_;
  std::size_t next_ = 0;
  int disposal_ = 0;
  bool transparent_ = false;  // whether anything of the clip may be
  std::vector<Pixel> screen_;
  Kept kept_;
};

}  // namespace moe
