// Sums for one kind of device.
#include "lib/plan/serving.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/core/error.h"
#include "lib/plan/conventions.h"

namespace moe::plan {
namespace {

constexpr Count most_devices = 65536;
constexpr int wide = 16;  // bits of what is not quantised

double expert_layers(const Architecture& a) {
  return double(a.moe_layers());
}

// Keys and values of a sequence on the device that holds most of them.
double sequence_bytes(const Serving& s, Cut cut, Count devices) {
  double sum = 0;
  for (const LayerShape& l : s.model.layers) {
    for (const MixerShape& m : l.mixers) {
      if (l.stack == Stack::encoder)
        continue;
      const Count heads = std::max<Count>(m.kv_heads, 1);
      const Count over =
          cut == Cut::expert || m.kind == MixerKind::latent ? 1 : std::min(devices, heads);
      sum +=
          cached_per_token(m) * double(keys_seen(m, s.context)) * s.cache_bits / 8 / double(over);
      sum += 4 * state_numbers(m) / double(cut == Cut::expert ? 1 : devices);
    }
  }
  return sum;
}

// Of a pass of `chunk` tokens: the row of each token, what the widest layer makes of it, and logits
// of its last.
double activation_bytes(const Serving& s) {
  double widest = 0;
  for (const LayerShape& l : s.model.layers) {
    double width = 0;
    for (const MixerShape& m : l.mixers)
      width +=
          double(m.heads * std::max(m.head_dim, m.nope + m.rope) + 2 * m.kv_heads * m.head_dim);
    if (l.feed) {
      const double bodies = l.feed->is_moe() ? double(l.feed->k) : 1;
      width = std::max(width, bodies * double((l.feed->matrices - 1) * l.feed->width) +
                                  bodies * double(s.model.hidden));
    }
    widest = std::max(widest, width);
  }
  return double(s.chunk) * 2 * (3 * double(s.model.hidden) + widest) +
         4 * double(s.model.vocabulary);
}

// Bytes of weights that a device reads in a pass which touches `distinct` experts of each layer; of
// the input embedding one row a token.
double weights_read(const Serving& s, const Spread& spread, double distinct, double tokens) {
  const double over = double(spread.devices);
  const double rest = spread.cut == Cut::tensor ? over : 1;
  double sum = 0;
  for (const WeightPiece& p : pieces(s.model)) {
    const double one = s.weights.bytes(p);
    if (p.part == ModelPart::embedding && !p.multiplied) {
      sum += one / double(p.rows) * std::min(tokens, double(p.rows)) / rest;
    } else if (p.part == ModelPart::experts) {
      sum += one * double(p.count) * distinct / double(s.law.experts) / over;
    } else {
      sum += one * double(p.count) / (p.rows > 1 ? rest : 1);
    }
  }
  return sum;
}

// FLOPs of products with experts in the bits of their storage, of everything else in 16.
double compute_seconds(const Serving& s, Count devices, double products, double attention) {
  if (s.device.flops16 <= 0)
    return 0;
  const int bits = std::max(s.weights.bits, 4);
  return (products / s.device.flops(bits) + attention / s.device.flops(wide)) / double(devices);
}

PassBound finished(const Serving& s, Count devices, PassBound b, double products,
                   double attention) {
  b.flops = products + attention;
  b.memory_s = b.bytes / s.device.bandwidth;
  b.compute_s = compute_seconds(s, devices, products, attention);
  return b;
}

double distinct_of(const Serving& s, double tokens) {
  return s.law.layer.empty() ? 0 : s.law.distinct(tokens);
}

}  // namespace

std::string_view name_of(Cut cut) {
  return cut == Cut::tensor ? "tensor" : "expert";
}

MemoryParts memory_parts(const Serving& s) {
  MemoryParts out;
  out.experts = s.weights.part(s.model, ModelPart::experts);
  out.others = s.weights.all(s.model) - out.experts;
  out.sequence = sequence_bytes(s, Cut::expert, 1);
  out.activations = activation_bytes(s);
  return out;
}

bool can_cut(const Architecture& a, const Spread& spread) {
  const Count devices = spread.devices;
  if (devices == 1)
    return true;
  if (spread.cut == Cut::expert)
    return a.moe() && a.moe()->experts % devices == 0;
  for (const LayerShape& l : a.layers) {
    for (const MixerShape& m : l.mixers) {
      if (m.heads % devices != 0)
        return false;
    }
  }
  return true;
}

Fit fit(const Serving& s, const Spread& spread) {
  const auto [devices, cut] = spread;
  Fit out{.spread = spread};
  for (const WeightPiece& p : pieces(s.model)) {
    const bool matrix = (p.multiplied && p.part != ModelPart::router) ||
                        p.part == ModelPart::embedding || p.part == ModelPart::experts;
    const bool is_cut = cut == Cut::tensor ? matrix : p.part == ModelPart::experts;
    out.weights += s.weights.bytes(p) * double(p.count) / (is_cut ? double(devices) : 1);
  }
  out.room = s.device.memory * s.usable - out.weights - activation_bytes(s);
  const double each = sequence_bytes(s, cut, devices);
  const double on_one = out.room < 0 ? -1 : each > 0 ? std::floor(out.room / each) : 1e9;
  out.sequences = Count(cut == Cut::expert ? on_one * double(devices) : on_one);
  return out;
}

std::vector<Fit> fits(const Serving& s) {
  std::vector<Fit> out;
  if (s.device.memory <= 0)
    return out;
  Count fewest = 0;
  for (Count base = 1; base <= most_devices && (fewest == 0 || base <= 4 * fewest); base *= 2) {
    for (const Count n : {base, base + base / 2}) {
      if (base == 1 && n == 1 && !out.empty())
        continue;
      Fit best{.spread = {.devices = 0}, .sequences = -2};
      for (const Cut cut : {Cut::tensor, Cut::expert}) {
        const Spread spread{n, cut};
        if (!can_cut(s.model, spread))
          continue;
        if (const Fit f = fit(s, spread); f.sequences > best.sequences)
          best = f;
      }
      if (best.sequences > 0 && fewest == 0)
        fewest = n;
      if (best.spread.devices > 0 && best.sequences > 0 && n <= 4 * fewest)
        out.push_back(best);
    }
  }
  return out;
}

double PassBound::tokens_per_s() const {
  const double seconds = std::max(memory_s, compute_s);
  return seconds > 0 ? tokens / seconds : 0;
}

PassBound decode_bound(const Serving& s, const Spread& spread, Count batch) {
  PassBound b{.tokens = double(batch), .distinct = distinct_of(s, double(batch))};
  const TokenFlops f = token_flops(s.model, s.context);
  const double mine = spread.cut == Cut::expert
                          ? std::ceil(b.tokens / double(spread.devices))
                          : b.tokens;  // sequences that a device reads caches of
  b.bytes = weights_read(s, spread, b.distinct, b.tokens) +
            mine * sequence_bytes(s, spread.cut, spread.devices);
  return finished(s, spread.devices, b, b.tokens * (f.products + f.output), b.tokens * f.full);
}

PassBound prefill_bound(const Serving& s, const Spread& spread, Count tokens) {
  PassBound b{.tokens = double(tokens), .distinct = distinct_of(s, double(tokens))};
  const TokenFlops f = token_flops(s.model, tokens);
  b.bytes = weights_read(s, spread, b.distinct, b.tokens);
  // logits of the last token alone
  return finished(s, spread.devices, b, b.tokens * f.products + f.output, b.tokens * f.causal);
}

Count crossover(const Serving& s, const Spread& spread) {
  if (s.device.flops16 <= 0)
    return 0;
  for (Count batch = 1; batch <= Count(1) << 20; batch *= 2) {
    if (!decode_bound(s, spread, batch).by_compute())
      continue;
    Count low = batch / 2;
    while (batch - low > 1) {
      const Count middle = (low + batch) / 2;
      (decode_bound(s, spread, middle).by_compute() ? batch : low) = middle;
    }
    return batch;
  }
  return 0;
}

std::vector<RooflinePoint> roofline(const Serving& s, Count batch) {
  if (s.device.flops16 <= 0)
    throw Error(Exit::bug, "a roofline needs the device's rate of products");
  std::array<RooflinePoint, part_count> part{};
  const double distinct = distinct_of(s, double(batch));
  for (const WeightPiece& p : pieces(s.model)) {
    if (!p.multiplied)
      continue;
    RooflinePoint& r = part[std::size_t(p.part)];
    const bool expert = p.part == ModelPart::experts;
    r.flops += 2 * p.size() * p.active * double(batch);
    r.bytes +=
        s.weights.bytes(p) * double(p.count) * (expert ? distinct / double(s.law.experts) : 1);
  }
  std::vector<RooflinePoint> out;
  for (int i = 0; i < part_count; ++i) {
    part[std::size_t(i)].part = name_of(ModelPart(i));
    part[std::size_t(i)].ceiling = s.device.flops(s.weights.bits);
    if (part[std::size_t(i)].flops > 0)
      out.push_back(part[std::size_t(i)]);
  }
  RooflinePoint scores{.part = "scores and values", .ceiling = s.device.flops16};
  scores.flops = token_flops(s.model, s.context).full * double(batch);
  scores.bytes = sequence_bytes(s, Cut::expert, 1) * double(batch);
  if (scores.flops > 0 && scores.bytes > 0)
    out.push_back(scores);
  for (RooflinePoint& r : out)
    r.attainable = std::min(r.ceiling, s.device.bandwidth * r.intensity());
  return out;
}

Count most_held(const Serving& s, Count sequences) {
  const MemoryParts m = memory_parts(s);
  const double room =
      s.device.memory * s.usable - m.others - m.activations - double(sequences) * m.sequence;
  const double each = s.weights.expert(s.model) * expert_layers(s.model);
  return each > 0 ? std::clamp(Count(std::floor(room / each)), Count(-1), s.law.experts) : 0;
}

OffloadBound offload_bound(const Serving& s, const Offload& o, double hits) {
  const FeedShape* moe = s.model.moe();
  if (!moe)
    throw Error(Exit::usage, s.model.name + ": a dense model has no experts to keep elsewhere");
  OffloadBound out{.hits = hits};
  out.fetched = (1 - hits) * double(moe->k) * expert_layers(s.model) * s.weights.expert(s.model);
  out.fetch_s = out.fetched / o.bandwidth;
  const PassBound alone = decode_bound(s, {}, 1);
  out.device_s = std::max(alone.memory_s, alone.compute_s);
  out.overlapped = 1 / std::max(out.fetch_s, out.device_s);
  out.in_series = 1 / (out.fetch_s + out.device_s);
  return out;
}

}  // namespace moe::plan
