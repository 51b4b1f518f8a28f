// FLOPs of a token, taken apart, and the sums that publications mean.
#include "lib/plan/conventions.h"

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe::plan {
namespace {

// Keys that a token of a sequence sees, mean over its positions: position i sees i, a window W at
// most W.
double mean_seen(const MixerShape& m, Count context) {
  const auto n = double(context);
  const auto w = double(keys_seen(m, context));
  return (w * (w + 1) / 2 + (n - w) * w) / n;
}

// Of one layer's mixers, without products with weights.
double mixing(const LayerShape& l, Count context, bool causal) {
  double sum = 0;
  for (const MixerShape& m : l.mixers) {
    const double full = mixing_flops(m, context);
    const bool cut = causal && m.attends() && !m.cross && l.stack == Stack::decoder;
    sum += cut ? full * mean_seen(m, context) / double(keys_seen(m, context)) : full;
  }
  return sum;
}

// A block like the last, a matrix that joins two rows, and the output matrix once more
// (DeepSeek-V3, arXiv 2412.19437, 2.2).
double of_further_layers(const Architecture& a, Count context) {
  if (a.further_layers == 0 || a.layers.empty())
    return 0;
  Architecture one = a;
  one.further_layers = 0;
  one.tied = false;
  one.layers = {a.layers.back()};
  const double joined = 4 * double(a.hidden) * double(a.hidden);
  return double(a.further_layers) *
         (moe::flops(one, context).products + joined + mixing(a.layers.back(), context, true));
}

Architecture without_windows(Architecture a) {
  for (LayerShape& l : a.layers) {
    for (MixerShape& m : l.mixers)
      m.window = 0;
  }
  return a;
}
Architecture with_two_matrices(Architecture a) {
  for (LayerShape& l : a.layers) {
    if (l.feed && l.feed->is_moe() && l.feed->matrices > 2)
      l.feed->matrices = 2;
  }
  return a;
}

}  // namespace

TokenFlops token_flops(const Architecture& a, Count context) {
  TokenFlops out;
  const double head = 2 * double(a.vocabulary) * double(a.hidden);
  out.output = a.head ? head : 0;
  out.embedding = head;
  out.products = moe::flops(a, context).products - out.output;
  for (const LayerShape& l : a.layers) {
    out.full += mixing(l, context, false);
    out.causal += mixing(l, context, true);
  }
  out.further = of_further_layers(a, context);
  return out;
}

const std::vector<Convention>& conventions() {
  static const std::vector<Convention> all{
      {"forward, full", "every token sees the whole context; what a token costs at the end of it",
       1, false},
      {"forward, causal", "mean over the tokens of a sequence", 1, true},
      {"training, full", "three forwards (backward is two)", 3, false},
      {"training, causal", "three forwards; what NVIDIA's trainers publish TFLOP/s in", 3, true},
      {"training, causal, MTP", "with the layers that predict further tokens", 3, true, true},
      {"training, causal, embedding", "the input embedding as a product, as older papers count", 3,
       true, false, true},
      {"training, causal, no windows",
       "windows ignored, and two matrices of a gated expert: what NVIDIA publishes gpt-oss in", 3,
       true, false, false, false, false}};
  return all;
}

const Convention& convention(std::string_view name) {
  for (const Convention& c : conventions()) {
    if (c.name == name)
      return c;
  }
  throw Error(Exit::bug, concat("no convention of FLOPs is named '", name, "'"));
}

double flops(const Architecture& whole, Count context, const Convention& c) {
  Architecture a = c.windows ? whole : without_windows(whole);
  if (!c.gates)
    a = with_two_matrices(std::move(a));
  const TokenFlops f = token_flops(a, context);
  return c.passes * (f.products + f.output + (c.causal ? f.causal : f.full) +
                     (c.further ? f.further : 0) + (c.embedding ? f.embedding : 0));
}

}  // namespace moe::plan
