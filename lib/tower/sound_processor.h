// What happens to a sound before its encoder: log-mel frames as Whisper's feature extractor makes
// them (lib/signal/log_mel.h), by the checkpoint's own settings where they are there.
#pragma once
#include <filesystem>
#include <span>

#include "lib/core/matrix.h"

namespace moe {

class SoundProcessor {
 public:
  // bands: of the encoder; folder: where preprocessor_config.json lies. Throws Error(input) that
  // names file and key where a setting is not computed here.
  SoundProcessor(int bands, const std::filesystem::path& folder);
  // Frames of so many samples at 16 kHz. What does not fill the last step makes none.
  Index frames(Index samples) const;
  // (frames, bands) of samples from -1 to 1 at 16 kHz. Throws Error(input) where they are fewer
  // than half a window.
  Matrix<float> rows(std::span<const float> samples) const;

 private:
  int bands_;
};

}  // namespace moe
