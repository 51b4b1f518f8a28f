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
double size(const Piece& p) {
  return double(p.rows) * double(p.cols);
}
bool is_attention(const Mixer& m) {
  return m.kind == MixerKind::attention || m.kind == MixerKind::latent;
}
Count seen(const Mixer& m, Count context) {
  return m.window > 0 ? std::min(m.window, context) : context;
}

double cached_per_token(const Mixer& m) {
  return m.kind == MixerKind::latent ? double(m.kv_rank + m.rope)
                                     : double(2 * m.kv_heads * m.head_dim);
}

// Numbers that a recurrent layer keeps: its state, and what the convolution of 4 looks back at.
double state_of(const Mixer& m) {
  switch (m.kind) {
    case MixerKind::mamba1:
      return double(m.inner) * double(m.state + 3);
    case MixerKind::mamba2:
      return double(m.inner) * double(m.state) + 3.0 * double(m.inner + 2 * m.groups * m.state);
    case MixerKind::lightning:
      return double(m.heads) * double(m.head_dim) * double(m.head_dim);
    default:
      return 0;
  }
}

double mixing_flops(const Mixer& m, Count context) {
  switch (m.kind) {
    case MixerKind::attention:
      return 4.0 * double(seen(m, context)) * double(m.heads * m.head_dim);
    case MixerKind::latent:
      return 2.0 * double(seen(m, context)) * double(m.heads) * double(m.nope + m.rope + m.value);
    default:
      return 6.0 * (m.kind == MixerKind::lightning
                        ? double(m.heads) * double(m.head_dim) * double(m.head_dim)
                        : double(m.inner) * double(m.state));
  }
}

bool is_quantised(const Piece& p) {
  return p.multiplied && p.part != Part::embedding && p.part != Part::head &&
         p.part != Part::router && p.rows > 1;
}

}  // namespace

std::string_view name_of(Part p) {
  constexpr std::string_view names[part_count] = {
      "input embedding", "output matrix", "attention",      "dense feed-forward",
      "routers",         "experts",       "shared experts", "norms and the rest"};
  return names[std::size_t(p)];
}

Parameters parameters(const Description& d) {
  Parameters out;
  for (const Piece& p : pieces(d)) {
    const Count n = p.rows * p.cols * p.count;
    out.total += n;
    out.part[std::size_t(p.part)] += n;
    out.active[std::size_t(p.part)] += size(p) * p.active;
  }
  for (const double a : out.active)
    out.a0 += a;
  out.a1 = out.a0 - out.active[std::size_t(Part::embedding)];
  out.a2 = out.a1 - out.active[std::size_t(Part::head)];
  out.in_file = out.total;
  // a block like the last, a matrix that joins two rows, three norms, embedding and head
  if (d.further_layers > 0 && !d.layers.empty()) {
    Description one = d;
    one.further_layers = 0;
    one.final_norms = 3;
    one.tied = false;
    one.extra.clear();
    one.layers = {d.layers.back()};
    out.in_file += d.further_layers * (parameters(one).total + 2 * d.hidden * d.hidden);
  }
  return out;
}

Flops flops(const Description& d, Count context) {
  Flops out;
  for (const Piece& p : pieces(d)) {
    if (p.multiplied)
      out.products += 2 * size(p) * p.active;
  }
  for (const Layer& l : d.layers) {
    for (const Mixer& m : l.mixers)
      out.attention += mixing_flops(m, context);
  }
  return out;
}

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

