// Initial weights (equations.md section 9). Every parameter draws from a stream named after it, so a model with one layer more, or
// its dense twin, starts with the same numbers where the two agree.
#include <cmath>

#include "lib/model/decoder.h"

namespace moe {
namespace {

std::uint64_t hash(std::string_view name) {  // FNV-1a
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : name) h = (h ^ std::uint64_t(static_cast<unsigned char>(c))) * 0x100000001b3u;
  return h;
}

struct Rule {
  double std = 0.02, cut = 3;  // resampled beyond `cut` standard deviations
};
Rule rule_of(const ModelConfig& c, const std::string& name, Index fan_in) {
  const bool attention = name.find(".attention.") != name.npos;
  if (name.ends_with(".router.slots")) return {1 / std::sqrt(double(fan_in)), 3};
  if (name.ends_with(".const_vec")) return {1, 3};
  if (c.init == "switch") return {std::sqrt(0.1 / double(fan_in)), 2};
  if (c.init == "layerwise" && attention) return {0.01, 3};
  if (c.init == "depth_scaled" && (name.ends_with(".attention.o") || name.ends_with(".down"))) return {0.02 / std::sqrt(2.0 * c.layers)};
  return {};
}

}  // namespace

template <class S>
void Decoder<S>::initialise(std::uint64_t seed) {
  std::vector<std::pair<std::string, double>> fixed;  // parameters of one number everywhere
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    if (!blocks_[l].moe) continue;
    fixed.emplace_back(concat("layers.", l, ".moe.router.residual_weight"), 0.0);
    for (const Projection& p : blocks_[l].moe->router().projections()) {
      if (p.zero_init) fixed.emplace_back(concat("layers.", l, ".moe.router.", p.name), 0.0);
      if (p.cosine) fixed.emplace_back(concat("layers.", l, ".moe.router.", p.scale_name), p.scale_start);
    }
  }
  for (Parameter<S>* p : parameters()) {
    Matrix<S> host(p->value().rows, p->value().cols);
    const auto one = std::ranges::find(fixed, p->name(), &std::pair<std::string, double>::first);
    if (one != fixed.end()) {
      std::ranges::fill(host.flat(), S(one->second));
    } else if (p->kind() == ParameterKind::vector && !p->name().ends_with("const_vec")) {
      std::ranges::fill(host.flat(), S(p->name().ends_with("norm") ? 1 : 0));
    } else {
      Rng rng = Rng(seed).stream(hash(p->name()));
      const Rule rule = rule_of(config_, p->name(), p->dims().back());
      for (S& v : host.flat()) {
        double draw = rng.normal();
        while (std::abs(draw) > rule.cut) draw = rng.normal();
        v = S(rule.std * draw);
      }
    }
    p->set(std::as_const(host).view());
  }
  for (Block& b : blocks_)
    if (b.moe) b.moe->trim();
}

template void Decoder<float>::initialise(std::uint64_t);
template void Decoder<double>::initialise(std::uint64_t);

}  // namespace moe
