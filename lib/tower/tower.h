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
  tile,     // squeezed to the one size that the encoder takes
  middle    // shorter side to that size, then the middle square (CLIP)
};
// What a family's processor does where its own file does not say something else.
struct ProcessorDefaults {
  PictureSizing sizing = PictureSizing::bounded;
  std::vector<double> mean{0.5, 0.5, 0.5}, deviation{0.5, 0.5, 0.5};
  int side = 0;  // of `tile` and `middle`: height and width
  Index fewest_pixels = 56 * 56, most_pixels = 28 * 28 * 1280;  // of `bounded`
  std::filesystem::path folder;                                 // of preprocessor_config.json
};

template <class S>
struct Towers {
  std::string family;
  Placeholders placeholder;
  // Around the rows of a picture, where the configuration has ids for its start and end.
  std::vector<int> before, behind;
  bool frame_routes = false;  // these two rows route as rows of pictures do
  bool three_axes = false;    // rows have places in time, height and width
  ProcessorDefaults processor;
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
