#include "lib/tower/sound_processor.h"

#include <algorithm>

#include "lib/core/text.h"
#include "lib/signal/log_mel.h"
#include "lib/tower/processor_file.h"

namespace moe {
namespace {

constexpr int window = 400;  // samples, of lib/signal/log_mel.h

void must_be(const ConfigReader& c, const char* key, int value, const std::string& why) {
  const int said = c.whole(key, value);
  if (said != value)
    c.refuse(concat(key, " is ", said, " and must be ", value, why));
}

}  // namespace

SoundProcessor::SoundProcessor(int bands, const std::filesystem::path& folder) : bands_(bands) {
  const auto file = processor_file(folder, "feature_extractor", {"preprocessor_config.json"});
  if (!file)
    return;
  const ConfigReader c = file->reader();
  must_be(c, "feature_size", bands, concat(": the encoder reads ", bands, " bands"));
  must_be(c, "sampling_rate", sample_rate, ", the rate that is computed here");
  must_be(c, "hop_length", frame_step, ", the step that is computed here");
  must_be(c, "n_fft", window, ", the window that is computed here");
  if (c.real("dither", 0) != 0)
    c.refuse(concat("dither is ", c.real("dither", 0), ": no noise is added here"));
}

Index SoundProcessor::frames(Index samples) const {
  return samples / frame_step;
}

Matrix<float> SoundProcessor::rows(std::span<const float> samples) const {
  const Matrix<double> wide = log_mel(samples, bands_);
  Matrix<float> out(wide.rows(), wide.cols());
  std::ranges::copy(wide.flat(), out.data());
  return out;
}

}  // namespace moe
