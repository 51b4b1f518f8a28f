// `sounds`: sounds of files as log-mel frames, some of them beside each other in a row, and what
// they are called: by a .txt file beside, by the file's name, by its folder.
#include <cmath>

#include "datasets/captioned.h"
#include "lib/core/error.h"
#include "lib/signal/log_mel.h"
#include "lib/signal/sound_file.h"

namespace moe {
namespace {

class Sounds final : public Captioned {
 public:
  Sounds(Spec& spec, const Tokenizer& tokenizer) : Captioned("sounds", tokenizer) {
    read_options(spec, "sounds");
    seconds_ = spec.get("seconds", 1.28, 0.0);
    bands_ = spec.get("bands", 16, 4);
    join_ = spec.get("join", 8, 1);
    spec.done();
    info_.spec = spec.resolved();
    const double frames = seconds_ * sample_rate / frame_step;
    places_ = int(std::min(1e6, frames)) / join_;
    if (places_ < 1 || bands_ > 128 || join_ > 64 || seconds_ > 60) {
      throw Error(Exit::usage,
                  concat("sounds: seconds=", seconds_, ",bands=", bands_, ",join=", join_,
                         " make no row, or more than 60 s, 128 bands or 64 "
                         "frames a row are asked for"))
          .hint("seconds=1.28,bands=16,join=8");
    }
    signal_is(modality::audio, bands_ * join_, places_);
    read(
        is_sound_name, [this](const std::filesystem::path& path) { return rows_of_file(path); },
        "sound");
  }

 private:
  // As many rows as the sound fills, the last one with silence.
  Matrix<float> rows_of_file(const std::filesystem::path& path) const {
    std::vector<float> samples = read_sound(path, seconds_);
    const std::size_t row = std::size_t(join_) * frame_step;
    const std::size_t rows =
        std::min(std::size_t(places_), std::max<std::size_t>(1, (samples.size() + row - 1) / row));
    // reflection at the ends needs more than half a window
    samples.resize(std::max(rows * row, std::size_t(2) * frame_step));
    Matrix<float> all = joined_frames(samples, bands_, join_);
    if (all.rows() == Index(rows))
      return all;
    Matrix<float> out(Index(rows), all.cols());
    std::copy_n(all.data(), out.size(), out.data());
    return out;
  }

  double seconds_ = 1.28;
  int bands_ = 16, join_ = 8, places_ = 0;
};

}  // namespace

std::unique_ptr<Dataset> make_encoded_sounds(Spec&, const Tokenizer&);  // encoded_sounds.cpp

std::unique_ptr<Dataset> make_sounds_dataset(Spec& spec, const Tokenizer& tokenizer) {
  if (spec.has("encoder"))
    return make_encoded_sounds(spec, tokenizer);
  return std::make_unique<Sounds>(spec, tokenizer);
}

}  // namespace moe
