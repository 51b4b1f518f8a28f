// `tones`: short sounds of beeps, made up, and questions about them with known answers: how many
// beeps, whether the first is high or low, whether the last rises or falls. What is read are
// log-mel frames, some of them beside each other in a row. Some pairs of a pitch and a slide are
// held out of training, and so is a tenth of all tunes.
#include <array>
#include <cmath>
#include <numbers>

#include "datasets/samples.h"
#include "lib/core/error.h"
#include "lib/signal/log_mel.h"

namespace moe {
namespace {

constexpr std::array<const char*, 3> pitches{"low", "middle", "high"};
constexpr std::array<double, 3> pitch_hz{330, 880, 2350};  // apart also where they slide
constexpr std::array<const char*, 3> slides{"falling", "level", "rising"};
constexpr std::array<const char*, 6> ordinals{"first",  "second", "third",
                                              "fourth", "fifth",  "sixth"};
constexpr double slide_octaves = 0.5, detune_octaves = 0.2;
constexpr int beep_frames = 12, gap_frames = 4;  // of 10 ms each
constexpr int fade = 80;                         // samples at either end of a beep
constexpr Index most_tries = 10'000;
enum Kind : int { how_many, pitch_of, slide_of, kinds };

struct Beep {
  int pitch, slide;
};
using Tune = std::vector<Beep>;

class Tones final : public Samples {
 public:
  Tones(Spec& spec, const Tokenizer& tokenizer) : Samples("tones", tokenizer) {
    beeps_ = spec.get("beeps", 4, 1);
    bands_ = spec.get("bands", 16, 4);
    join_ = spec.get("join", 4, 1);
    noise_ = spec.get("noise", 0.02, 0.0);
    const int hold = spec.get("hold", 2, 0);
    seed_ = std::uint64_t(spec.get("seed", 0));
    const int valid = spec.get("valid", 512, 1);
    spec.done();
    info_.spec = spec.resolved();
    check();
    pairs_.emplace(int(pitches.size()), int(slides.size()), hold, Rng(seed_).stream(0x70616972),
                   "tones");
    info_.questions = {"how many", "pitch", "slide"};
    if (hold > 0)
      info_.questions = with_unseen_pairs(info_.questions);
    signal_is(modality::audio, bands_ * join_, int(frames() / join_));
    add_domain("tones", kEndless, valid);
    tell();
  }

 private:
  void check() const {
    if (beeps_ > int(ordinals.size()) || bands_ > 128 || join_ > 64 || noise_ > 1) {
      throw Error(Exit::usage,
                  concat("tones: beeps=", beeps_, ", bands=", bands_, ", join=", join_,
                         ", noise=", noise_, " are more than ", ordinals.size(), ", 128, 64 and 1"))
          .hint("beeps=4,bands=16,join=4,noise=0.02");
    }
  }

  // Of every sound, so that its length tells nothing: whole rows.
  Index frames() const {
    const Index need = Index(beeps_) * (beep_frames + gap_frames);
    return (need + join_ - 1) / join_ * join_;
  }

  void tell() {
    std::string held;
    for (const auto& [p, s] : pairs_->held())
      held += concat(held.empty() ? "; held out of training: " : ", ", pitches[std::size_t(p)], " ",
                     slides[std::size_t(s)]);
    Rng rng(seed_);
    const Sample s = train_sample(0, rng);
    info_.notes.push_back(concat(
        "tones: a sample is ", s.rows.rows(), " rows of ", join_, " log-mel frames of ", bands_,
        " bands and a question with its answer, as '", s.question, s.answer, "'", held));
  }

  Tune drawn(Rng& rng) const {
    Tune out(std::size_t(1 + rng.below(beeps_)));
    for (Beep& b : out) {
      const auto [pitch, slide] = pairs_->any_seen(rng);
      b = {pitch, slide};
    }
    return out;
  }

  bool is_valid(const Tune& tune) const {
    std::string text = concat(seed_);
    for (const Beep& b : tune)
      text += concat(" ", b.pitch, ",", b.slide);
    return in_tenth(text);
  }

