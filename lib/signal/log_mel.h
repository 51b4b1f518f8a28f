// Sound as rows: log-mel frames as Whisper's processor makes them (Radford 2022; the same numbers
// in Qwen2-Audio and Qwen3-Omni). 16,000 samples a second, a Hann window of 400 samples every 160,
// centred with reflection, power, Slaney's mel bands up to 8 kHz, log10 floored at 1e-10 and at 8
// below the loudest, then (x + 4) / 4.
#pragma once
#include <span>

#include "lib/core/matrix.h"

namespace moe {

constexpr int sample_rate = 16000;  // samples a second
constexpr int frame_step = 160;     // samples between frames

// (window/2+1, bands): what each band takes of the power of each frequency.
Matrix<double> mel_filters(int bands);

// (frames, bands), a frame every 160 samples. Throws Error(input) for fewer samples than half a
// window, which reflection needs.
Matrix<double> log_mel(std::span<const float> samples /* -1..1, 16 kHz */, int bands);

}  // namespace moe
