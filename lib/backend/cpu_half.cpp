// Products of cpu:dtype=bf16: operands rounded once, then the tiles of cpu_tiles.h.
#include "lib/backend/cpu_half.h"

#include "lib/backend/cpu_decode.h"
#include "lib/backend/cpu_tiles.h"
#include "lib/core/error.h"

namespace moe {

using namespace tiles;

template <>
void tiles::Product<Half>::run(Memory&) const {
  gemm(m, n, k, a, b, beta, c, c_step);
}

namespace {

// Rows of a weight that has a source: as its file holds them, or made and rounded in `space`.
View<const Half> rows_as_half(Memory& memory, const Weight& w, Range c, Array<Half>& space) {
  if (w.source->lies_as_bf16())
    return {w.source->bf16_rows(w.first + c.first, c.count), c.count, w.cols};
  Array<float> made(memory, c.count, w.cols);
  w.source->read(w.first + c.first, made.view());
  space = Array<Half>(memory, c.count, w.cols);
  loops::to_half(made.view().data, space.view().data, made.view().size());
  return space.view();
}

// Columns of y = x w' + beta y that rows `c` of w make, cut as a weight in memory is.
void forward_piece(Memory& memory, View<const Half> x, const Weight& w, Range c, View<float> y,
                   float beta) {
  Array<Half> space;
  const View<const Half> read = rows_as_half(memory, w, c, space);
  for (const RowTile& t : one_expert(x.rows)) {
    gemm(t.count, c.count, w.cols, {x.data + t.first * x.cols, x.cols},
         {read.data, w.cols, Op::transposed}, beta, y.data + t.first * y.cols + c.first, y.cols);
    between_pieces();
  }
}

void source_product(Memory& memory, View<const Half> x, const Weight& w, View<float> y,
                    float beta) {
  const Index pieces = pieces_of(w.rows, column_width);
  run_tasks(pieces, double(x.size()) * double(y.cols), [&](Index i) {
    if (const Range c = piece(w.rows, pieces, i); c.count > 0)
      forward_piece(memory, x, w, c, y, beta);
  });
}

}  // namespace

void tiles::tile_product(Memory& memory, View<const Half> x, const Weight& w, Op op, View<float> y,
                         float beta) {
  if (op != Op::transposed)
    throw Error(Exit::bug, "a product in bf16 reads a weight from its source the other way around");
  const Index pieces = pieces_of(w.rows, column_width);
  for (Index j = 0; j < pieces; ++j) {
    if (const Range c = piece(w.rows, pieces, j); c.count > 0)
      forward_piece(memory, x, w, c, y, beta);
  }
}

Array<Half> CpuHalf::rounded(In x) {
  Array<Half> out(*this, x.rows, x.cols);
  Half* to = out.view().data;
  parallel_for(x.size(), Index(1) << 15,
               [&](Index i, Index last) { loops::to_half(x.data + i, to + i, last - i); });
  return out;
}
Array<float> CpuHalf::rounded_numbers(In x) {
  Array<float> out(*this, x);
  loops::round_half(out.view().data, out.view().size());
  return out;
}
auto CpuHalf::halves(const Weight& w, Array<Half>& space) -> Halves {
  if (w.dtype == DType::bf16)
    return {static_cast<const Half*>(w.data), w.rows, w.cols};
  if (w.id == 0)
    return (space = rounded(plain<float>(w))).view();
  Copy& copy = copies_[w.id];
  if (copy.version != w.version) {
    copy.numbers = {};
    copy.numbers = rounded(plain<float>(w));
    copy.version = w.version;
  }
  return copy.numbers.view();
}

void CpuHalf::linear(In x, const Weight& w, Out y, float beta) {
  if (w.exact || (w.source && (x.rows <= decode::few || w.rounds_activations())))
    return Cpu::linear(x, w, y, beta);
  if (w.source)
    return source_product(*this, rounded(x).view(), w, y, beta);
  Array<Half> space;
  if (x.rows <= decode::few) {
    const Array<float> near = rounded_numbers(x);
    return decode::linear(In(near.view()), halves(w, space), y, beta);
  }
  const Array<Half> hx = rounded(x);
  rows_product(*this, one_expert(x.rows), hx.view(), halves(w, space), 1, Op::transposed, y, beta);
}
void CpuHalf::linear_dx(In dy, const Weight& w, Out dx, float beta) {
  if (w.exact || w.source)
    return Cpu::linear_dx(dy, w, dx, beta);
  Array<Half> space;
  const Array<Half> hdy = rounded(dy);
  rows_product(*this, one_expert(dy.rows), hdy.view(), halves(w, space), 1, Op::plain, dx, beta);
}
void CpuHalf::linear_dw(In dy, In x, Out dw) {
  const Array<Half> hdy = rounded(dy);
  const Array<Half> hx = rounded(x);
  weight_product(*this, hdy.view(), hx.view(), dw);
}
void CpuHalf::grouped_linear(In x, const Weight& w, const Plan& plan, Out y, float beta) {
  if (w.source)
    return Cpu::grouped_linear(x, w, plan, y, beta);
  Array<Half> space;
  const Array<Half> hx = rounded(x);
  rows_product(*this, row_tiles(plan.offset.view(), row_height), hx.view(), halves(w, space),
               plan.experts(), Op::transposed, y, beta);
}
void CpuHalf::grouped_linear_dx(In dy, const Weight& w, const Plan& plan, Out dx, float beta) {
  if (w.source)
    return Cpu::grouped_linear_dx(dy, w, plan, dx, beta);
  Array<Half> space;
  const Array<Half> hdy = rounded(dy);
  rows_product(*this, row_tiles(plan.offset.view(), row_height), hdy.view(), halves(w, space),
               plan.experts(), Op::plain, dx, beta);
}
void CpuHalf::grouped_linear_dw(In dy, In x, const Plan& plan, Out dw) {
  const Array<Half> hdy = rounded(dy);
  const Array<Half> hx = rounded(x);
  weight_products(*this, hdy.view(), hx.view(), plan, dw);
}

}  // namespace moe