double weight_bytes(const Piece& p, Format f) {
  if (f == Format::f32)
    return 4 * size(p);
  if (f == Format::mxfp4 && p.part == Part::experts && p.multiplied)
    return double(p.rows) * ceil_div(p.cols, 32) * 17;
  if (f == Format::fp8 && is_quantised(p))
    return size(p) + 4 * ceil_div(p.rows, 128) * ceil_div(p.cols, 128);
  if (f == Format::int8 && is_quantised(p))
    return size(p) + 4 * double(p.rows);
  return 2 * size(p);
}
double weight_bytes(const Description& d, Format f) {
  double sum = 0;
  for (const Piece& p : pieces(d))
    sum += weight_bytes(p, f) * double(p.count);
  return sum;
}
double active_bytes(const Description& d, Format f) {
  double sum = 0;
  for (const Piece& p : pieces(d)) {
    const bool looked_up = p.part == Part::embedding && !p.multiplied;  // one row
    sum += looked_up ? weight_bytes(p, f) / double(p.rows) : weight_bytes(p, f) * p.active;
  }
  return sum;
}

Cache cache(const Description& d, Count context) {
  Cache out;
  for (const Layer& l : d.layers) {
    for (const Mixer& m : l.mixers) {
      if (l.encoder)
        continue;
      out.state += state_of(m);
      if (!is_attention(m))
        continue;
      out.per_token += cached_per_token(m);
      out.at_context += cached_per_token(m) * double(seen(m, context));
    }
  }
  return out;
}

void check(const Sharding& s, const Description& d) {
  const auto refuse = [&](const std::string& what, const std::string& hint) {
    throw Error(Exit::usage, concat(d.name, ": ", what)).hint(hint);
  };
  const Feed* moe = d.moe();
  if (s.experts > 1 && !moe)
    refuse("this is a dense model and has no experts to spread", "--tp or --zero");
  if (s.experts > 1 && moe->experts % s.experts != 0) {
    refuse(concat("--ep ", s.experts, " does not divide its ", moe->experts, " experts"),
           "a divisor");
  }
  if (s.tensor <= 1)
    return;
  for (const Layer& l : d.layers) {
    for (const Mixer& m : l.mixers) {
      if (m.heads % s.tensor != 0)
        refuse(concat("--tp ", s.tensor, " does not divide its ", m.heads, " heads"), "a divisor");
    }
  }
}

Share share(const Description& d, const Sharding& s, Format format, Count context) {
  Share out;
  double mine = 0;
  for (const Piece& p : pieces(d)) {
    const bool expert = p.part == Part::experts;
    // vectors and routers are on every rank
    const double cut = (p.multiplied && p.part != Part::router) || p.part == Part::embedding
                           ? double(s.tensor)
                           : 1;
    const double spread = expert ? double(s.experts) : 1;
    out.serving += weight_bytes(p, format) * double(p.count) / (cut * spread);
    // what is not spread by expert is alike on all of them
    const double over = s.zero > 1 ? (expert ? double(s.zero) : double(s.zero * s.experts)) : 1;
    mine += size(p) * double(p.count) / (cut * spread * over);
  }
  out.weights = 2 * mine;
  out.gradients = 2 * mine;
  out.optimizer = 12 * mine;
  for (const Layer& l : d.layers) {
    for (const Mixer& m : l.mixers) {
      if (l.encoder)
        continue;
      // the latent vector is every head's
      const Count groups =
          m.kind == MixerKind::latent ? 1 : std::min(s.tensor, std::max<Count>(m.kv_heads, 1));
      out.cache += is_attention(m)
                       ? 2 * cached_per_token(m) * double(seen(m, context)) / double(groups)
                       : 4 * state_of(m) / double(s.tensor);
    }
  }
  return out;
}

AllToAll all_to_all(const Description& d, Count ranks, double bytes) {
  const Feed* moe = d.moe();
  if (!moe || ranks <= 1)
    return {};
  const double away = 1 - 1 / double(ranks);
  const double row = double(d.hidden) * bytes;
  // P(a device holds none of the k) = C(E - E/R, k) / C(E, k)
  const double own = double(moe->experts) / double(ranks);
  double none = 1;
  for (Count i = 0; i < moe->k; ++i)
    none *= std::max(0.0, double(moe->experts) - own - double(i)) / double(moe->experts - i);
  return {.each = double(moe->k) * away * row, .once = double(ranks - 1) * (1 - none) * row};
}

}  // namespace moe::plan
