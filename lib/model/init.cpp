// Initial weights (equations.md section 9). Every parameter draws from a stream named after it, so
// a model with one layer more, or its dense twin, starts with the same numbers where the two agree,
// and any rows of it can be drawn without those before.
#include <algorithm>
#include <cmath>
#include <mutex>

#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/model/decoder.h"
#include "lib/router/router.h"

namespace moe {
namespace {

std::uint64_t hash(std::string_view name) {  // FNV-1a
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : name)
    h = (h ^ std::uint64_t(static_cast<unsigned char>(c))) * 0x100000001b3u;
  return h;
}

struct Rule {
  double std = 0.02, cut = 3;  // resampled beyond `cut` standard deviations
};
Rule rule_of(const ModelConfig& c, const std::string& name, Index fan_in) {
  const bool attention = name.find(".attention.") != name.npos;
  if (name.ends_with(".router.slots"))
    return {1 / std::sqrt(double(fan_in)), 3};
  if (name.ends_with(".const_vec"))
    return {1, 3};
  // around the unit matrix
  if (name.starts_with("fourier_"))
    return {0.5 / std::sqrt(double(fan_in)), 3};
  if (c.init == "switch")
    return {std::sqrt(0.1 / double(fan_in)), 2};
  if (c.init == "layerwise" && attention)
    return {0.01, 3};
  if (c.init == "depth_scaled" && (name.ends_with(".attention.o") || name.ends_with(".down")))
    return {0.02 / std::sqrt(2.0 * c.layers)};
  return {};
}

double drawn(Rng& rng, const Rule& rule) {
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
  Draws(Rng rng, Rule rule, Index size) : rng_(rng), rule_(rule), size_(size) {}

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
  Rule rule_;
  Index size_;
  std::once_flag counted_;
  std::vector<Rng> mark_;  // before number i * step
};

}  // namespace

template <class S>
void Decoder<S>::initialise(std::uint64_t seed) {
  std::vector<std::pair<std::string, double>> fixed;  // parameters of one number everywhere
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    if (!blocks_[l].moe)
      continue;
    fixed.emplace_back(concat("layers.", l, ".moe.router.residual_weight"), 0.0);
    for (const Projection& p : blocks_[l].moe->router().projections()) {
      if (p.zero_init)
        fixed.emplace_back(concat("layers.", l, ".moe.router.", p.name), 0.0);
      if (p.cosine)
        fixed.emplace_back(concat("layers.", l, ".moe.router.", p.scale_name), p.scale_start);
    }
  }
  for (Parameter<S>* p : parameters()) {
    ReadRows<S> rows;
    const auto one = std::ranges::find(fixed, p->name(), &std::pair<std::string, double>::first);
    if (one != fixed.end() ||
        (p->kind() == ParameterKind::vector && !p->name().ends_with("const_vec"))) {
      const S value = one != fixed.end() ? S(one->second) : S(p->name().ends_with("norm") ? 1 : 0);
      rows = [value](Index, View<S> out) {
        std::ranges::fill(out.flat(), value);
      };
    } else {
      const auto draws =
          std::make_shared<Draws>(Rng(seed).stream(hash(p->name())),
                                  rule_of(config_, p->name(), p->dims().back()), p->size());
      rows = [draws, unit = p->name().starts_with("fourier_")](Index first, View<S> out) {
        draws->numbers(first * out.cols, out.flat());
        for (Index r = 0; unit && r < out.rows; ++r)
          out(r, (first + r) % out.cols) += 1;
      };
    }
    if (!p->stored()) {
      p->lie_elsewhere(rows);
      continue;
    }
    Matrix<S> host(p->value().rows, p->value().cols);
    rows(0, host.view());
    p->set(std::as_const(host).view());
  }
  for (Block& b : blocks_) {
    if (b.moe)
      b.moe->trim();
  }
}

template void Decoder<float>::initialise(std::uint64_t);
template void Decoder<double>::initialise(std::uint64_t);

}  // namespace moe
