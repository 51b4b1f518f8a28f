// Encoders of pictures and sounds of published multimodal models, with the projectors that make
// vectors of the language model's width of what they put out. A tower is read from config.json and
// the tensors of a checkpoint and computes forwards only, in float or, on the reference, in double;
// gradients through a tower are not there. One file a family, one line in towers.def.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/core/registry.h"
#include "lib/files/config_reader.h"
#include "lib/signal/resize.h"
#include "lib/tower/rows.h"
#include "lib/tower/tensors.h"

namespace moe {

// How a picture becomes rows of patches for a tower; mean and deviation are those of the processor,
// not of the model.
struct TowerPatches {
  int patch = 0;     // pixels of a side
  int channels = 3;  // numbers of a pixel
  int times = 1;     // frames of a row; a still picture is all of them
  int merge = 1;     // patches come in blocks of merge x merge; 1 = line by line
  int multiple = 1;  // sides in patches are multiples of this
  int side = 0;      // pixels that every picture must have, height and width; 0 = any

  Index numbers() const {
    return Index(channels) * times * patch * patch;
  }
};

template <class S>
struct TowerOutput {
  Matrix<S> patch_embed;             // (patches, H) what the first product puts out
  Matrix<S> last_hidden;             // (patches or fewer, H) what the encoder puts out
  Matrix<S> features;                // (rows, D) for the language model, pictures in order
  std::vector<Matrix<S>> deepstack;  // [l] (rows, D): added to the same rows behind decoder layer l
  std::vector<Index> rows;           // of `features` for each picture or sound
};

template <class S>
class PictureTower {
 public:
  virtual ~PictureTower() = default;
  virtual TowerPatches patches() const = 0;
  // How many rows of the language model a picture or video becomes. Throws Error(input) where it
  // cannot become any.
  virtual Index rows_of(const PictureGrid&) const = 0;
  // x (patches, numbers of one), normalised, in the order that patches() says; a grid for each
  // picture or video. Throws Error(input) where the two do not fit each other or the tower.
  virtual TowerOutput<S> encode(View<const S> x, std::span<const PictureGrid>) const = 0;
};

template <class S>
class SoundTower {
 public:
  virtual ~SoundTower() = default;
  virtual int bands() const = 0;  // of log-mel frames
  // How many rows of the language model a sound of so many frames becomes, from 1.
  virtual Index rows_of(Index frames) const = 0;
  // (frames, bands) of each sound. Pieces are padded to the longest of all of them, as the class
  // does, so a sound's vectors may depend on what else is there.
  virtual TowerOutput<S> encode(std::span<const Matrix<S>> sounds) const = 0;
};

// Ids that stand where rows of a picture, a video, a sound go; none where there is no such id.
struct Placeholders {
  std::optional<int> picture, video, sound;
};

// How the size of a picture is found before it is cut into patches.
enum class PictureSizing {
  bounded,  // sides near multiples of a block, area between bounds (Qwen2-VL's processor)
  padded,   // only made smaller, then filled with black to whole blocks (Kimi)
  tiles,    // on a canvas of squares that the encoder takes one by one, and one of all of it (Llama
            // 4)
  corner,   // the longer side to one size, the rest of that square black and not looked at (Aria)
  middle    // shorter side to that size, then the middle square (CLIP)
};
// What becomes of the numbers of pixels.
struct PixelRule {
  std::vector<double> mean{0.5, 0.5, 0.5}, deviation{0.5, 0.5, 0.5};  // of pixels from 0 to 1
  ResizeFilter filter = ResizeFilter::cubic;
  bool in_bf16 = false;  // each step is rounded to bf16 (Llama 4)
};
// What a family's processor does where its own file does not say something else.
struct ProcessorDefaults {
  PictureSizing sizing = PictureSizing::bounded;
  PixelRule pixels = {};
  int side = 0;  // of `tiles`, `corner` and `middle`: height and width
  Index fewest_pixels = 56 * 56, most_pixels = 28 * 28 * 1280;  // of `bounded`
  int most_tiles = 16;                                          // of `tiles`
  int shortest = 1;      // of `corner`: the shorter side is at least so long
  bool squared = false;  // of `middle`: first made square with the mean colour (LLaVA's "pad")
  std::filesystem::path folder;  // of preprocessor_config.json
};

// How the frames of a clip become rows of the language model.
enum class ClipStyle {
  none,     // the family takes no clips
  stamped,  // pairs of frames, each a picture of its own, its seconds in text before it (Qwen3-VL)
  timed,    // one video, whose places in time go by seconds (Qwen3-Omni)
  paired,   // one video, two frames a row (ERNIE 4.5 VL)
  chunked   // a few frames at a time, their time in text before them (Kimi)
};
struct ClipDefaults {
  ClipStyle style = ClipStyle::none;
  PixelRule pixels = {};
  double clip_rate = 24;                     // frames a second of a clip of which nobody says it
  double rate = 0;                           // frames a second that are looked at; 0 = all of them
  int fewest_frames = 1, most_frames = 768;  // that are looked at
  Index fewest_pixels = 0, most_pixels = 0;  // `stamped`: of all frames; else of each
  int chunk = 4;                             // of `chunked`: frames at a time
  double places_a_second = 0;                // of `timed`
  std::filesystem::path folder;              // of the processor's files
};

// Texts of special ids around the rows of a tile: before the one that shows all of a picture,
// between tiles of a line, behind a line of them. All empty = the family has no tiles.
struct TileWords {
  std::string whole, across, down;
};

template <class S>
struct Towers {
  std::string family;
  Placeholders placeholder;
  // Around the rows of a picture, where the configuration has ids for its start and end.
  std::vector<int> before, behind;
  // The same of a sound, and of a clip.
  std::vector<int> sound_before, sound_behind, clip_before, clip_behind;
  TileWords tile_words;
  bool frame_routes = false;  // these two rows route as rows of pictures do
  bool three_axes = false;    // rows have places in time, height and width
  ProcessorDefaults processor;
  ClipDefaults clips;
  std::unique_ptr<PictureTower<S>> picture;  // of videos too
  std::unique_ptr<SoundTower<S>> sound;
};

// A config.json, and where it lies: some towers have a folder of their own in there.
struct TowerConfig {
  ConfigReader root;
  std::filesystem::path folder;
};

// Each throws Error(input) that names file and key where a setting is missing, impossible or not
// computed here.
template <class S>
using MakeTowers = Towers<S>(const TowerConfig&, TowerTensors<S>&);
template <class S>
const Registry<MakeTowers<S>>& tower_families();

// Whether config.json is that of a whole model of a family of towers.def.
bool has_towers(const Json& config);
template <class S>
Towers<S> open_towers(const std::filesystem::path& folder, Backend<S>&);
// Parameters of encoders and projectors, from the configuration alone; empty where has_towers() is
// false. `folder` is where config.json lies.
std::vector<TowerPart> tower_sizes(const Json& config, const std::filesystem::path& folder);

extern template Towers<float> open_towers(const std::filesystem::path&, Backend<float>&);
extern template Towers<double> open_towers(const std::filesystem::path&, Backend<double>&);

}  // namespace moe
