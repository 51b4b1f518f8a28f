// Pictures and text with experts of their own: planted modality experts, and how far tokens ignore
// them.
#include <cmath>

#include "analysis/synth/draw.h"
#include "lib/core/error.h"
#include "lib/core/modality.h"

namespace moe {
namespace {

class Modality final : public Pattern {
 public:
  Modality(const SynthShape& s, double leak, double share)
      : shape_(s), leak_(leak), picture_(int(std::lround(share * s.sequence))) {
    if (s.experts % 2 || s.experts / 2 < s.k) {
      throw Error(Exit::usage, concat(s.experts, " experts do not divide among pictures and text ",
                                      "so that each owns at least ", s.k))
          .hint("an even E, and E/2 >= K");
    }
    if (leak > 1 || share > 1)
      throw Error(Exit::usage, concat("leak=", leak, ",share=", share, ": not both are shares"));
    if (picture_ < 1 || picture_ >= s.sequence) {
      throw Error(Exit::usage, concat("share=", share, " leaves sequences of ", s.sequence,
                                      " rows without a picture or without text"));
    }
  }

  void draw(const SynthRun& run, Rng& rng, Matrix<int>& out) const override {
    const int half = shape_.experts / 2;
    Deck all(0, shape_.experts);
    Deck pictures(0, half);
    Deck text(half, half);
    for (Index t = 0; t < run.rows; ++t) {
      Deck& own = t < picture_ ? pictures : text;
      (rng.uniform() < leak_ ? all : own).deal(rng, out.row(t));
    }
  }

  int picture_rows() const override {
    return picture_;
  }

  std::vector<Known> known() const override {
    const double e = shape_.experts;
    const double k = shape_.k;
    const double t = double(shape_.tokens);
    const double p = pictures();
    const double least = std::min(p, 1 - p) * t;  // rows of the rarer modality
    const double noise = 3 / std::sqrt(least) + (e - k) / (2 * least * k * std::log(2.0));
    const double own = (2 - leak_) / e;
    const double other = leak_ / e;  // shares of one expert
    const double balanced = e / 2 * (information(own) + information(other));
    std::vector<Known> out = known_cells(own, other, least);
    for (const Known& one : std::initializer_list<Known>{
             {"modality_balanced_mi_bits", {}, balanced, noise},
             {"modality_js_bits", {0, 1}, balanced, noise},
             {"modality_expert_mi_bits", {}, over_all(p, own, other), noise},
             {"modality_load_entropy", {1}, evenness(own, other), noise},
             {"modality_predictability", {}, guessed(p, own, other), 2 * std::sqrt(e / t)},
             {"crossmodal_overlap_excess", {1, 0}, 0, 0.1 / std::sqrt(t / shape_.sequence)}})
      out.push_back(one);
    if (leak_ == 0)
      out.push_back({"modality_resting_fraction", {1}, 0.5, 0});
    return out;
  }

 private:
  // Of single experts; `least` rows of the rarer modality.
  std::vector<Known> known_cells(double own, double other, double least) const {
    const double k = shape_.k;
    const double p = pictures();
    const double t = double(shape_.tokens);
    const double rare = std::sqrt(shape_.experts / (least * k));  // of a count, over its mean
    return {{"modality_tv", {0, 1}, 1 - leak_, std::sqrt(2.0) * rare},
            known_rate("modality_hit_rate", {1, 0}, k * own, p * t),
            known_rate("modality_hit_rate", {0, 0}, k * other, (1 - p) * t),
            {"modality_share", {1, 0}, own / (own + other), rare},
            {"modality_share", {1, shape_.experts - 1}, other / (own + other), rare}};
  }
  double pictures() const {  // share of the rows; the last sequence may be shorter
    const std::uint64_t whole = shape_.tokens / std::uint64_t(shape_.sequence);
    const std::uint64_t rest = shape_.tokens % std::uint64_t(shape_.sequence);
    const auto rows = std::uint64_t(picture_);
    return double(whole * rows + std::min(rest, rows)) / double(shape_.tokens);
  }
  // of one expert whose share of one modality is q and whose mean share is 1/E
  double information(double q) const {
    return q > 0 ? q * std::log2(q * shape_.experts) : 0;
  }
  double over_all(double p, double own, double other) const {
    const auto part = [&](double weight, double q, double mean) {
      return q > 0 ? weight * q * std::log2(q / mean) : 0;
    };
    const double first = p * own + (1 - p) * other;   // mean share of a pictures' expert
    const double second = p * other + (1 - p) * own;  // of a text expert
    return shape_.experts / 2.0 *
           (part(p, own, first) + part(1 - p, other, first) + part(p, other, second) +
            part(1 - p, own, second));
  }
  double evenness(double own, double other) const {
    const auto part = [](double q) {
      return q > 0 ? -q * std::log2(q) : 0;
    };
    return shape_.experts / 2.0 * (part(own) + part(other)) / std::log2(shape_.experts);
  }
  double guessed(double p, double own, double other) const {
    return shape_.experts / 2.0 *
           (std::max(p * own, (1 - p) * other) + std::max(p * other, (1 - p) * own));
  }

  SynthShape shape_;
  double leak_;
  int picture_;  // rows
};

}  // namespace

std::unique_ptr<Pattern> make_modality_pattern(Spec& spec, const SynthShape& s) {
  const double leak = spec.get("leak", 0.1, 0.0);
  return std::make_unique<Modality>(s, leak, spec.get("share", 0.5, 0.0));
}

}  // namespace moe
