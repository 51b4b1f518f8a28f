// Small traces with known answers.
#pragma once
#include <algorithm>
#include <numeric>

#include "analysis/metric/metric.h"
#include "lib/core/rng.h"

namespace moe {

struct Make {  // T tokens, sequences of 32, steps of 64, domains in turn
  int tokens = 2048, layers = 3, experts = 8, k = 2, domains = 2;
  enum Routing { random, collapsed, by_domain, sticky } routing = random;
  bool logits = false, training = false;
  bool domain_order = false;  // one domain after another instead
  bool extras = true;         // weights, dropped, entropy, margin, pair matrices, router rows
  bool modalities = false;    // the first half of every sequence is a picture
};

inline std::vector<int> draw(const Make& m, Rng& rng) {  // k distinct experts
  std::vector<int> out;
  while (int(out.size()) < m.k) {
    if (const int e = int(rng.below(m.experts)); std::find(out.begin(), out.end(), e) == out.end())
      out.push_back(e);
  }
  return out;
}

inline TraceHeader make_header(const Make& m, Rng& rng) {
  TraceHeader h;
  for (int l = 0; l < m.layers; ++l) {
    TraceLayer layer;
    layer.index = 2 * l + 1;
    layer.experts = m.experts;
    layer.top_k = m.k;
    h.layers.push_back(layer);
    if (!m.extras)
      continue;
    Matrix<float> rows(m.experts, 16);
    for (float& v : rows.flat())
      v = float(rng.normal());
    h.router_weight.push_back(rows);
  }
  if (m.extras) {
    Matrix<float> same(m.experts, m.experts);
    for (Index i = 0; i < m.experts; ++i) {
      for (Index j = 0; j < m.experts; ++j)
        same(i, j) = i == j ? 1.0f : i + j == 1 ? 0.95f : 0.01f;  // experts 0 and 1 alike
    }
    h.pairs = {{"expert_weight_cosine", std::vector<Matrix<float>>(std::size_t(m.layers), same)}};
  }
  for (int d = 0; d < m.domains; ++d)
    h.domains.push_back("domain" + std::to_string(d));
  h.vocab_size = 64;
  if (m.modalities)
    h.modalities = {"text", "image"};
  return h;
}

// Room for the choices, and what does not touch them.
inline LayerRows make_layer(const Make& m, Rng& beside) {
  LayerRows l;
  l.expert = Matrix<int>(m.tokens, m.k, -1);
  if (!m.extras)
    return l;
  l.weight = Matrix<float>(m.tokens, m.k, 1.0f / float(m.k));
  l.dropped = Matrix<std::uint8_t>(m.tokens, m.k);
  l.out_norm = Matrix<float>(m.tokens, m.k);
  for (float& n : l.out_norm.flat())
    n = 1 + float(beside.uniform());
  l.predicted = Matrix<int>(m.tokens, m.k);
  if (m.logits) {
    l.logits = Matrix<float>(m.tokens, m.experts);
    for (float& z : l.logits.flat())
      z = float(beside.normal());
  }
  l.entropy.assign(std::size_t(m.tokens), 1.0f);
  l.margin.assign(std::size_t(m.tokens), 0.1f);
  return l;
}

inline std::vector<int> make_choices(const Make& m, const LayerRows& l, int t, int domain,
                                     Rng& rng) {
  std::vector<int> e = draw(m, rng);
  if (m.routing == Make::collapsed)
    std::iota(e.begin(), e.end(), 0);
  for (int j = 0; j < m.k; ++j) {
    if (m.routing == Make::by_domain)
      e[std::size_t(j)] = domain * m.k + j;
    if (m.routing == Make::sticky && t % 32 != 0)
      e[std::size_t(j)] = l.expert(t - 1, j);
  }
  return e;
}

struct TraceParts {  // while rows are added
  TraceRows rows;
  std::vector<TraceSequence> sequences;
  std::vector<TraceStep> steps;
};

// Row t but for its layers.
inline void add_row(const Make& m, int t, std::uint32_t id, TraceParts& p) {
  if (t % 32 == 0) {
    const int in_turn = m.domains ? t / 32 % m.domains : no_domain;
    p.sequences.push_back(
        {std::uint64_t(t), std::uint32_t(std::min(32, m.tokens - t)),
         std::uint16_t(m.domain_order ? std::int64_t(t) * m.domains / m.tokens : in_turn)});
  }
  if (t % 64 == 0) {
    p.steps.push_back({t / 64, std::uint64_t(t), std::uint32_t(std::min(64, m.tokens - t)),
                       m.training ? Phase::train : Phase::eval});
  }
  p.rows.token_id.push_back(id);
  p.rows.position.push_back(std::uint32_t(t % 32));
  p.rows.sequence.push_back(std::uint32_t(p.sequences.size() - 1));
  p.rows.step.push_back(std::uint32_t(p.steps.size() - 1));
  p.rows.flags.push_back(0);
  p.rows.rank.push_back(std::uint16_t(t % 2));
  if (m.modalities)
    p.rows.modality.push_back(t % 32 < 16);
  if (!m.extras)
    return;
  p.rows.predicted_id.push_back(id);
  p.rows.target_id.push_back(id);
  p.rows.logprob.push_back(-0.5f - float(id % 7) / 4);
}

inline MemoryTrace make_trace(const Make& m) {
  Rng rng(7);
  Rng beside(8);  // beside: what does not touch the choices
  TraceHeader h = make_header(m, rng);
  TraceParts p;
  for (int l = 0; l < m.layers; ++l)
    p.rows.layer.push_back(make_layer(m, beside));
  for (int t = 0; t < m.tokens; ++t) {
    add_row(m, t, std::uint32_t(rng.below(64)), p);
    for (LayerRows& l : p.rows.layer) {
      const std::vector<int> e = make_choices(m, l, t, int(p.sequences.back().domain), rng);
      std::copy(e.begin(), e.end(), l.expert.row(t).begin());
      const std::vector<int> guess = m.routing == Make::random ? draw(m, beside) : e;
      if (m.extras)
        std::copy(guess.begin(), guess.end(), l.predicted.row(t).begin());
    }
  }
  return {std::move(h), std::move(p.sequences), std::move(p.steps), std::move(p.rows)};
}

}  // namespace moe
