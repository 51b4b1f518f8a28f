// Products of the cpu backend: which tile each task computes. Row tiles for y = x w' and dx = dy w; tiles of the weight, each
// over all of its rows, for dw - and where the weight is too small to occupy two threads, fixed chunks of the rows, added in order.
#include "lib/backend/cpu.h"

#include <cstring>

#include "lib/backend/cpu_loops.h"
#include "lib/core/parallel.h"

namespace moe {
namespace {

constexpr Index row_height = 256, column_width = 512;  // of tiles of y and dx
constexpr Index weight_height = 256, weight_width = 512;  // of tiles of dw
constexpr Index chunk_rows = 512, most_chunks = 16;       // of the rows, for small dw
constexpr Index bias_rows = 256;

Index pieces_of(Index count, Index most) { return (count + most - 1) / most; }

// Piece i of `count` cut into `pieces` nearly equal ones, in steps of 8 rows so that the inner kernels stay full.
struct Range {
  Index first, count;
};
Range piece(Index count, Index pieces, Index i) {
  const Index each = (pieces_of(count, pieces) + 7) / 8 * 8, first = std::min(count, i * each);
  return {first, std::min(each, count - first)};
}

// One product c = a b + beta c of a task list: the operands are already offset.
struct Product {
  Index m, n, k;
  Operand a, b;
  float beta;
  float* c;
  Index c_step;
  void run(Memory& memory) const;
};

// Where the rows of an operand lie a multiple of 1 KiB apart, a library that reads down its columns, or through pages of it that
// are not in the cache yet, meets the same few cache sets again and again. Measured on 512-wide experts: 45 to 68 GFLOP/s, and 90
// with the rows copied closer first, a chunk at a time.
constexpr Index aliasing = 256, padding = 16;
bool to_copy(const Operand& o) { return o.step % aliasing == 0; }

// Rows [0,rows) of the first `cols` columns of o, with a padded step.
Operand copied(const Operand& o, Index rows, Index cols, Array<float>& space) {
  const Index step = space.cols();
  for (Index r = 0; r < rows; ++r) std::memcpy(space.view().data + r * step, o.data + r * o.step, std::size_t(cols) * sizeof(float));
  return {space.view().data, step, o.op};
}
void Product::run(Memory& memory) const {
  const bool pack_a = a.op == Op::transposed && to_copy(a) && m <= column_width, pack_b = b.op == Op::plain && to_copy(b) && n <= column_width;
  if (k < 32 || m < 64 || (!pack_a && !pack_b)) return gemm(m, n, k, a, b, beta, c, c_step);
  Array<float> space_a(memory, pack_a ? chunk_rows : 0, column_width + padding), space_b(memory, pack_b ? chunk_rows : 0, column_width + padding);
  for (Index first = 0; first < k; first += chunk_rows) {
    const Index rows = std::min(chunk_rows, k - first);
    Operand pa = a, pb = b;
    pa.data += first * (a.op == Op::transposed ? a.step : 1), pb.data += first * (b.op == Op::plain ? b.step : 1);
    if (pack_a) pa = copied(pa, rows, m, space_a);
    if (pack_b) pb = copied(pb, rows, n, space_b);
    gemm(m, n, rows, pa, pb, first == 0 ? beta : 1, c, c_step);
  }
}

void run_all(Memory& memory, const std::vector<Product>& list) {
  double work = 0;
  for (const Product& p : list) work += double(p.m) * double(p.n) * double(p.k);
  run_tasks(Index(list.size()), work, [&](Index i) { list[std::size_t(i)].run(memory); });
}

// The products that make rows `tile` of y from x and a weight block read as (k,n): columns cut too, so that few rows still
// keep all threads busy.
void push_rows(std::vector<Product>& list, View<const float> x, View<const float> w, Op op, View<float> y, float beta) {
  const Index n = y.cols, pieces = pieces_of(n, column_width);
  for (Index j = 0; j < pieces; ++j) {
    const Range c = piece(n, pieces, j);
    if (c.count == 0) continue;
    const Operand b{w.data + (op == Op::transposed ? c.first * w.cols : c.first), w.cols, op};
    list.push_back({x.rows, c.count, x.cols, {x.data, x.cols}, b, beta, y.data + c.first, y.cols});
  }
}

std::vector<RowTile> one_expert(Index rows) {
  const int offset[] = {0, int(rows)};
  return row_tiles({offset, 1, 2}, row_height);
}

// y = x w' (op transposed) or x w for each tile, with its expert's block of w
void rows_product(Memory& memory, const std::vector<RowTile>& tiles, View<const float> x, View<const float> w, Index experts, Op op, View<float> y, float beta) {
  std::vector<Product> list;
  for (const RowTile& t : tiles)
    push_rows(list, x.slice(t.first, t.count), w.block(t.expert, w.rows / experts), op, y.slice(t.first, t.count), beta);
  run_all(memory, list);
}

// dw tiles of one expert: dw += dy' x
void push_weight(std::vector<Product>& list, View<const float> dy, View<const float> x, View<float> dw) {
  const Index down = pieces_of(dw.rows, weight_height), across = pieces_of(dw.cols, weight_width);
  for (Index i = 0; i < down; ++i)
    for (Index j = 0; j < across; ++j) {
      const Range r = piece(dw.rows, down, i), c = piece(dw.cols, across, j);
      if (r.count > 0 && c.count > 0)
        list.push_back({r.count, c.count, x.rows, {dy.data + r.first, dy.cols, Op::transposed}, {x.data + c.first, x.cols}, 1,
                        &dw(r.first, c.first), dw.cols});
    }
}

bool is_tall(View<const float> x, View<const float> dw) {  // few tiles, many rows
  return x.rows >= 2 * chunk_rows && pieces_of(dw.rows, weight_height) * pieces_of(dw.cols, weight_width) < 4;
}

// A small dw over many rows: each chunk of rows into its own copy, the copies added in order.
void tall_weight(Memory& memory, View<const float> dy, View<const float> x, View<float> dw) {
  const Index chunks = std::min(most_chunks, pieces_of(x.rows, chunk_rows));
  Array<float> parts(memory, chunks * dw.rows, dw.cols);
  parallel_for(chunks, 1, [&](Index i, Index) {
    const Range r = piece(x.rows, chunks, i);
    std::vector<Product> list;
    push_weight(list, dy.slice(r.first, r.count), x.slice(r.first, r.count), parts.view().block(i, dw.rows));
    for (Product& p : list) p.beta = 0, p.run(memory);
  });
  for (Index i = 0; i < chunks; ++i) loops::add(parts.view().block(i, dw.rows).data, dw.data, 1, dw.size());
}

// Column sums of the rows of each expert, over fixed chunks added in order: db (E,O).
void column_sums(Memory& memory, View<const float> dy, const std::vector<RowTile>& tiles, View<float> db) {
  Array<float> parts = Array<float>::zeros(memory, Index(tiles.size()), dy.cols);
  const View<float> sums = parts.view();
  run_tasks(Index(tiles.size()), double(dy.size()), [&](Index i) {
    const RowTile& t = tiles[std::size_t(i)];
    loops::add_columns(dy.slice(t.first, t.count).data, sums.slice(i, 1).data, t.count, dy.cols);
  });
  for (Index i = 0; i < Index(tiles.size()); ++i)
    loops::add(sums.slice(i, 1).data, db.slice(tiles[std::size_t(i)].expert, 1).data, 1, dy.cols);
}

}  // namespace

void run_tasks(Index count, double work, const std::function<void(Index)>& each) {
  const Index grain = work < 3e5 ? std::max<Index>(count, 1) : 1;  // about 10 microseconds
  parallel_for(count, grain, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i) each(i);
  });
}

