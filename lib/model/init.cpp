// Initial weights (equations.md section 9). Every parameter draws from a stream named after it, so
// a model with one layer more, or its dense baseline, starts with the same numbers where the two
// agree, and any rows of it can be drawn without those before.
#include <algorithm>
#include <cmath>
#include <mutex>

#include "lib/core/fnv.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/model/decoder.h"
#include "lib/router/router.h"

namespace moe {
namespace {

double drawn(Rng& rng, const Start& rule) {
  double draw = rng.normal();
  while (std::abs(draw) > rule.cut)
    draw = rng.normal();
  return rule.std * draw;
}

// Any of a parameter's numbers, without those before. Draws beyond the cut are repeated, so where
// in the stream a number stands must be counted once; a draw whose radius lies below the cut needs
// no more than that radius.
class Draws {
 public:
  Draws(Rng rng, Start rule, Index size) : rng_(rng), rule_(rule), size_(size) {}

  template <class S>
  void numbers(Index first, std::span<S> out) {
    std::call_once(counted_, [this] { count(); });
    const Index piece = first / step;
    const Index end = first + Index(out.size());
    parallel_for((end + step - 1) / step - piece, 1, [&](Index i, Index) {
      Rng rng = mark_[std::size_t(piece + i)];
      for (Index n = (piece + i) * step; n < std::min(end, (piece + i + 1) * step); ++n) {
        const double v = drawn(rng, rule_);
        if (n >= first)
          out[std::size_t(n - first)] = S(v);
      }
    });
  }

 private:
  static constexpr Index step = 1 << 16;

  void count() {
    const double within = std::exp(-rule_.cut * rule_.cut / 2) * (1 + 1e-6);
    Rng rng = rng_;
    for (Index n = 0; n < size_; ++n) {
      if (n % step == 0)
        mark_.push_back(rng);
      const Rng after(rng.seed(), rng.stream_id(), rng.counter() + 2);
      if (Rng(rng).uniform() < 1 - within)
        rng = after;
      else
        drawn(rng, rule_);
    }
  }

  Rng rng_;
  Start rule_;
  Index size_;
  std::once_flag counted_;
  std::vector<Rng> mark_;  // before number i * step
};

// Fills rows as `start` says.
template <class S>
ReadRows<S> rows_of(const Start& start, const Parameter<S>& p, std::uint64_t seed) {
  if (start.rule) {
    const Rng rng = Rng(seed).stream(fnv1a(p.name()));
    return [rng, rule = start.rule](Index first, View<S> out) {
      for (Index i = 0; i < out.size(); ++i) {
        const Index n = first * out.cols + i;
        Rng own(rng.seed(), rng.stream_id(), rng.counter() + std::uint64_t(n));
        out.data[i] = S(rule(n, own.uniform()));
      }
    };
  }
  if (start.std == 0) {
    return [value = S(start.value)](Index, View<S> out) {
      std::ranges::fill(out.flat(), value);
    };
  }
  const auto draws = std::make_shared<Draws>(Rng(seed).stream(fnv1a(p.name())), start, p.size());
  return [draws, unit = start.around_unit](Index first, View<S> out) {
    draws->numbers(first * out.cols, out.flat());
    for (Index r = 0; unit && r < out.rows; ++r)
      out(r, (first + r) % out.cols) += 1;
  };
}

}  // namespace

Start matrix_start(const ModelConfig& c, MatrixRole role, Index fan_in) {
  if (c.init == "switch")
    return {.std = std::sqrt(0.1 / double(fan_in)), .cut = 2};
  const bool of_mixer = role == MatrixRole::mixer || role == MatrixRole::mixer_output;
  if (c.init == "layerwise" && of_mixer)
    return {.std = 0.01};
  if (c.init == "depth_scaled" && role != MatrixRole::other && role != MatrixRole::mixer)
    return {.std = 0.02 / std::sqrt(2.0 * c.layers)};
  return {.std = 0.02};
}

template <class S>
void Decoder<S>::initialise(std::uint64_t seed) {
  for (const ModelParameter<S>& m : inventory()) {
    Parameter<S>& p = *m.parameter;
    const ReadRows<S> rows = rows_of(m.start, p, seed);
    if (!p.stored()) {
      p.lie_elsewhere(rows);
      continue;
    }
    Matrix<S> host(p.value().rows, p.value().cols);
    rows(0, host.view());
    p.set(std::as_const(host).view());
  }
  for (Block& b : blocks_) {
    if (b.moe)
      b.moe->trim();
  }
}

template void Decoder<float>::initialise(std::uint64_t);
template void Decoder<double>::initialise(std::uint64_t);

}  // namespace moe
