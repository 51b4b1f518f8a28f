#include "lib/signal/sound_file.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <numbers>
#include <unordered_map>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/signal/log_mel.h"

namespace moe {
namespace {

constexpr int crossings = 16;  // of the sinc on either side

double sinc(double x) {
  const double a = std::numbers::pi * x;
  return std::abs(a) < 1e-9 ? 1 : std::sin(a) / a;
}

// What the samples around a place count there. Between rates most places lie behind a sample by one
// of a few fractions, to the bit, so these are kept.
class Taps {
 public:
  struct Tap {
    double sinc, window;
  };
  explicit Taps(double cut) : cut_(cut), reach_(crossings / cut), side_(Index(reach_) + 1) {}
  double reach() const {
    return reach_;
  }
  // Of the sample that the place is behind by `fraction`; others, up to the reach, stand around it.
  const Tap* around(double fraction) {
    const auto found = kept_.find(fraction);
    if (found != kept_.end())
      return found->second.data() + side_;
    std::vector<Tap>& taps = kept_.size() < most ? kept_[fraction] : other_;
    taps.clear();
    for (Index k = -side_; k <= side_; ++k) {
      const double away = double(k) - fraction;
      taps.push_back({.sinc = sinc(cut_ * away),
                      .window = 0.5 + 0.5 * std::cos(std::numbers::pi * away / reach_)});
    }
    return taps.data() + side_;
  }

 private:
  static constexpr std::size_t most = 2048;  // fractions

  double cut_, reach_;  // of the lower rate and of a tap, in samples
  Index side_;
  std::unordered_map<double, std::vector<Tap>> kept_;
  std::vector<Tap> other_;
};

}  // namespace

bool is_sound_name(const std::filesystem::path& path) {
  std::string ending = path.extension().string();
  for (char& c : ending)
    c = char(std::tolower(static_cast<unsigned char>(c)));
  for (const char* known :
       {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64"}) {
    if (ending == known)
      return true;
  }
  return false;
}

std::vector<float> resampled(const std::vector<float>& x, int from, int to) {
  if (from == to)
    return x;
  const double step = double(from) / to;
  const double cut = std::min(1.0, 1 / step);  // of the lower rate, in samples of x
  Taps taps(cut);
  const double reach = taps.reach();
  std::vector<float> out(std::size_t(double(x.size()) / step));
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double at = double(i) * step;
    const auto first = std::size_t(std::max(0.0, std::ceil(at - reach)));
    const auto last = std::min(x.size(), std::size_t(at + reach) + 1);
    const double behind = std::floor(at);
    const Taps::Tap* tap = taps.around(at - behind);
    double sum = 0;
    for (std::size_t n = first; n < last; ++n) {
      const Taps::Tap& t = tap[Index(n) - Index(behind)];
      sum += double(x[n]) * cut * t.sinc * t.window;
    }
    out[i] = float(sum);
  }
  return out;
}

std::vector<float> read_sound(const std::filesystem::path& path, double seconds) {
  const Recording all = read_recording(path, seconds);
  if (all.samples.empty())
    throw Error(Exit::input, concat(in_quotes(path), " holds no sound")).hint("leave it out");
  return resampled(all.samples, all.rate, sample_rate);
}

}  // namespace moe
