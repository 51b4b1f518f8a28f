#include "lib/signal/log_mel.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr int window = 400, bins = window / 2 + 1, margin = window / 2;
constexpr double top_hz = 8000;
// Slaney's scale: even steps up to 1 kHz, then even ratios
constexpr double hz_a_mel = 200.0 / 3, bend_hz = 1000, bend_mel = bend_hz / hz_a_mel;
constexpr double mels_a_factor = 27;  // from 1 kHz to 6.4 kHz
constexpr double least_power = 1e-10, deepest = 8;

double ratio_step() {
  return std::log(6.4) / mels_a_factor;
}
double mel_of(double hz) {
  return hz < bend_hz ? hz / hz_a_mel : bend_mel + std::log(hz / bend_hz) / ratio_step();
}
double hz_of(double mel) {
  return mel < bend_mel ? mel * hz_a_mel : bend_hz * std::exp((mel - bend_mel) * ratio_step());
}

using Complex = std::complex<double>;

// e^(-2 pi i n / window), and the Hann window.
struct Tables {
  std::vector<Complex> turn;
  std::vector<double> hann;
  Tables() {
    for (int n = 0; n < window; ++n) {
      const double angle = 2 * std::numbers::pi * n / window;
      turn.emplace_back(std::cos(angle), -std::sin(angle));
      hann.push_back(0.5 - 0.5 * std::cos(angle));
    }
  }
};

// The Fourier transform of x[0], x[step], x[2 step], ...: `count` numbers into out. Halved while
// that goes, the odd rest by its definition.
void transform(const double* x, int step, int count, const Tables& t, Complex* out) {
  const std::size_t turn = std::size_t(window / count);
  if (count % 2 != 0) {
    for (std::size_t k = 0; k < std::size_t(count); ++k) {
      Complex sum = 0;
      for (std::size_t n = 0; n < std::size_t(count); ++n)
        sum += x[n * std::size_t(step)] * t.turn[n * k % std::size_t(count) * turn];
      out[k] = sum;
    }
    return;
  }
  const int half = count / 2;
  transform(x, 2 * step, half, t, out);
  transform(x + step, 2 * step, half, t, out + half);
  for (int k = 0; k < half; ++k) {
    const Complex even = out[k];
    const Complex odd = out[half + k] * t.turn[std::size_t(k) * turn];
    out[k] = even + odd;
    out[half + k] = even - odd;
  }
}

// The samples around frame f times the window; beyond either end they are reflected.
void take_frame(std::span<const float> samples, Index f, const Tables& t, std::span<double> x) {
  const Index count = Index(samples.size());
  for (int n = 0; n < window; ++n) {
    Index at = f * frame_step + n - margin;
    at = at < 0 ? -at : at >= count ? 2 * (count - 1) - at : at;
    x[std::size_t(n)] = double(samples[std::size_t(at)]) * t.hann[std::size_t(n)];
  }
}

}  // namespace

Matrix<double> mel_filters(int bands) {
  std::vector<double> edge;
  for (int b = 0; b < bands + 2; ++b)
    edge.push_back(hz_of(mel_of(top_hz) * b / (bands + 1)));
  Matrix<double> out(bins, bands);
  for (int k = 0; k < bins; ++k) {
    const double hz = top_hz * k / (bins - 1);
    for (int b = 0; b < bands; ++b) {
      const double low = edge[std::size_t(b)];
      const double mid = edge[std::size_t(b) + 1];
      const double high = edge[std::size_t(b) + 2];
      const double height = std::min((hz - low) / (mid - low), (high - hz) / (high - mid));
      out(k, b) = std::max(0.0, height) * 2 / (high - low);
    }
  }
  return out;
}

Matrix<double> log_mel(std::span<const float> samples, int bands) {
  const Index count = Index(samples.size());
  if (count <= margin) {
    throw Error(Exit::input, concat("a sound of ", count, " samples is shorter than half a window"))
        .hint(concat("more than ", margin, " samples at 16 kHz"));
  }
  static const Tables tables;
  const Matrix<double> filter = mel_filters(bands);
  const Index frames = count / frame_step;
  Matrix<double> out(frames, bands);
  std::vector<double> x(window), power(bins);
  std::vector<Complex> spectrum(window);
  double loudest = std::log10(least_power);
  for (Index f = 0; f < frames; ++f) {
    take_frame(samples, f, tables, x);
    transform(x.data(), 1, window, tables, spectrum.data());
    for (std::size_t k = 0; k < power.size(); ++k)
      power[k] = std::norm(spectrum[k]);
    for (int b = 0; b < bands; ++b) {
      double sum = 0;
      for (int k = 0; k < bins; ++k)
        sum += filter(k, b) * power[std::size_t(k)];
      out(f, b) = std::log10(std::max(sum, least_power));
      loudest = std::max(loudest, out(f, b));
    }
  }
  for (double& v : out.flat())
    v = (std::max(v, loudest - deepest) + 4) / 4;
  return out;
}

}  // namespace moe