  Tune drawn(Split split, Rng& rng) const {
    for (Index n = 0; n < most_tries; ++n) {
      Tune out = drawn(rng);
      if (is_valid(out) == (split == Split::valid))
        return out;
    }
    throw Error(Exit::usage, concat("tones: beeps=", beeps_,
                                    " make too few tunes to keep a tenth of them apart"))
        .hint("beeps=4");
  }

  Sample train_sample(int, Rng& rng) const override {
    const Tune tune = drawn(Split::train, rng);
    const Kind kind = Kind(rng.below(kinds));
    return sample(tune, kind, std::size_t(rng.below(Index(tune.size()))), rng, Wanted::all);
  }

  // In turn of pairs that were seen in training and of others, and of all kinds.
  Sample valid_sample(int, Index n, Wanted wanted) const override {
    Rng rng = Rng(seed_).stream(0x76616c6964).stream(std::uint64_t(n));
    const bool unseen = n % 2 == 1 && !pairs_->held().empty();
    const Kind kind = Kind(n / 2 % kinds);
    Tune tune = drawn(unseen ? Split::train : Split::valid, rng);
    const std::size_t asked = std::size_t(rng.below(Index(tune.size())));
    if (unseen) {
      const auto [pitch, slide] = pairs_->any_held(rng);
      tune[asked] = {pitch, slide};
    }
    Sample out = sample(tune, kind, asked, rng, wanted);
    out.kind += unseen ? kinds : 0;
    return out;
  }

  Sample sample(const Tune& tune, Kind kind, std::size_t asked, Rng& rng, Wanted wanted) const {
    Sample out;
    out.row_count = info_.signals[0].places;
    out.kind = kind;
    const Beep& b = tune[asked];
    if (kind == how_many) {
      out.question = "how many beeps? ";
      out.answer = concat(tune.size());
    } else {
      out.question =
          concat(kind == pitch_of ? "pitch of the " : "slide of the ", ordinals[asked], "? ");
      out.answer = kind == pitch_of ? pitches[std::size_t(b.pitch)] : slides[std::size_t(b.slide)];
    }
    if (wanted == Wanted::all)
      out.rows = joined_frames(heard(tune, rng), bands_, join_);
    return out;
  }

  // The beeps somewhere along the sound, in their order, over noise.
  std::vector<float> heard(const Tune& tune, Rng& rng) const {
    std::vector<float> out(std::size_t(frames()) * frame_step);
    const Index spare = frames() - Index(tune.size()) * (beep_frames + gap_frames);
    Index at = rng.below(spare + 1);
    for (const Beep& b : tune) {
      add_beep(b, std::size_t(at) * frame_step, rng, out);
      at += beep_frames + gap_frames;
    }
    // even, with the deviation that was asked for
    const double range = noise_ * std::sqrt(12.0);
    for (float& v : out)
      v = float(double(v) + range * (rng.uniform() - 0.5));
    return out;
  }

  static void add_beep(const Beep& b, std::size_t first, Rng& rng, std::vector<float>& out) {
    const int length = beep_frames * frame_step;
    const double detuned = detune_octaves * (2 * rng.uniform() - 1);
    const double loud = 0.3 + 0.4 * rng.uniform();
    double phase = 2 * std::numbers::pi * rng.uniform();
    for (int n = 0; n < length; ++n) {
      const double along = double(n) / length - 0.5;
      const double octaves = detuned + slide_octaves * (b.slide - 1) * 2 * along;
      phase +=
          2 * std::numbers::pi * pitch_hz[std::size_t(b.pitch)] * std::exp2(octaves) / sample_rate;
      const double edge = std::min({1.0, double(n) / fade, double(length - n) / fade});
      out[first + std::size_t(n)] += float(loud * edge * std::sin(phase));
    }
  }

  int beeps_ = 4, bands_ = 16, join_ = 4;
  double noise_ = 0;
  std::uint64_t seed_ = 0;
  std::optional<HeldPairs> pairs_;
};

}  // namespace

std::unique_ptr<Dataset> make_tones_dataset(Spec& spec, const Tokenizer& tokenizer) {
  return std::make_unique<Tones>(spec, tokenizer);
}

}  // namespace moe
