// The matrices and vectors of a description (formulas of the families' own code).
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/plan/cost.h"

namespace moe::plan {
namespace {

struct Builder {
  const Description& d;
  std::vector<Piece> out;

  void matrix(Part part, Count rows, Count cols, Count count = 1, double active = -1) {
    if (rows > 0 && cols > 0 && count > 0)
      out.push_back({part, rows, cols, count, active < 0 ? double(count) : active, true});
  }
  void vector(Part part, Count size, Count count = 1, double active = -1) {
    if (size > 0 && count > 0)
      out.push_back({part, 1, size, count, active < 0 ? double(count) : active, false});
  }

  void attention(const Mixer& m) {
    const Count q = m.heads * m.head_dim;
    const Count kv = m.kv_heads * m.head_dim;
    const Count h = d.hidden;
    matrix(Part::attention, q, h);
    matrix(Part::attention, kv, h, 2);
    matrix(Part::attention, h, q);
    if (m.qkv_bias)
      vector(Part::attention, q + 2 * kv);
    if (m.o_bias)
      vector(Part::attention, h);
    if (m.qk_norm == QkNorm::head)
      vector(Part::attention, 2 * m.head_dim);
    if (m.qk_norm == QkNorm::full)
      vector(Part::attention, q + kv);
    if (m.sinks)
      vector(Part::attention, m.heads);
  }
  void latent(const Mixer& m) {
    const Count q = m.heads * (m.nope + m.rope);
    matrix(Part::attention, m.kv_rank + m.rope, d.hidden);
    vector(Part::attention, m.kv_rank);
    matrix(Part::attention, m.heads * (m.nope + m.value), m.kv_rank);
    matrix(Part::attention, d.hidden, m.heads * m.value);
    if (m.q_rank == 0)
      return matrix(Part::attention, q, d.hidden);
    matrix(Part::attention, m.q_rank, d.hidden);
    vector(Part::attention, m.q_rank);
    matrix(Part::attention, q, m.q_rank);
  }
  void mamba1(const Mixer& m) {
    matrix(Part::attention, 2 * m.inner, d.hidden);
    matrix(Part::attention, m.rank + 2 * m.state, m.inner);
    matrix(Part::attention, m.inner, m.rank);
    matrix(Part::attention, d.hidden, m.inner);
    // convolution of 4 with bias
    vector(Part::attention, 5 * m.inner);
    vector(Part::attention, 2 * m.inner + m.inner * m.state);  // bias of dt, D, A
    vector(Part::attention, m.rank + 2 * m.state);             // norms
  }
  void mamba2(const Mixer& m) {
    const Count mixed = m.inner + 2 * m.groups * m.state;
    matrix(Part::attention, m.inner + mixed + m.heads, d.hidden);
    matrix(Part::attention, d.hidden, m.inner);
    vector(Part::attention, 5 * mixed + 3 * m.heads + m.inner);
  }
  void lightning(const Mixer& m) {  // q, k, v and the output's gate, then the output
    const Count inner = m.heads * m.head_dim;
    matrix(Part::attention, inner, d.hidden, 4);
    matrix(Part::attention, d.hidden, inner);
    vector(Part::attention, inner);
  }
  void mixer(const Mixer& m) {
    switch (m.kind) {
      case MixerKind::attention:
        return attention(m);
      case MixerKind::latent:
        return latent(m);
      case MixerKind::mamba1:
        return mamba1(m);
      case MixerKind::mamba2:
        return mamba2(m);
      case MixerKind::lightning:
        return lightning(m);
    }
  }
  void body(Part part, Count width, int matrices, bool bias, Count count, double active) {
    matrix(part, width, d.hidden, (matrices - 1) * count, double(matrices - 1) * active);
    matrix(part, d.hidden, width, count, active);
    if (bias && width > 0)
      vector(part, (matrices - 1) * width + d.hidden, count, active);
  }
  void feed(const Feed& f) {
    if (f.experts == 0)
      return body(Part::dense, f.width, f.matrices, f.bias, 1, 1);
    if (f.router) {
      matrix(Part::router, 1, f.router->second);
      vector(Part::router, f.router->first - f.router->second);
    } else {
      matrix(Part::router, f.experts, d.hidden);
    }
    if (f.router_bias)
      vector(Part::router, f.experts);
    if (f.correction_bias)
      vector(Part::router, f.experts);
    const double share = double(f.k) / double(f.experts);  // of the experts, where they differ
    if (f.widths.empty())
      body(Part::experts, f.width, f.matrices, f.bias, f.experts, double(f.k));
    for (const Count width : f.widths)
      body(Part::experts, width, f.matrices, f.bias, 1, share);
    if (f.light > 0)
      vector(Part::experts, f.light, 1, share);
    if (f.shared_width > 0)
      body(Part::shared, f.shared_width, f.matrices, f.router && f.bias, 1, 1);
    if (f.shared_gate)
      matrix(Part::shared, 1, d.hidden);
  }
  void layer(const Layer& l) {
    for (const Mixer& m : l.mixers)
      mixer(m);
    if (l.feed)
      feed(*l.feed);
    vector(Part::rest, Count(l.norms) * d.hidden * (d.norm_bias ? 2 : 1));
  }
};

}  // namespace

std::vector<Piece> pieces(const Description& d) {
  Builder b{d, {}};
  const bool shared = d.tied && d.head;  // one matrix, looked up and multiplied
  b.out.push_back({Part::embedding, d.vocabulary, d.hidden, 1, 1, shared});
  if (d.head && !d.tied)
    b.matrix(Part::head, d.vocabulary, d.hidden);
  for (const Layer& l : d.layers)
    b.layer(l);
  b.vector(Part::rest, Count(d.final_norms) * d.hidden * (d.norm_bias ? 2 : 1));
  for (const Extra& e : d.extra)
    b.vector(Part::rest, e.parameters);
  Count sum = 0;
  for (const Piece& p : b.out) {
    Count size = 0;
    if (__builtin_mul_overflow(p.rows, p.cols, &size) ||
        __builtin_mul_overflow(size, p.count, &size) || __builtin_add_overflow(sum, size, &sum) ||
        sum > (Count(1) << 62)) {
      throw Error(Exit::input, concat(d.name, ": the sizes multiply to more than 2^62 parameters"));
    }
  }
  return b.out;
}

}  // namespace moe::plan