std::vector<RowTile> row_tiles(View<const int> offset, Index height) {
  std::vector<RowTile> out;
  for (Index e = 0; e + 1 < offset.cols; ++e) {
    const Index first = offset(0, e), count = offset(0, e + 1) - first, pieces = pieces_of(count, height);
    for (Index i = 0; i < pieces; ++i)
      if (const Range r = piece(count, pieces, i); r.count > 0) out.push_back({e, first + r.first, r.count});
  }
  return out;
}

void tile_product(Memory& memory, View<const float> x, View<const float> w, Op op, View<float> y, float beta) {
  std::vector<Product> list;
  push_rows(list, x, w, op, y, beta);
  for (const Product& p : list) p.run(memory);
}

void Cpu::linear(In x, const Weight& w, Out y, float beta) { rows_product(*this, one_expert(x.rows), x, plain<float>(w), 1, Op::transposed, y, beta); }
void Cpu::linear_dx(In dy, const Weight& w, Out dx, float beta) { rows_product(*this, one_expert(dy.rows), dy, plain<float>(w), 1, Op::plain, dx, beta); }
void Cpu::linear_dw(In dy, In x, Out dw) {
  if (is_tall(x, dw)) return tall_weight(*this, dy, x, dw);
  std::vector<Product> list;
  push_weight(list, dy, x, dw);
  run_all(*this, list);
}
void Cpu::add_bias(In b, Out y) {
  parallel_for(y.rows, 1 + (Index(1) << 15) / std::max<Index>(y.cols, 1), [&](Index first, Index last) { loops::add_row(b.data, y.slice(first, last - first).data, last - first, y.cols); });
}
void Cpu::bias_grad(In dy, Out db) {
  const int offset[] = {0, int(dy.rows)};
  column_sums(*this, dy, row_tiles({offset, 1, 2}, bias_rows), db);
}

void Cpu::grouped_linear(In x, const Weight& w, const Plan& plan, Out y, float beta) {
  rows_product(*this, row_tiles(plan.offset.view(), row_height), x, plain<float>(w), plan.experts(), Op::transposed, y, beta);
}
void Cpu::grouped_linear_dx(In dy, const Weight& w, const Plan& plan, Out dx, float beta) {
  rows_product(*this, row_tiles(plan.offset.view(), row_height), dy, plain<float>(w), plan.experts(), Op::plain, dx, beta);
}
void Cpu::grouped_linear_dw(In dy, In x, const Plan& plan, Out dw) {
  const Index experts = plan.experts(), rows = dw.rows / experts;
  const View<const int> offset = plan.offset.view();
  std::vector<Product> list;
  for (Index e = 0; e < experts; ++e) {
    const Index first = offset(0, e), count = offset(0, e + 1) - first;
    if (count == 0) continue;
    const In rows_dy = dy.slice(first, count), rows_x = x.slice(first, count);
    if (experts == 1 && is_tall(rows_x, dw)) return tall_weight(*this, rows_dy, rows_x, dw);
    push_weight(list, rows_dy, rows_x, dw.block(e, rows));
  }
  run_all(*this, list);
}
void Cpu::grouped_add_bias(In b, const Plan& plan, Out y) {
  const std::vector<RowTile> tiles = row_tiles(plan.offset.view(), bias_rows);
  run_tasks(Index(tiles.size()), double(y.size()), [&](Index i) {
    const RowTile& t = tiles[std::size_t(i)];
    loops::add_row(b.slice(t.expert, 1).data, y.slice(t.first, t.count).data, t.count, y.cols);
  });
}
void Cpu::grouped_bias_grad(In dy, const Plan& plan, Out db) { column_sums(*this, dy, row_tiles(plan.offset.view(), bias_rows), db); }

}  // namespace moe
