// Products of cpu:dtype=bf16: operands rounded once, then the tiles of cpu_tiles.h.
#include "lib/backend/cpu_half.h"

#include "lib/backend/cpu_decode.h"
#include "lib/backend/cpu_tiles.h"

namespace moe {

using namespace tiles;

template <>
void tiles::Product<Half>::run(Memory&) const {
  gemm(m, n, k, a, b, beta, c, c_step);
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
  if (w.exact || w.source)
    return Cpu::linear(x, w, y, beta);
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
