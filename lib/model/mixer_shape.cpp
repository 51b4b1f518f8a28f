// Formulas of the families' own code, one function a kind.
#include "lib/model/mixer_shape.h"

#include <algorithm>

namespace moe {
namespace {

constexpr ModelPart part = ModelPart::attention;

void attention(const MixerShape& m, Count hidden, PieceList& out) {
  const Count q = m.heads * m.head_dim * (m.gate_in_query ? 2 : 1);
  const Count kv = m.kv_heads * m.head_dim;
  const Count values = m.keys_are_values ? 0 : m.kv_heads * m.values();
  if (m.in_experts)
    return out.matrix(part, kv, hidden, 2);
  out.matrix(part, q, hidden);
  if (values == kv) {
    out.matrix(part, kv, hidden, 2);
  } else {
    out.matrix(part, kv, hidden);
    out.matrix(part, values, hidden);
  }
  out.matrix(part, hidden, m.heads * m.values());
  if (m.qkv_bias)
    out.vector(part, q + kv + values);
  out.vector(part, m.qk_norm);
  out.vector(part, m.bias_table);
}

// Queries, a key and weights of the heads, and the norm of the key; nothing trains them.
void indexer(const MixerShape& m, Count hidden, PieceList& out) {
  const auto add = [&](Count rows, Count cols, bool multiplied) {
    out.add({part, rows, cols, 1, 1, multiplied, MovedBy::nothing});
  };
  if (m.index_heads == 0)
    return;
  add(m.index_heads * m.index_dim, m.q_rank, true);
  add(m.index_dim, hidden, true);
  add(m.index_heads, hidden, true);
  add(1, 2 * m.index_dim, false);
}

// DeepSeek-V2, 2405.04434. Only compressed queries have a bias.
void latent(const MixerShape& m, Count hidden, PieceList& out) {
  const Count q = m.heads * (m.nope + m.rope);
  out.matrix(part, m.kv_rank + m.rope, hidden);
  out.vector(part, m.kv_rank);
  out.matrix(part, m.heads * (m.nope + m.value), m.kv_rank);
  out.matrix(part, hidden, m.heads * m.value);
  if (m.qkv_bias)
    out.vector(part, m.q_rank + m.kv_rank + m.rope);
  if (m.q_rank == 0)
    return out.matrix(part, q, hidden);
  indexer(m, hidden, out);
  out.matrix(part, m.q_rank, hidden);
  out.vector(part, m.q_rank);
  out.matrix(part, q, m.q_rank);
}

void mamba1(const MixerShape& m, Count hidden, PieceList& out) {
  out.matrix(part, 2 * m.inner, hidden);
  out.matrix(part, m.rank + 2 * m.state, m.inner);
  out.matrix(part, m.inner, m.rank);
  out.matrix(part, hidden, m.inner);
  // convolution of 4 with bias
  out.vector(part, 5 * m.inner);
  out.vector(part, 2 * m.inner + m.inner * m.state);  // bias of dt, D, A
  out.vector(part, m.rank + 2 * m.state);             // norms
}

void mamba2(const MixerShape& m, Count hidden, PieceList& out) {
  const Count mixed = m.inner + 2 * m.groups * m.state;
  out.matrix(part, m.inner + mixed + m.heads, hidden);
  out.matrix(part, hidden, m.inner);
  out.vector(part, 5 * mixed + 3 * m.heads + m.inner);
}

// q, k, v and the output's gate, then the output
void lightning(const MixerShape& m, Count hidden, PieceList& out) {
  const Count inner = m.heads * m.head_dim;
  out.matrix(part, inner, hidden, 4);
  out.matrix(part, hidden, inner);
  out.vector(part, inner);
}

// LFM2: one product for both gates and the input, then a kernel for each channel on its own
void short_conv(const MixerShape& m, Count hidden, PieceList& out) {
  out.matrix(part, 3 * m.inner, hidden);
  out.matrix(part, m.inner, m.kernel);
  out.matrix(part, hidden, m.inner);
  if (m.conv_bias)
    out.vector(part, 4 * m.inner + hidden);
}

}  // namespace

std::string_view name_of(MixerKind kind) {
  constexpr std::string_view names[] = {"attention",
                                        "latent attention",
                                        "Mamba",
                                        "Mamba-2",
                                        "lightning attention",
                                        "short convolution",
                                        "gated delta net",
                                        "Kimi delta attention",
                                        "RWKV-4",
                                        "RWKV-6",
                                        "RWKV-7",
                                        "RWKV channel mix",
                                        "compressed attention"};
  return names[std::size_t(kind)];
}

void add_pieces(const MixerShape& m, Count hidden, PieceList& out) {
  for (const WeightPiece& p : m.own)
    out.add(p);
  if (!m.own.empty())
    return;
  constexpr void (*add[])(const MixerShape&, Count, PieceList&) = {
      attention, latent, mamba1, mamba2, lightning, short_conv};
  add[std::size_t(m.kind)](m, hidden, out);
  if (!m.gate_in_query)
    out.matrix(part, m.gates, hidden);
  if (m.o_bias)
    out.vector(part, hidden);
  if (m.sinks)
    out.vector(part, m.heads);
}

namespace {

// Compressed keys of so many rows, and how many of them a query attends to.
double entries_of(const MixerShape& m, Count context) {
  return m.rate > 0 ? double(context / m.rate) : 0;
}
double entry_flops(const MixerShape& m, Count context) {
  const double all = entries_of(m, context);
  const double near = double(m.window > 0 ? std::min(m.window, context) : context);
  const double far = m.index_topk > 0 ? std::min(all, double(m.index_topk)) : all;
  return 4.0 * (near + far) * double(m.heads * m.head_dim) +
         2.0 * all * double(m.index_heads * m.index_dim);
}

}  // namespace

// A query of compressed attention sees its window and what stands for all rows before.
Count keys_seen(const MixerShape& m, Count context) {
  if (m.kind == MixerKind::compressed)
    return context;
  return m.window > 0 ? std::min(m.window, context) : context;
}

double mixing_flops(const MixerShape& m, Count context) {
  if (m.kind == MixerKind::compressed)
    return entry_flops(m, context);
  if (!m.own.empty())
    return m.own_flops;
  const double seen = double(keys_seen(m, context));
  switch (m.kind) {
    case MixerKind::attention:
      return 2.0 * seen * double(m.heads * (m.head_dim + m.values()));
    case MixerKind::latent: {
      const double attended = m.index_topk > 0 ? std::min(seen, double(m.index_topk)) : seen;
      return 2.0 * attended * double(m.heads) * double(m.nope + m.rope + m.value) +
             2.0 * seen * double(m.index_heads * m.index_dim);
    }
    case MixerKind::lightning:
      return 6.0 * double(m.heads) * double(m.head_dim) * double(m.head_dim);
    case MixerKind::short_conv:
      return 0;
    default:
      return 6.0 * double(m.inner) * double(m.state);
  }
}

double cached_per_token(const MixerShape& m) {
  switch (m.kind) {
    case MixerKind::attention:
      return double(m.kv_heads * (m.head_dim + m.values()));
    case MixerKind::latent:
      return double(m.kv_rank + m.rope + (m.index_heads > 0 ? m.index_dim : 0));
    case MixerKind::compressed:
      return (m.window > 0 ? 0 : double(m.head_dim)) +
             (m.rate > 0 ? double(m.head_dim + m.index_dim) / double(m.rate) : 0);
    default:
      return 0;
  }
}

double state_numbers(const MixerShape& m) {
  if (m.kind == MixerKind::compressed)
    return double(m.window * m.head_dim);
  if (!m.own.empty())
    return double(m.own_state);
  switch (m.kind) {
    case MixerKind::mamba1:
      return double(m.inner) * double(m.state + 3);
    case MixerKind::mamba2:
      return double(m.inner) * double(m.state) + 3.0 * double(m.inner + 2 * m.groups * m.state);
    case MixerKind::lightning:
      return double(m.heads) * double(m.head_dim) * double(m.head_dim);
    case MixerKind::short_conv:
      return double(m.inner) * double(m.kernel - 1);
    default:
      return 0;
  }
}

}  // namespace moe
