// Sums over the pieces.
#include "lib/plan/cost.h"

#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe::plan {
namespace {

double ceil_div(Count a, Count b) {
  return double((a + b - 1) / b);
}
bool is_quantised(const WeightPiece& p) {
  return p.multiplied && p.part != ModelPart::embedding && p.part != ModelPart::head &&
         p.part != ModelPart::router && p.rows > 1;
}

}  // namespace

std::string_view name_of(Format f) {
  constexpr std::string_view names[] = {"f32", "bf16", "int8", "fp8", "mxfp4"};
  return names[std::size_t(f)];
}
std::string_view about(Format f) {
  constexpr std::string_view texts[] = {
      "4 bytes a parameter", "2 bytes a parameter",
      "matrices of layers 1 byte and an f32 scale a row, the rest bf16",
      "matrices of layers e4m3 with an f32 scale a block of 128x128, the rest bf16",
      "experts 4 bits and a byte of scale for 32, the rest bf16"};
  return texts[std::size_t(f)];
}

double weight_bytes(const WeightPiece& p, Format f) {
  if (f == Format::f32)
    return 4 * p.size();
  if (f == Format::mxfp4 && p.part == ModelPart::experts && is_quantised(p))
    return double(p.rows) * ceil_div(p.cols, 32) * 17;
  if (f == Format::fp8 && is_quantised(p))
    return p.size() + 4 * ceil_div(p.rows, 128) * ceil_div(p.cols, 128);
  if (f == Format::int8 && is_quantised(p))
    return p.size() + 4 * double(p.rows);
  return 2 * p.size();
}
double weight_bytes(const Architecture& a, Format f) {
  double sum = 0;
  for (const WeightPiece& p : pieces(a))
    sum += weight_bytes(p, f) * double(p.count);
  return sum;
}
double active_bytes(const Architecture& a, const PieceBytes& bytes) {
  double sum = 0;
  for (const WeightPiece& p : pieces(a)) {
    const bool looked_up = p.part == ModelPart::embedding && !p.multiplied;  // one row
    sum += looked_up ? bytes(p) / double(p.rows) : bytes(p) * p.active;
  }
  return sum;
}

Cache cache(const Architecture& a, Count context) {
  Cache out;
  for (const LayerShape& l : a.layers) {
    for (const MixerShape& m : l.mixers) {
      if (l.stack == Stack::encoder)
        continue;
      out.state += state_numbers(m);
      out.per_token += cached_per_token(m);
      out.at_context += cached_per_token(m) * double(keys_seen(m, context));
    }
  }
  return out;
}

void check(const Sharding& s, const Architecture& a) {
  const auto refuse = [&](const std::string& what, const std::string& hint) {
    throw Error(Exit::usage, concat(a.name, ": ", what)).hint(hint);
  };
  const FeedShape* moe = a.moe();
  if (s.experts > 1 && !moe)
    refuse("this is a dense model and has no experts to spread", "--tp or --zero");
  if (s.experts > 1 && moe->experts % s.experts != 0) {
    refuse(concat("--ep ", s.experts, " does not divide its ", moe->experts, " experts"),
           "a divisor");
  }
  if (s.tensor <= 1)
    return;
  for (const LayerShape& l : a.layers) {
    for (const MixerShape& m : l.mixers) {
      if (m.heads % s.tensor != 0)
        refuse(concat("--tp ", s.tensor, " does not divide its ", m.heads, " heads"), "a divisor");
    }
  }
}

Share share(const Architecture& a, const Sharding& s, const PieceBytes& bytes, Count context) {
  Share out;
  double mine = 0;
  for (const WeightPiece& p : pieces(a)) {
    const bool expert = p.part == ModelPart::experts;
    // vectors and routers are on every rank
    const double cut =
        (p.multiplied && p.part != ModelPart::router) || p.part == ModelPart::embedding
            ? double(s.tensor)
            : 1;
    const double spread = expert ? double(s.experts) : 1;
    out.serving += bytes(p) * double(p.count) / (cut * spread);
    // what is not spread by expert is alike on all of them
    const double over = s.zero > 1 ? (expert ? double(s.zero) : double(s.zero * s.experts)) : 1;
    mine += p.size() * double(p.count) / (cut * spread * over);
  }
  out.weights = 2 * mine;
  out.gradients = 2 * mine;
  out.optimizer = 12 * mine;
  for (const LayerShape& l : a.layers) {
    for (const MixerShape& m : l.mixers) {
      if (l.stack == Stack::encoder)
        continue;
      // the latent vector is every head's
      const Count groups =
          m.kind == MixerKind::latent ? 1 : std::min(s.tensor, std::max<Count>(m.kv_heads, 1));
      out.cache += m.attends()
                       ? 2 * cached_per_token(m) * double(keys_seen(m, context)) / double(groups)
                       : 4 * state_numbers(m) / double(s.tensor);
    }
  }
  return out;
}

Share share(const Architecture& a, const Sharding& s, Format format, Count context) {
  return share(
      a, s, [format](const WeightPiece& p) { return weight_bytes(p, format); }, context);
}

AllToAll all_to_all(const Architecture& a, Count ranks, double bytes) {
  const FeedShape* moe = a.moe();
  if (!moe || ranks <= 1)
    return {};
  const double away = 1 - 1 / double(ranks);
  const double row = double(a.hidden) * bytes;
  // P(a device holds none of the k) = C(E - E/R, k) / C(E, k)
  const double own = double(moe->experts) / double(ranks);
  double none = 1;
  for (Count i = 0; i < moe->k; ++i)
    none *= std::max(0.0, double(moe->experts) - own - double(i)) / double(moe->experts - i);
  return {.each = double(moe->k) * away * row, .once = double(ranks - 1) * (1 - none) * row};
}

}  // namespace moe::plan
