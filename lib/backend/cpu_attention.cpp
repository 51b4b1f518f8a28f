// Causal attention of the cpu backend: a task takes one head of one sequence - backwards one
// key-value head with the query heads that share it - and goes through its queries in blocks.
// Scores, outputs and gradients of a block are library products over only those keys that some
// query of the block may see.
#include <vector>

#include "lib/backend/cpu.h"
#include "lib/backend/cpu_decode.h"
#include "lib/backend/cpu_loops.h"
#include "lib/backend/gemm.h"

namespace moe {
namespace {

constexpr Index block_rows = 64;  // queries of a block

using In = View<const float>;
using Out = View<float>;

struct Sequence {
  Index query, queries, key, keys;
  const AttentionShape* shape;
  // Keys that query i may see, counted from `key`.
  Index last(Index i) const {
    return keys - queries + i + 1;
  }
  Index first(Index i) const {
    return shape->first_key(last(i) - 1);
  }
};
std::vector<Sequence> sequences(const AttentionShape& a) {
  std::vector<Sequence> out;
  for (std::size_t s = 0; s + 1 < a.query_start.size(); ++s) {
    out.push_back({a.query_start[s], a.query_start[s + 1] - a.query_start[s], a.key_start[s],
                   a.key_start[s + 1] - a.key_start[s], &a});
  }
  return out;
}

// Queries [row, row+rows) of a sequence and the keys [from, from+keys) that they see between them.
struct Block {
  Index row, rows, from, keys;
  Block(const Sequence& s, Index first)
      : row(first),
        rows(std::min(block_rows, s.queries - first)),
        from(s.first(first)),
        keys(s.last(first + rows - 1) - from) {}
};
Index most_keys(const Sequence& s) {  // that one block sees
  Index seen = s.keys;
  for (const int limit : {s.shape->window, s.shape->chunk}) {
    if (limit > 0)
      seen = std::min(seen, limit + block_rows);
  }
  return seen;
}

double work_of(const std::vector<Sequence>& all, In q) {
  double work = 0;
  for (const Sequence& s : all) {
    const double queries = s.queries <= decode::few ? decode::reading : double(s.queries);
    work += 2 * queries * double(most_keys(s)) * double(q.cols);
  }
  return work;
}

Operand rows_of(In m, Index row, Index column, Op op = Op::plain) {
  return {m.data + row * m.cols + column, m.cols, op};
}

struct Forward {
  In q, k, v;
  const AttentionShape& a;
  Out out, lse;

  // Of a sequence of few queries: query i, without library products.
  void query(Memory& memory, const Sequence& s, Index h, Index i) const {
    const Index g = h / (a.heads / a.kv_heads);
    const Index n = a.value_columns();
    const Index row = s.query + i;
    const Index key = s.key + s.first(i);
    const Index keys = s.last(i) - s.first(i);
    Array<float> buffer(memory, 1, keys);
    float* const p = buffer.view().data;
    loops::key_scores(&q(row, h * a.head_dim), &k(key, g * a.head_dim), k.cols, keys, a.head_dim,
                      p);
    const float inverse = loops::softmax(p, 0, keys, keys, float(a.scale), &lse(row, h));
    float* const to = &out(row, h * n);
    loops::weighted_values(p, &v(key, g * n), v.cols, keys, n, to);
    loops::scaled(to, to, inverse, n);
  }

  void head(Memory& memory, const Sequence& s, Index h) const {
    if (s.queries > decode::few)
      return blocks(memory, s, h);
    for (Index i = 0; i < s.queries; ++i)
      query(memory, s, h, i);
  }

