// Products of the cpu backend in f32, by the tiles of cpu_tiles.h.
#include <cstring>
#include <utility>

#include "lib/backend/cpu_decode.h"
#include "lib/backend/cpu_tiles.h"

namespace moe {
namespace {

using namespace tiles;

constexpr Index bias_rows = 256;

// Where the rows of an operand lie a multiple of 1 KiB apart, a library that reads down its
// columns, or through pages of it that are not in the cache yet, meets the same few cache sets
// again and again. Measured on 512-wide experts: 45 to 68 GFLOP/s, and 90 with the rows copied
// closer first, a chunk at a time.
constexpr Index aliasing = 256, padding = 16;
bool to_copy(const Operand& o) {
  return o.step % aliasing == 0;
}

// Rows [0,rows) of the first `cols` columns of o, with a padded step.
Operand copied(const Operand& o, Index rows, Index cols, Array<float>& space) {
  const Index step = space.cols();
  for (Index r = 0; r < rows; ++r) {
    std::memcpy(space.view().data + r * step, o.data + r * o.step,
                std::size_t(cols) * sizeof(float));
  }
  return {space.view().data, step, o.op};
}
// Column sums of the rows of each expert, over fixed chunks added in order: db (E,O).
void column_sums(Memory& memory, View<const float> dy, const std::vector<RowTile>& tiles,
                 View<float> db) {
  Array<float> parts = Array<float>::zeros(memory, Index(tiles.size()), dy.cols);
  const View<float> sums = parts.view();
  run_tasks(Index(tiles.size()), double(dy.size()), [&](Index i) {
    const RowTile& t = tiles[i];
    loops::add_columns(dy.slice(t.first, t.count).data, sums.slice(i, 1).data, t.count, dy.cols);
  });
  for (Index i = 0; i < Index(tiles.size()); ++i)
    loops::add(sums.slice(i, 1).data, db.slice(tiles[i].expert, 1).data, 1, dy.cols);
}

}  // namespace

template <>
void tiles::Product<float>::run(Memory& memory) const {
  const bool pack_a = a.op == Op::transposed && to_copy(a) && m <= column_width;
  const bool pack_b = b.op == Op::plain && to_copy(b) && n <= column_width;
  if (k < 32 || m < 64 || (!pack_a && !pack_b))
    return gemm(m, n, k, a, b, beta, c, c_step);
  Array<float> space_a(memory, pack_a ? chunk_rows : 0, column_width + padding);
  Array<float> space_b(memory, pack_b ? chunk_rows : 0, column_width + padding);
  for (Index first = 0; first < k; first += chunk_rows) {
    const Index rows = std::min(chunk_rows, k - first);
    Operand pa = a;
    Operand pb = b;
    pa.data += first * (a.op == Op::transposed ? a.step : 1);
    pb.data += first * (b.op == Op::plain ? b.step : 1);
    if (pack_a)
      pa = copied(pa, rows, m, space_a);
    if (pack_b)
      pb = copied(pb, rows, n, space_b);
    gemm(m, n, rows, pa, pb, first == 0 ? beta : 1, c, c_step);
  }
}

std::vector<tiles::Stack> tiles::stacks(const std::vector<RowTile>& tiles, Index tasks_of_stack) {
  constexpr Index most = 4, tasks_a_thread = 4;
  const Index tasks = Index(tiles.size()) * tasks_of_stack;
  const Index together = std::clamp<Index>(tasks / (tasks_a_thread * threads()), 1, most);
  std::vector<Stack> out;
  Index in_last = 0;
  for (const RowTile& t : tiles) {
    const bool goes_on = in_last < together && !out.empty() && out.back().all.expert == t.expert;
    in_last = goes_on ? in_last + 1 : 1;
    if (goes_on)
      out.back().all.count += t.count;
    else
      out.push_back({t, t.count});
  }
  return out;
}

namespace {

// Columns of y = x w' + beta y that rows `c` of w make, for a stack: cut as a weight in memory is
// (push_rows), which gives the same bytes.
void forward_piece(Memory& memory, View<const float> x, Index height, const Weight& w, Range c,
                   View<float> y, float beta) {
  Array<float> space(memory, c.count, w.cols);
  const View<float> read = space.view();
  w.source->read(w.first + c.first, read);
  const OperandOf<float> b{read.data, w.cols, Op::transposed};
  for (Index first = 0; first < x.rows; first += height) {
    const Index rows = std::min(height, x.rows - first);
    float* const to = y.data + first * y.cols + c.first;
    const Product<float> product{rows, c.count, w.cols, {x.data + first * x.cols, x.cols},
                                 b,    beta,    to,     y.cols};
    product.run(memory);
    between_pieces();
  }
}
void forward_product(Memory& memory, View<const float> x, Index height, const Weight& w,
                     View<float> y, float beta) {
  const Index pieces = pieces_of(w.rows, column_width);
  for (Index j = 0; j < pieces; ++j) {
    if (const Range c = piece(w.rows, pieces, j); c.count > 0)
      forward_piece(memory, x, height, w, c, y, beta);
  }
}

// y = x w + beta y for one tile.
void plain_product(Memory& memory, View<const float> x, const Weight& w, View<float> y,
                   float beta) {
  constexpr Index numbers_at_once = Index(1) << 17;  // half a MiB stays in the nearest caches
  const Index at_once = std::clamp<Index>(numbers_at_once / std::max<Index>(w.cols, 1), 8, w.rows);
  Array<float> space(memory, at_once, w.cols);
  for (Index first = 0; first < w.rows; first += at_once) {
    const Index rows = std::min(at_once, w.rows - first);
    const View<float> read = space.view().slice(0, rows);
    w.source->read(w.first + first, read);
    gemm(x.rows, w.cols, rows, {x.data + first, x.cols}, {read.data, w.cols, Op::plain},
         first == 0 ? beta : 1, y.data, y.cols);
  }
}

}  // namespace

void tiles::stack_product(Memory& memory, View<const float> x, Index height, const Weight& w, Op op,
                          View<float> y, float beta) {
  if (op == Op::transposed && w.rounds_activations()) {
    Array<float> near(memory, x.rows, x.cols);
    rounded_to_bytes(x, near.view());
    return forward_product(memory, std::as_const(near).view(), height, w, y, beta);
  }
  if (op == Op::transposed)
    return forward_product(memory, x, height, w, y, beta);
  for (Index first = 0; first < x.rows; first += height) {
    const Index rows = std::min(height, x.rows - first);
    plain_product(memory, x.slice(first, rows), w, y.slice(first, rows), beta);
  }
}

namespace {

// Of one weight that has a source, by stacks of rows of x and pieces of rows of it.
void forward_pieces(Memory& memory, View<const float> x, const Weight& w, View<float> y,
                    float beta) {
  const Index pieces = pieces_of(w.rows, column_width);
  const std::vector<Stack> all = stacks(one_expert(x.rows), pieces);
  run_tasks(Index(all.size()) * pieces, double(x.size()) * double(y.cols), [&](Index i) {
    const Stack& s = all[std::size_t(i / pieces)];
    if (const Range c = piece(w.rows, pieces, i % pieces); c.count > 0)
      forward_piece(memory, rows_of(x, s.all), s.height, w, c, rows_of(y, s.all), beta);
  });
}

// Of a weight that has a source.
void source_product(Memory& memory, View<const float> x, const Weight& w, Op op, View<float> y,
                    float beta) {
  if (op == Op::transposed && !w.rounds_activations())
    return forward_pieces(memory, x, w, y, beta);
  const std::vector<Stack> all = stacks(one_expert(x.rows));
  run_tasks(Index(all.size()), double(x.size()) * double(y.cols), [&](Index i) {
    const Stack& s = all[std::size_t(i)];
    stack_product(memory, rows_of(x, s.all), s.height, w, op, rows_of(y, s.all), beta);
  });
}

// Each stack with its expert's block of a weight that has a source.
void grouped_tiles(Memory& memory, View<const float> x, const Weight& w, const Plan& plan, Op op,
                   View<float> y, float beta) {
  const std::vector<Stack> all = stacks(row_tiles(plan.offset.view(), row_height));
  const Index rows = w.rows / plan.experts();
  run_tasks(Index(all.size()), double(x.size()) * double(y.cols), [&](Index i) {
    const Stack& s = all[std::size_t(i)];
    stack_product(memory, rows_of(x, s.all), s.height, w.block_of_source(s.all.expert, rows), op,
                  rows_of(y, s.all), beta);
  });
}

}  // namespace

void run_tasks(Index count, double work, const std::function<void(Index)>& each) {
  const Index grain = work < 3e5 ? std::max<Index>(count, 1) : 1;  // about 10 microseconds
  parallel_for(count, grain, [&](Index first, Index last) {
    for (Index i = first; i < last; ++i)
      each(i);
  });
}

std::vector<RowTile> row_tiles(View<const int> offset, Index height) {
  std::vector<RowTile> out;
  for (Index e = 0; e + 1 < offset.cols; ++e) {
    const Index first = offset(0, e);
    const Index count = offset(0, e + 1) - first;
    const Index pieces = pieces_of(count, height);
    for (Index i = 0; i < pieces; ++i) {
      if (const Range r = piece(count, pieces, i); r.count > 0)
        out.push_back({e, first + r.first, r.count});
    }
  }
  return out;
}

void Cpu::linear(In x, const Weight& w, Out y, float beta) {
  if (w.source && x.rows <= decode::few)
    return decode::linear(x, w, y, beta);
  if (w.source)
    return source_product(*this, x, w, Op::transposed, y, beta);
  if (x.rows <= decode::few)
    return decode::linear(x, plain<float>(w), y, beta);
  rows_product(*this, one_expert(x.rows), x, plain<float>(w), 1, Op::transposed, y, beta);
}
void Cpu::linear_dx(In dy, const Weight& w, Out dx, float beta) {
  if (w.source)
    return source_product(*this, dy, w, Op::plain, dx, beta);
  rows_product(*this, one_expert(dy.rows), dy, plain<float>(w), 1, Op::plain, dx, beta);
}
void Cpu::linear_dw(In dy, In x, Out dw) {
  weight_product(*this, dy, x, dw);
}
void Cpu::add_bias(In b, Out y) {
  parallel_for(y.rows, 1 + (Index(1) << 15) / std::max<Index>(y.cols, 1),
               [&](Index first, Index last) {
                 loops::add_row(b.data, y.slice(first, last - first).data, last - first, y.cols);
               });
}
void Cpu::bias_grad(In dy, Out db) {
  const int offset[] = {0, int(dy.rows)};
  column_sums(*this, dy, row_tiles({offset, 1, 2}, bias_rows), db);
}

void Cpu::grouped_linear(In x, const Weight& w, const Plan& plan, Out y, float beta) {
  if (w.source)
    return grouped_tiles(*this, x, w, plan, Op::transposed, y, beta);
  rows_product(*this, row_tiles(plan.offset.view(), row_height), x, plain<float>(w), plan.experts(),
               Op::transposed, y, beta);
}
void Cpu::grouped_linear_dx(In dy, const Weight& w, const Plan& plan, Out dx, float beta) {
  if (w.source)
    return grouped_tiles(*this, dy, w, plan, Op::plain, dx, beta);
  rows_product(*this, row_tiles(plan.offset.view(), row_height), dy, plain<float>(w),
               plan.experts(), Op::plain, dx, beta);
}
void Cpu::grouped_linear_dw(In dy, In x, const Plan& plan, Out dw) {
  weight_products(*this, dy, x, plan, dw);
}
void Cpu::grouped_add_bias(In b, const Plan& plan, Out y) {
  const std::vector<RowTile> tiles = row_tiles(plan.offset.view(), bias_rows);
  run_tasks(Index(tiles.size()), double(y.size()), [&](Index i) {
    const RowTile& t = tiles[i];
    loops::add_row(b.slice(t.expert, 1).data, y.slice(t.first, t.count).data, t.count, y.cols);
  });
}
void Cpu::grouped_bias_grad(In dy, const Plan& plan, Out db) {
  column_sums(*this, dy, row_tiles(plan.offset.view(), bias_rows), db);
}

}  // namespace moe
