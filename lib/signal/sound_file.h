// Sounds from files: what libsndfile reads (WAV, FLAC, Ogg, MP3, ...), where it was there when this
// was built, as one channel of 16,000 samples a second.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace moe {

// Whether a file is one of sounds by its ending: wav, flac, ogg, opus, mp3, aiff, au, in any case.
bool is_sound_name(const std::filesystem::path&);
// At most the first `seconds`. Throws Error(input) naming the file where it is no sound, damaged or
// empty, and Error(environment) where this program was built without libsndfile.
std::vector<float> read_sound(const std::filesystem::path&, double seconds);

// One channel as it is in a file.
struct Recording {
  std::vector<float> samples;
  int rate = 0;  // samples a second
};
// At most the first `seconds`; the mean of the channels.
Recording read_recording(const std::filesystem::path&, double seconds);
// At another rate, by a windowed sinc that leaves out what the lower rate cannot hold.
std::vector<float> resampled(const std::vector<float>&, int from, int to);

}  // namespace moe