  void blocks(Memory& memory, const Sequence& s, Index h) const {
    const Index d = a.head_dim;
    const Index n = a.value_columns();
    const Index g = h / (a.heads / a.kv_heads);
    Array<float> buffer(memory, block_rows, most_keys(s));
    for (Index first = 0; first < s.queries; first += block_rows) {
      const Block b(s, first);
      const Index row = s.query + b.row;
      const Index key = s.key + b.from;
      float* p = buffer.view().data;
      gemm(b.rows, b.keys, d, rows_of(q, row, h * d), rows_of(k, key, g * d, Op::transposed), 0, p,
           b.keys);
      float inverse[block_rows];
      for (Index i = 0; i < b.rows; ++i) {
        inverse[i] =
            loops::softmax(p + i * b.keys, s.first(first + i) - b.from, s.last(first + i) - b.from,
                           b.keys, float(a.scale), &lse(row + i, h));
      }
      gemm(b.rows, n, b.keys, {p, b.keys}, rows_of(v, key, g * n), 0, &out(row, h * n), out.cols);
      for (Index i = 0; i < b.rows; ++i)
        loops::scaled(&out(row + i, h * n), &out(row + i, h * n), inverse[i], n);
    }
  }
};

struct Backward {
  In q, k, v, out, lse, dout;
  const AttentionShape& a;
  Out dq, dk, dv;

  void block(const Sequence& s, Index h, Index first, float* p, float* ds) const {
    const Index d = a.head_dim;
    const Index m = a.value_columns();
    const Index g = h / (a.heads / a.kv_heads) * d;
    const Index n = h * d;
    const Index gv = h / (a.heads / a.kv_heads) * m;
    const Index o = h * m;
    const Block b(s, first);
    const Index row = s.query + b.row;
    const Index key = s.key + b.from;
    gemm(b.rows, b.keys, d, rows_of(q, row, n), rows_of(k, key, g, Op::transposed), 0, p, b.keys);
    gemm(b.rows, b.keys, m, rows_of(dout, row, o), rows_of(v, key, gv, Op::transposed), 0, ds,
         b.keys);
    by_scores(s, b, h, first, p, ds);
    gemm(b.keys, m, b.rows, {p, b.keys, Op::transposed}, rows_of(dout, row, o), 1, &dv(key, gv),
         dv.cols);
    gemm(b.rows, d, b.keys, {ds, b.keys}, rows_of(k, key, g), 0, &dq(row, n), dq.cols);
    gemm(b.keys, d, b.rows, {ds, b.keys, Op::transposed}, rows_of(q, row, n), 1, &dk(key, g),
         dk.cols);
  }
  // ds by probabilities becomes ds by scores, row by row.
  void by_scores(const Sequence& s, const Block& b, Index h, Index first, float* p,
                 float* ds) const {
    const Index m = a.value_columns();
    const Index row = s.query + b.row;
    for (Index i = 0; i < b.rows; ++i) {
      const float delta = loops::dot(&out(row + i, h * m), &dout(row + i, h * m), m);
      loops::softmax_backward(p + i * b.keys, ds + i * b.keys, s.first(first + i) - b.from,
                              s.last(first + i) - b.from, b.keys, float(a.scale), lse(row + i, h),
                              delta);
    }
  }
  void group(Memory& memory, const Sequence& s, Index g) const {
    for (Index j = 0; j < s.keys; ++j) {
      std::fill_n(&dk(s.key + j, g * a.head_dim), a.head_dim, 0.0f);
      std::fill_n(&dv(s.key + j, g * a.value_columns()), a.value_columns(), 0.0f);
    }
    Array<float> p(memory, block_rows, most_keys(s)), ds(memory, block_rows, most_keys(s));
    const Index sharing = a.heads / a.kv_heads;
    for (Index h = g * sharing; h < (g + 1) * sharing; ++h) {
      for (Index first = 0; first < s.queries; first += block_rows)
        block(s, h, first, p.view().data, ds.view().data);
    }
  }
};

}  // namespace

void Cpu::attention(In q, In k, In v, const AttentionShape& a, Out out, Out lse) {
  const std::vector<Sequence> all = sequences(a);
  const Forward work{q, k, v, a, out, lse};
  run_tasks(Index(all.size()) * a.heads, work_of(all, q),
            [&](Index i) { work.head(*this, all[i / a.heads], i % a.heads); });
}

void Cpu::attention_backward(In q, In k, In v, In out, In lse, In dout, const AttentionShape& a,
                             Out dq, Out dk, Out dv) {
  const std::vector<Sequence> all = sequences(a);
  const Backward work{q, k, v, out, lse, dout, a, dq, dk, dv};
  run_tasks(Index(all.size()) * a.kv_heads, 3 * work_of(all, q),
            [&](Index i) { work.group(*this, all[i / a.kv_heads], i % a.kv_heads); });
}

}  // namespace moe
