// Attention with a bias by distance, keys on both sides and padding, of the cpu backend: a task
// takes one key-value head of one sequence (backwards of all of them: the gradient of the bias is a
// sum over sequences in their order) and goes through its queries in blocks of library products.
#include <algorithm>
#include <limits>
#include <vector>

#include "lib/backend/cpu.h"
#include "lib/backend/cpu_loops.h"
#include "lib/backend/gemm.h"

namespace moe {
namespace {

constexpr Index block_rows = 64;  // queries of a block
// in the place of minus infinity: the exponential of what is so far below the others is 0
constexpr float unseen = -1e30f;

using In = View<const float>;
using Out = View<float>;

Operand rows_of(In m, Index row, Index column, Op op = Op::plain) {
  return {m.data + row * m.cols + column, m.cols, op};
}

struct Sequence {
  Index query, queries, key, keys;
};

// What both passes share: sequences, scores of a block of queries by all keys of their sequence.
struct Scores {
  In q, k, bias;
  const AttentionShape& a;
  const KeyRule& rule;

  Sequence sequence(Index s) const {
    const std::size_t n = std::size_t(s);
    return {a.query_start[n], a.query_start[n + 1] - a.query_start[n], a.key_start[n],
            a.key_start[n + 1] - a.key_start[n]};
  }
  Index sequences() const {
    return Index(a.query_start.size()) - 1;
  }
  Index most_keys() const {
    Index most = 0;
    for (Index s = 0; s < sequences(); ++s)
      most = std::max(most, sequence(s).keys);
    return most;
  }
  double work() const {
    double sum = 0;
    for (Index s = 0; s < sequences(); ++s)
      sum += 2 * double(sequence(s).queries) * double(sequence(s).keys) * double(q.cols);
    return sum;
  }
  Index zero(const Sequence& s, Index i) const {  // column of the bias of key 0
    return (bias.cols + 1) / 2 - 1 - (rule.causal ? s.keys - s.queries + i : i);
  }
  KeyRange seen(const Sequence& s, Index i) const {
    return keys_of_query(a, rule, s.query + i, i, s.queries, s.keys);
  }
  // (rows, keys) of queries from `first`: scaled, with bias, `unseen` where a key is padding
  void block(const Sequence& s, Index h, Index first, Index rows, float* p) const {
    const Index d = a.head_dim;
    const Index g = h / (a.heads / a.kv_heads);
    gemm(rows, s.keys, d, rows_of(q, s.query + first, h * d),
         rows_of(k, s.key, g * d, Op::transposed), 0, p, s.keys);
    for (Index i = 0; i < rows; ++i) {
      float* row = p + i * s.keys;
      loops::scaled(row, row, float(a.scale), s.keys);
      const KeyRange range = seen(s, first + i);
      if (bias.size() > 0) {
        loops::add(&bias(h, zero(s, first + i) + range.first), row + range.first, 1,
                   range.last - range.first);
      }
      fill_padding(s, range, row, unseen);
    }
  }
  void fill_padding(const Sequence& s, KeyRange range, float* row, float value) const {
    for (Index j = range.first; !rule.valid.empty() && j < range.last; ++j) {
      if (!rule.valid[std::size_t(s.key + j)])
        row[j] = value;
    }
  }
};

struct Forward {
  Scores score;
  In v;
  Out out, lse;

  void head(Memory& memory, const Sequence& s, Index h) const {
    const Index n = score.a.value_columns();
    const Index g = h / (score.a.heads / score.a.kv_heads);
    Array<float> buffer(memory, block_rows, s.keys);
    float* p = buffer.view().data;
    for (Index first = 0; first < s.queries; first += block_rows) {
      const Index rows = std::min(block_rows, s.queries - first);
      score.block(s, h, first, rows, p);
      float inverse[block_rows];
      for (Index i = 0; i < rows; ++i)
        inverse[i] = softmax(s, p + i * s.keys, first + i, &lse(s.query + first + i, h));
      gemm(rows, n, s.keys, {p, s.keys}, rows_of(v, s.key, g * n), 0, &out(s.query + first, h * n),
           out.cols);
      for (Index i = 0; i < rows; ++i) {
        float* y = &out(s.query + first + i, h * n);
        loops::scaled(y, y, inverse[i], n);
      }
    }
  }
  // Returns 1/sum, 0 where no key is seen.
  float softmax(const Sequence& s, float* row, Index i, float* row_lse) const {
    const KeyRange seen = score.seen(s, i);
    float inverse = 0;
    if (seen.last > seen.first)
      inverse = loops::softmax(row, seen.first, seen.last, s.keys, 1, row_lse);
    if (seen.last > seen.first && *row_lse > unseen / 2) {
      score.fill_padding(s, seen, row, 0);  // not the smallest exponential either
      return inverse;
    }
    std::fill_n(row, s.keys, 0.0f);
    *row_lse = -std::numeric_limits<float>::infinity();
    return 0;
  }
};

struct Backward {
  Scores score;
  In v, out, lse, dout;
  Out dq, dk, dv, dbias;

