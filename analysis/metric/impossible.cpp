#include "analysis/metric/impossible.h"

#include <algorithm>

#include "lib/core/parallel.h"
#include "lib/core/text.h"
#include "lib/trace/plausible.h"

namespace moe {
namespace {

// Up to 64 experts are a word of bits; more are compared pair by pair.
bool repeats(std::span<const int> ids, bool few) {
  if (!few)
    return names_twice(ids);
  std::uint64_t seen = 0;
  bool twice = false;
  for (const int id : ids) {
    const std::uint64_t bit = std::uint64_t{1} << id;
    twice |= (seen & bit) != 0;
    seen |= bit;
  }
  return twice;
}

}  // namespace

std::vector<std::uint8_t> repeated_choices(const LayerChoices& choices, Index tokens, int experts) {
  std::vector<std::uint8_t> out;
  for (Index t = 0; t < tokens; ++t) {
    if (!repeats(choices.of(t), experts <= 64))
      continue;
    out.resize(std::size_t(tokens), 0);
    out[t] = 1;
  }
  return out;
}

std::vector<std::uint8_t> repeated_choices(const TraceRows& rows) {
  std::vector<std::uint8_t> out;
  for (const LayerRows& layer : rows.layer) {
    for (Index t = 0; t < layer.expert.rows(); ++t) {
      if (!names_twice(layer.expert.row(t)))
        continue;
      out.resize(rows.tokens(), 0);
      out[t] = 1;
    }
  }
  return out;
}

namespace {

using Marks = std::vector<std::uint8_t>;  // (T); empty = none

void mark(Marks& marks, Index t, std::size_t tokens) {
  marks.resize(tokens, 0);
  marks[t] = 1;
}

struct OddLayer {
  Marks repeated, logits, weights, order;
};

OddLayer odd_rows(const Window& w, const TraceHeader& h, std::size_t l) {
  const LayerRows& rows = w.rows.layer[l];
  const TraceLayer& layer = h.layers[l];
  const std::size_t tokens = w.rows.tokens();
  OddLayer out;
  out.repeated = repeated_choices(w.layer[l], Index(tokens), layer.experts);
  const RowRules rules = rules_of(h, layer);
  if (rows.logits.empty() && !rules.any())
    return out;
  for (Index t = 0; t < Index(tokens); ++t) {
    const std::span<const int> ids = rows.expert.row(t);
    const auto weights = rows.weight.empty() ? std::span<const float>() : rows.weight.row(t);
    if (!rows.logits.empty() && !logits_fit(rows.logits.row(t).first(std::size_t(layer.experts))))
      mark(out.logits, t, tokens);
    if (!weights.empty() && !weights_fit(rules, ids, weights))
      mark(out.weights, t, tokens);
    if (!order_fits(rules, ids, weights))
      mark(out.order, t, tokens);
  }
  return out;
}

bool any_at(const std::vector<OddLayer>& layers, Marks OddLayer::*kind, std::size_t t) {
  return std::ranges::any_of(
      layers, [&](const OddLayer& l) { return !(l.*kind).empty() && (l.*kind)[t] != 0; });
}

std::string of_rows(const OddRows& odd, std::uint64_t tokens, const std::string& what) {
  return concat(odd.rows, " of ", tokens, " tokens ", what, " (first: row ", odd.first, ")");
}

}  // namespace

void keep_possible(Window& w, const TraceHeader& h, ImpossibleRows& all) {
  std::vector<OddLayer> odd(w.layer.size());
  parallel_for(Index(odd.size()), 1, [&](Index first, Index last) {
    for (Index l = first; l < last; ++l)
      odd[l] = odd_rows(w, h, std::size_t(l));
  });
  const std::pair<Marks OddLayer::*, OddRows*> kinds[] = {{&OddLayer::repeated, &all.repeated},
                                                          {&OddLayer::logits, &all.logits},
                                                          {&OddLayer::weights, &all.weights},
                                                          {&OddLayer::order, &all.order}};
  const auto is_odd = [&](const OddLayer& l) {
    return !l.repeated.empty() || !l.logits.empty() || !l.weights.empty() || !l.order.empty();
  };
  const bool any = std::ranges::any_of(odd, is_odd);
  for (std::size_t t = 0; t < w.rows.tokens(); ++t) {
    if (!w.rows.valid(t))
      continue;
    bool possible = true;
    for (const auto& [kind, count] : kinds) {
      if (!any || !any_at(odd, kind, t))
        continue;
      count->seen(w.rows.first + t);
      possible &= kind != &OddLayer::repeated && kind != &OddLayer::logits;
    }
    if (possible)
      w.valid.push_back(Index(t));
    else
      ++all.left_out;
  }
  for (OddLayer& l : odd)
    w.odd_weights.push_back(std::move(l.weights));
}

std::vector<std::string> ImpossibleRows::sentences(std::uint64_t tokens) const {
  std::vector<std::string> out;
  if (repeated.rows > 0) {
    out.push_back(
        of_rows(repeated, tokens,
                "have one expert in several slots of a layer, which no top-k gives") +
        ": they are left out of every figure. Zeros in the place of routing that was not recorded "
        "look like this");
  }
  if (logits.rows > 0) {
    out.push_back(of_rows(logits, tokens, "have logits that are NaN or infinite in a layer") +
                  ": what was chosen by them means nothing, and they are left out of every figure");
  }
  if (weights.rows > 0) {
    out.push_back(of_rows(weights, tokens,
                          "have combine weights in a layer that are negative or whose sum is not "
                          "what the trace says") +
                  ": sums of weights leave them out");
  }
  if (order.rows > 0) {
    out.push_back(of_rows(order, tokens,
                          "have choices in a layer that are not in the order that the trace says") +
                  ": their first choices may not be the first");
  }
  return out;
}

std::string ImpossibleRows::why_left_out(std::uint64_t tokens) const {
  std::vector<std::string> out = sentences(tokens);
  out.resize(std::size_t(repeated.rows > 0) + std::size_t(logits.rows > 0));
  return join(out, "; ");
}

}  // namespace moe
