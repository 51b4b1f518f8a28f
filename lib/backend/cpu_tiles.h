// How products of the cpu backend are cut into tiles, for operands in f32 and in bf16 (T). Row
// tiles for y = x w' and dx = dy w; tiles of the weight, each over all of its rows, for dw - and
// where the weight is too small to occupy two threads, fixed chunks of the rows, added in order.
// The cut depends on the shapes alone.
#pragma once
#include <algorithm>
#include <vector>

#include "lib/backend/cpu.h"
#include "lib/backend/cpu_loops.h"
#include "lib/backend/gemm_half.h"
#include "lib/core/parallel.h"

namespace moe::tiles {

constexpr Index row_height = 256, column_width = 512;     // of tiles of y and dx
constexpr Index weight_height = 256, weight_width = 512;  // of tiles of dw
constexpr Index chunk_rows = 512, most_chunks = 16;       // of the rows, for small dw

inline Index pieces_of(Index count, Index most) {
  return (count + most - 1) / most;
}

// Piece i of `count` cut into `pieces` nearly equal ones, in steps of 8 rows so that the inner
// kernels stay full.
struct Range {
  Index first, count;
};
inline Range piece(Index count, Index pieces, Index i) {
  const Index each = (pieces_of(count, pieces) + 7) / 8 * 8;
  const Index first = std::min(count, i * each);
  return {first, std::min(each, count - first)};
}

// One product c = a b + beta c of a task list: the operands are already offset.
template <class T>
struct Product {
  Index m, n, k;
  OperandOf<T> a, b;
  float beta;
  float* c;
  Index c_step;
  void run(Memory& memory) const;
};
template <>
void Product<float>::run(Memory&) const;
template <>
void Product<Half>::run(Memory&) const;

template <class T>
void run_all(Memory& memory, const std::vector<Product<T>>& list) {
  double work = 0;
  for (const Product<T>& p : list)
    work += double(p.m) * double(p.n) * double(p.k);
  run_tasks(Index(list.size()), work, [&](Index i) { list[std::size_t(i)].run(memory); });
}

// The products that make rows `tile` of y from x and a weight block read as (k,n): columns cut too,
// so that few rows still keep all threads busy.
template <class T>
void push_rows(std::vector<Product<T>>& list, View<const T> x, View<const T> w, Op op,
               View<float> y, float beta) {
  const Index n = y.cols;
  const Index pieces = pieces_of(n, column_width);
  for (Index j = 0; j < pieces; ++j) {
    const Range c = piece(n, pieces, j);
    if (c.count == 0)
      continue;
    const OperandOf<T> b{w.data + (op == Op::transposed ? c.first * w.cols : c.first), w.cols, op};
    list.push_back({x.rows, c.count, x.cols, {x.data, x.cols}, b, beta, y.data + c.first, y.cols});
  }
}

// y = x w' (op transposed) or x w, + beta y, for the rows of one task, on the calling thread.
template <class T>
void tile_product(Memory& memory, View<const T> x, View<const T> w, Op op, View<float> y,
                  float beta) {
  std::vector<Product<T>> list;
  push_rows(list, x, w, op, y, beta);
  for (const Product<T>& p : list) {
    p.run(memory);
    between_pieces();
  }
}

// Tiles of one expert, each behind the one before, of `height` rows but for the last.
struct Stack {
  RowTile all;
  Index height = 0;
};
// Tiles of rows for a weight whose numbers are made when they are read: some of them go together,
// so that its rows are made once for all. Each stays a product of its own, so that the bytes are
// those of a weight in memory. A stack is so many tasks.
std::vector<Stack> stacks(const std::vector<RowTile>& tiles, Index tasks = 1);
// The product of such a weight, a few rows of it at a time; x is a stack of this height.
void stack_product(Memory& memory, View<const float> x, Index height, const Weight& w, Op op,
                   View<float> y, float beta);
inline void tile_product(Memory& memory, View<const float> x, const Weight& w, Op op, View<float> y,
                         float beta) {
  stack_product(memory, x, x.rows, w, op, y, beta);
}
// y = x w' + beta y in bf16, with rows of w from their source; numbers are rounded where they do
// not lie as bf16.
void tile_product(Memory& memory, View<const Half> x, const Weight& w, Op op, View<float> y,
                  float beta);

// Block e of `rows` rows.
template <class T>
View<const T> expert_block(View<const T> w, Index e, Index rows) {
  return w.block(e, rows);
}
inline Weight expert_block(const Weight& w, Index e, Index rows) {
  return w.block_of_source(e, rows);
}

inline void add_bias_row(View<const float> bias, Index expert, View<float> y) {
  if (!bias.empty())
    loops::add_row(bias.slice(expert, 1).data, y.data, y.rows, y.cols);
}
// y = x w' + b for one tile and its expert's row of the biases (E,O), empty = none.
template <class T, class M>
void biased_product(Memory& memory, View<const T> x, const M& w, View<const float> bias,
                    Index expert, View<float> y) {
  tile_product(memory, x, w, Op::transposed, y, 0);
  add_bias_row(bias, expert, y);
}

// Rows of all slots that belong to a tile; empty stays empty.
template <class T>
View<T> rows_of(View<T> all, const RowTile& t) {
  return all.empty() ? all : all.slice(t.first, t.count);
}

// Backend::activate_backward for the rows of one tile, row by row while they are in the cache. By
// slot: gate, up, share, dh, dgate, dup, the tile's rows alone.
inline void activation_backward(Activation a, View<const float> gate, View<const float> up,
                                const RowTile& t, const Plan& plan, View<const float> weight,
                                View<const float> share, View<float> dh, View<float> dgate,
                                View<float> dup, View<float> dweight) {
  const Index n = up.cols;
  const int* choice = plan.choice.view().data + t.first;
  std::vector<float> h(std::size_t(n), 0);
  for (Index r = 0; r < t.count; ++r) {
    const float w = weight.empty() ? 1 : weight.data[choice[r]];
    float* d = dh.data + r * n;
    const auto row = [&](auto m) {
      return m.empty() ? nullptr : m.data + r * n;
    };
    loops::activate_backward(a, row(gate), row(up), d, w, h.data(), row(dgate), row(dup), n);
    if (!dweight.empty())
      dweight.data[choice[r]] = loops::dot(d, h.data(), n) + (share.empty() ? 0 : share(r, 0));
    loops::scaled(h.data(), d, w, n);
  }
}

inline std::vector<RowTile> one_expert(Index rows) {
  const int offset[] = {0, int(rows)};
  return row_tiles({offset, 1, 2}, row_height);
}

// y = x w' (op transposed) or x w for each tile, with its expert's block of w
template <class T>
void rows_product(Memory& memory, const std::vector<RowTile>& tiles, View<const T> x,
                  View<const T> w, Index experts, Op op, View<float> y, float beta) {
  std::vector<Product<T>> list;
  for (const RowTile& t : tiles) {
    push_rows(list, x.slice(t.first, t.count), w.block(t.expert, w.rows / experts), op,
              y.slice(t.first, t.count), beta);
  }
  run_all(memory, list);
}

// dw tiles of one expert: dw += dy' x
template <class T>
void push_weight(std::vector<Product<T>>& list, View<const T> dy, View<const T> x, View<float> dw) {
  const Index down = pieces_of(dw.rows, weight_height);
  const Index across = pieces_of(dw.cols, weight_width);
  for (Index i = 0; i < down; ++i) {
    for (Index j = 0; j < across; ++j) {
      const Range r = piece(dw.rows, down, i);
      const Range c = piece(dw.cols, across, j);
      if (r.count > 0 && c.count > 0) {
        list.push_back({r.count,
                        c.count,
                        x.rows,
                        {dy.data + r.first, dy.cols, Op::transposed},
                        {x.data + c.first, x.cols},
                        1,
                        &dw(r.first, c.first),
                        dw.cols});
      }
    }
  }
}

inline bool is_tall(Index rows, View<const float> dw) {  // few tiles, many rows
  return rows >= 2 * chunk_rows &&
         pieces_of(dw.rows, weight_height) * pieces_of(dw.cols, weight_width) < 4;
}

// A small dw over many rows: each chunk of rows into its own copy, the copies added in order.
template <class T>
void tall_weight(Memory& memory, View<const T> dy, View<const T> x, View<float> dw) {
  const Index chunks = std::min(most_chunks, pieces_of(x.rows, chunk_rows));
  Array<float> parts(memory, chunks * dw.rows, dw.cols);
  parallel_for(chunks, 1, [&](Index i, Index) {
    const Range r = piece(x.rows, chunks, i);
    std::vector<Product<T>> list;
    push_weight(list, dy.slice(r.first, r.count), x.slice(r.first, r.count),
                parts.view().block(i, dw.rows));
    for (Product<T>& p : list) {
      p.beta = 0;
      p.run(memory);
    }
  });
  for (Index i = 0; i < chunks; ++i)
    loops::add(parts.view().block(i, dw.rows).data, dw.data, 1, dw.size());
}

// dw += dy' x
template <class T>
void weight_product(Memory& memory, View<const T> dy, View<const T> x, View<float> dw) {
  if (is_tall(x.rows, dw))
    return tall_weight(memory, dy, x, dw);
  std::vector<Product<T>> list;
  push_weight(list, dy, x, dw);
  run_all(memory, list);
}

// The same for every expert's rows and block of dw; an expert without rows leaves its block as it
// is.
template <class T>
void weight_products(Memory& memory, View<const T> dy, View<const T> x, const Plan& plan,
                     View<float> dw) {
  const Index experts = plan.experts();
  const Index rows = dw.rows / experts;
  const View<const int> offset = plan.offset.view();
  std::vector<Product<T>> list;
  for (Index e = 0; e < experts; ++e) {
    const Index first = offset(0, e);
    const Index count = offset(0, e + 1) - first;
    if (count == 0)
      continue;
    const View<const T> rows_dy = dy.slice(first, count);
    const View<const T> rows_x = x.slice(first, count);
    if (experts == 1 && !plan.part && is_tall(count, dw))
      return tall_weight(memory, rows_dy, rows_x, dw);
    push_weight(list, rows_dy, rows_x, dw.block(e, rows));
  }
  run_all(memory, list);
}

// pass.tile(t) for the tiles of all slots: a pass through expert bodies of so many hidden units.
template <class Pass>
void run_tiles(const Plan& plan, View<const float> xs, Index width, const Pass& pass) {
  const std::vector<RowTile> tiles = row_tiles(plan.offset.view(), row_height);
  run_tasks(Index(tiles.size()), double(xs.size()) * double(width) * 3,
            [&](Index i) { pass.tile(tiles[std::size_t(i)]); });
}
// pass.stack(s) likewise.
template <class Pass>
void run_stacks(const Plan& plan, View<const float> xs, Index width, const Pass& pass) {
  const std::vector<Stack> all = stacks(row_tiles(plan.offset.view(), row_height));
  run_tasks(Index(all.size()), double(xs.size()) * double(width) * 3,
            [&](Index i) { pass.stack(all[std::size_t(i)]); });
}

}  // namespace moe::tiles
