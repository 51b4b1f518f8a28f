// `sounds:...,encoder=MODEL`: sounds as the encoder of a published model gives them to its language
// model. A sound is encoded alone, so that its rows do not depend on what else is in the folder.
#include "datasets/encoded.h"
#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/signal/log_mel.h"
#include "lib/signal/sound_file.h"
#include "lib/tower/sound_processor.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr double all_seconds = 24 * 3600;

class EncodedSounds final : public EncodedFiles {
 public:
  EncodedSounds(Spec& spec, const Tokenizer& tokenizer)
      : EncodedFiles(spec, tokenizer, "sounds", "sound"), encoder_(spec.get("encoder", "")) {
    seconds_ = spec.get("seconds", 0.0, 0.0);
    spec.done();
    info_.spec = spec.resolved();
    if (!towers().sound) {
      throw Error(Exit::usage,
                  concat("the encoder of '", encoder_, "' (", towers().family, ") hears no sounds"))
          .hint("images:path=FOLDER, or a model with an encoder of sounds (qwen3_omni_moe)");
    }
    processor_.emplace(towers().sound->bands(), towers().processor.folder);
    read_files(is_sound_name);
  }

 private:
  std::vector<float> samples_of(const fs::path& path) const {
    std::vector<float> samples = read_sound(path, seconds_ > 0 ? seconds_ : all_seconds);
    if (processor_->frames(Index(samples.size())) < 2) {
      throw Error(Exit::input, concat(in_quotes(path), " has ", samples.size(),
                                      " samples at 16 kHz: less than two frames of ", frame_step))
          .hint("leave it out");
    }
    return samples;
  }
  Layout layout_of(const fs::path& path) override {
    const Index rows = towers().sound->rows_of(processor_->frames(Index(samples_of(path).size())));
    const Run sound{.kind = modality::audio, .made = rows, .place = {.length = int(rows)}};
    return {text_run(towers().sound_before), sound, text_run(towers().sound_behind)};
  }
  TowerOutput<float> encoded(const fs::path& path) const override {
    const Matrix<float> frames = processor_->rows(samples_of(path));
    return towers().sound->encode({&frames, 1});
  }

  std::string encoder_;
  double seconds_ = 0;
  std::optional<SoundProcessor> processor_;
};

}  // namespace

std::unique_ptr<Dataset> make_encoded_sounds(Spec& spec, const Tokenizer& tokenizer) {
  return std::make_unique<EncodedSounds>(spec, tokenizer);
}

}  // namespace moe
