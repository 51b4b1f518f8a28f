// Walking the layouts.
#include "lib/plan/search.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/serving/eplb.h"

namespace moe::plan {
namespace {

constexpr Count most_pp = 64, most_tp = 16, most_vp = 8, most_mbs = 16;
constexpr Count usual_sequences = 16;  // of a step, a device

// What is tried of a key: what --layout says, or powers of two.
std::vector<Count> tried(const Layout& base, const char* key, Count said, Count most) {
  std::vector<Count> out;
  if (base.fixes(key))
    return {said};
  for (Count n = 1; n <= most; n *= 2)
    out.push_back(n);
  return out;
}

std::vector<bool> recomputed(const Layout& base) {
  return base.fixes("recompute") ? std::vector{base.recompute} : std::vector{false, true};
}

// Layouts of one (tp, pp, ep), those that do not divide left out.
void add_shapes(std::vector<Layout>& out, Layout l, const Architecture& a) {
  const auto layers = Count(a.layers.size());
  const std::vector<Count> sizes = tried(l, "mbs", l.mbs, most_mbs);
  for (const Count vp : tried(l, "vp", l.vp, l.pp > 1 ? most_vp : 1)) {
    if (l.pp * vp > layers)
      continue;
    for (const Count mbs : sizes) {
      if (l.gbs % (mbs * l.dp) != 0)
        continue;
      for (const bool recompute : recomputed(l)) {
        l.vp = vp;
        l.mbs = mbs;
        l.recompute = recompute;
        out.push_back(l);
      }
    }
  }
}

bool divides_heads(const Architecture& a, Count tp) {
  return std::ranges::all_of(a.layers, [&](const LayerShape& l) {
    return std::ranges::all_of(l.mixers, [&](const MixerShape& m) { return m.heads % tp == 0; });
  });
}

std::vector<Layout> layouts(const Architecture& a, const Cluster& c, const Layout& base) {
  std::vector<Layout> out;
  const Count devices = c.devices();
  const FeedShape* moe = a.moe();
  for (const Count tp : tried(base, "tp", base.tp, std::min(most_tp, c.gpus))) {
    for (const Count pp : tried(base, "pp", base.pp, std::min(most_pp, Count(a.layers.size())))) {
      const Count dp = devices / (tp * pp);
      if (devices % (tp * pp) != 0 || !divides_heads(a, tp) || (base.fixes("dp") && base.dp != dp))
        continue;
      const Count ranks = devices / pp;
      for (const Count ep : tried(base, "ep", base.ep, moe ? std::min(moe->experts, ranks) : 1)) {
        if (ranks % ep != 0 || (moe && moe->experts % ep != 0))
          continue;
        Layout l = base;
        l.tp = tp;
        l.pp = pp;
        l.ep = ep;
        l.dp = dp;
        add_shapes(out, l, a);
      }
    }
  }
  return out;
}

Terms more(const Terms& seconds, std::initializer_list<Term> faster) {
  Terms out = seconds;
  for (const Term t : faster)
    out[std::size_t(t)] /= 1.1;
  return out;
}

}  // namespace

Candidate candidate_of(const Architecture& a, const Cluster& c, const Layout& l,
                       const StepOptions& options, const Terms& factors) {
  Candidate out{.layout = l, .parts = step_parts(a, c, l, options)};
  out.memory = training_memory(a, c, l);
  out.tokens = tokens_per_s(out.parts, factors);
  return out;
}

SearchResult search_layouts(const Architecture& a, const Cluster& c, const Layout& base,
                            const StepOptions& options, const Terms& factors, double usable,
                            std::size_t most) {
  Layout start = base;
  if (start.gbs == 0)
    start.gbs = usual_sequences * c.devices();
  SearchResult out;
  for (const Layout& l : layouts(a, c, start)) {
    ++out.tried;
    if (training_memory(a, c, l).all() > usable * c.device.memory)
      continue;
    ++out.fitting;
    out.best.push_back(candidate_of(a, c, l, options, factors));
  }
  std::ranges::stable_sort(
      out.best, [](const Candidate& x, const Candidate& y) { return x.tokens > y.tokens; });
  if (out.best.size() > most)
    out.best.resize(most);
  return out;
}

std::vector<Gain> sensitivity(const Candidate& c, const Terms& factors) {
  const double now = step_seconds(c.parts, factors);
  const auto gain = [&](const char* what, std::initializer_list<Term> faster) {
    StepParts then = c.parts;
    then.seconds = more(c.parts.seconds, faster);
    return Gain{what, 100 * (now / step_seconds(then, factors) - 1)};
  };
  return {gain("FLOP/s", {Term::narrow, Term::wide}),
          gain("memory bandwidth", {Term::rows, Term::optimizer}),
          gain("links of a node", {Term::link}), gain("network", {Term::net, Term::gradients}),
          gain("speed of launching", {Term::launch, Term::graphs})};
}

double balanced_imbalance(const ChoiceLaw& law, Count ranks, Count extra) {
  double sum = 0;
  for (const auto& p : law.layer) {
    const EplbPlan plan = eplb_plan(p, {.replicas = int(law.experts + extra), .gpus = int(ranks)});
    sum += 1 / plan.balancedness;
  }
  return sum / double(law.layer.size());
}

}  // namespace moe::plan