  void group(Memory& memory, Index g) const {
    const AttentionShape& a = score.a;
    Array<float> p(memory, block_rows, score.most_keys()),
        ds(memory, block_rows, score.most_keys());
    const Index sharing = a.heads / a.kv_heads;
    for (Index n = 0; n < score.sequences(); ++n) {
      const Sequence s = score.sequence(n);
      for (Index j = 0; j < s.keys; ++j) {
        std::fill_n(&dk(s.key + j, g * a.head_dim), a.head_dim, 0.0f);
        std::fill_n(&dv(s.key + j, g * a.value_columns()), a.value_columns(), 0.0f);
      }
      for (Index h = g * sharing; h < (g + 1) * sharing; ++h) {
        for (Index first = 0; first < s.queries; first += block_rows)
          block(s, h, first, p.view().data, ds.view().data);
      }
    }
  }
  void block(const Sequence& s, Index h, Index first, float* p, float* ds) const {
    const AttentionShape& a = score.a;
    const Index d = a.head_dim;
    const Index m = a.value_columns();
    const Index g = h / (a.heads / a.kv_heads);
    const Index rows = std::min(block_rows, s.queries - first);
    const Index row = s.query + first;
    score.block(s, h, first, rows, p);
    gemm(rows, s.keys, m, rows_of(dout, row, h * m), rows_of(v, s.key, g * m, Op::transposed), 0,
         ds, s.keys);
    for (Index i = 0; i < rows; ++i)
      by_scores(s, h, first + i, p + i * s.keys, ds + i * s.keys);
    gemm(s.keys, m, rows, {p, s.keys, Op::transposed}, rows_of(dout, row, h * m), 1,
         &dv(s.key, g * m), dv.cols);
    // of the products, without their scale until here
    for (Index i = 0; i < rows; ++i)
      loops::scaled(ds + i * s.keys, ds + i * s.keys, float(a.scale), s.keys);
    gemm(rows, d, s.keys, {ds, s.keys}, rows_of(score.k, s.key, g * d), 0, &dq(row, h * d),
         dq.cols);
    gemm(s.keys, d, rows, {ds, s.keys, Op::transposed}, rows_of(score.q, row, h * d), 1,
         &dk(s.key, g * d), dk.cols);
  }
  // ds by probabilities becomes ds by scores, and goes into the gradient of the bias.
  void by_scores(const Sequence& s, Index h, Index i, float* p, float* ds) const {
    const Index m = score.a.value_columns();
    const Index row = s.query + i;
    KeyRange seen = score.seen(s, i);
    if (!(lse(row, h) > unseen / 2))
      seen.last = seen.first;
    const float delta = loops::dot(&out(row, h * m), &dout(row, h * m), m);
    loops::softmax_backward(p, ds, seen.first, seen.last, s.keys, 1, lse(row, h), delta);
    score.fill_padding(s, seen, p, 0);
    score.fill_padding(s, seen, ds, 0);
    if (dbias.size() > 0) {
      loops::add(ds + seen.first, &dbias(h, score.zero(s, i) + seen.first), 1,
                 seen.last - seen.first);
    }
  }
};

}  // namespace

void Cpu::biased_attention(In q, In k, In v, In bias, const AttentionShape& a, const KeyRule& rule,
                           Out out, Out lse) {
  const Forward work{{q, k, bias, a, rule}, v, out, lse};
  run_tasks(work.score.sequences() * a.heads, work.score.work(),
            [&](Index i) { work.head(*this, work.score.sequence(i / a.heads), i % a.heads); });
}

void Cpu::biased_attention_backward(In q, In k, In v, In bias, In out, In lse, In dout,
                                    const AttentionShape& a, const KeyRule& rule, Out dq, Out dk,
                                    Out dv, Out dbias) {
  const Backward work{{q, k, bias, a, rule}, v, out, lse, dout, dq, dk, dv, dbias};
  run_tasks(a.kv_heads, 3 * work.score.work(), [&](Index g) { work.group(*this, g); });
}

}  // namespace moe
