// Sounds by libsndfile.
#include <sndfile.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/signal/sound_file.h"

namespace moe {
namespace {

constexpr int most_channels = 64, least_rate = 1000, most_rate = 768'000;
constexpr sf_count_t piece = 4096;  // frames read at once

struct Close {
  void operator()(SNDFILE* file) const {
    sf_close(file);
  }
};

[[noreturn]] void refuse(const std::string& name, const std::string& why) {
  throw Error(Exit::input, concat(name, " is no sound that can be read: ", why))
      .hint("convert it, `ffmpeg -i x.m4a x.wav`, or leave it out");
}

}  // namespace

Recording read_recording(const std::filesystem::path& path, double seconds) {
  const std::string name = in_quotes(path);
  InputFile{path};  // refuses what is missing, and pipes that would be waited on
  SF_INFO info{};
  const std::unique_ptr<SNDFILE, Close> file(sf_open(path.c_str(), SFM_READ, &info));
  if (!file)
    refuse(name, sf_strerror(nullptr));
  if (info.channels < 1 || info.channels > most_channels || info.samplerate < least_rate ||
      info.samplerate > most_rate) {
    refuse(name,
           concat("it has ", info.channels, " channels of ", info.samplerate, " samples a second"));
  }
  const auto wanted = sf_count_t(std::ceil(seconds * info.samplerate));
  Recording out{.samples = {}, .rate = info.samplerate};
  std::vector<float> frames(std::size_t(piece * info.channels));
  // the header may claim any length: what counts is what comes
  for (sf_count_t done = 0; done < wanted;) {
    const sf_count_t got =
        sf_readf_float(file.get(), frames.data(), std::min(piece, wanted - done));
    if (got <= 0)
      break;
    for (sf_count_t n = 0; n < got; ++n) {
      float sum = 0;
      for (int c = 0; c < info.channels; ++c)
        sum += frames[std::size_t(n * info.channels + c)];
      out.samples.push_back(sum / float(info.channels));
    }
    done += got;
  }
  if (sf_error(file.get()) != SF_ERR_NO_ERROR)
    refuse(name, sf_strerror(file.get()));
  const auto finite = [](float v) {
    return std::isfinite(v);
  };
  if (!std::ranges::all_of(out.samples, finite))
    refuse(name, "it has samples that are no numbers");
  return out;
}

}  // namespace moe
