// The expert bodies of cpu:dtype=bf16: a tile of rows is rounded, goes through gate, up, activation
// and down, and is rounded between them.
#include "lib/backend/cpu_half.h"
#include "lib/backend/cpu_tiles.h"

namespace moe {
namespace {

using namespace tiles;
using In = View<const float>;
using Out = View<float>;
using Halves = View<const Half>;

void round(In x, View<Half> to) {
  loops::to_half(x.data, to.data, x.size());
}

}  // namespace

void CpuHalf::experts(const ExpertWeights<float>& w, In xs, const Plan& plan,
                      ExpertTape<float>& tape, Out ys) {
  const bool gated = is_gated(w.activation);
  const Index width = w.up.rows / plan.experts();
  tape.up = Array<float>(*this, xs.rows, width);
  tape.gate = Array<float>(*this, gated ? xs.rows : 0, width);
  Array<Half> space[3];
  const Halves wg = gated ? halves(w.gate, space[0]) : Halves{};
  const Halves wu = halves(w.up, space[1]);
  const Halves wd = halves(w.down, space[2]);
  const Out gate = tape.gate.view();
  const Out up = tape.up.view();
  const std::vector<RowTile> tiles = row_tiles(plan.offset.view(), row_height);
  run_tasks(Index(tiles.size()), double(xs.size()) * double(width) * 3, [&](Index i) {
    const RowTile& t = tiles[std::size_t(i)];
    Array<Half> x(*this, t.count, xs.cols);
    Array<Half> hidden(*this, t.count, width);
    round(rows_of(xs, t), x.view());
    Array<float> space_h(*this, t.count, width);
    const Out u = rows_of(up, t);
    const Out g = rows_of(gate, t);
    const Out h = space_h.view();
    if (gated)
      biased_product(*this, Halves(x.view()), wg.block(t.expert, width), w.gate_bias, t.expert, g);
    biased_product(*this, Halves(x.view()), wu.block(t.expert, width), w.up_bias, t.expert, u);
    loops::activate(w.activation, g.data, u.data, h.data, u.size());
    round(h, hidden.view());
    biased_product(*this, Halves(hidden.view()), wd.block(t.expert, ys.cols), w.down_bias, t.expert,
                   rows_of(ys, t));
  });
}

void CpuHalf::experts_backward(const ExpertWeights<float>& w, const ExpertGrads<float>& g, In xs,
                               const Plan& plan, const ExpertTape<float>& tape, In dys, In weight,
                               Out dxs, Out dweight) {
  const bool gated = is_gated(w.activation);
  const bool biased = !g.up_bias.empty() || !g.gate_bias.empty();
  const Index width = tape.up.cols();
  const Index hidden = xs.cols;
  const Index rows = xs.rows;
  // in full, for the sums of biases
  Array<float> dup(*this, biased ? rows : 0, width);
  Array<float> dgate(*this, biased && gated ? rows : 0, width);
  Array<Half> hdys(*this, rows, hidden);
  Array<Half> hh(*this, rows, width);
  Array<Half> hdup(*this, rows, width);
  Array<Half> hdgate(*this, gated ? rows : 0, width);
  const Array<float> share = dweight.empty() ? Array<float>{} : bias_share(w.down_bias, dys, plan);
  Array<Half> space[3];
  const Halves wg = gated ? halves(w.gate, space[0]) : Halves{};
  const Halves wu = halves(w.up, space[1]);
  const Halves wd = halves(w.down, space[2]);
  const std::vector<RowTile> tiles = row_tiles(plan.offset.view(), row_height);
  std::ranges::fill(dweight.flat(), 0.0f);
  run_tasks(Index(tiles.size()), double(xs.size()) * double(width) * 3, [&](Index i) {
    const RowTile& t = tiles[std::size_t(i)];
    Array<float> space_h(*this, t.count, width);
    Array<float> space_u(*this, biased ? 0 : t.count, width);
    Array<float> space_g(*this, biased || !gated ? 0 : t.count, width);
    const Out dh = space_h.view();
    const Out du = biased ? rows_of(dup.view(), t) : space_u.view();
    const Out dg = biased ? rows_of(dgate.view(), t) : space_g.view();
    const Out dx = rows_of(dxs, t);
    round(rows_of(dys, t), rows_of(hdys.view(), t));
    tile_product(*this, Halves(rows_of(hdys.view(), t)), wd.block(t.expert, hidden), Op::plain, dh,
                 0);
    activation_backward(w.activation, rows_of(tape.gate.view(), t), rows_of(tape.up.view(), t), t,
                        plan, weight, rows_of(share.view(), t), dh, dg, du, dweight);
    round(dh, rows_of(hh.view(), t));
    round(du, rows_of(hdup.view(), t));
    if (gated)
      round(dg, rows_of(hdgate.view(), t));
    tile_product(*this, Halves(rows_of(hdup.view(), t)), wu.block(t.expert, width), Op::plain, dx,
                 0);
    if (gated) {
      tile_product(*this, Halves(rows_of(hdgate.view(), t)), wg.block(t.expert, width), Op::plain,
                   dx, 1);
    }
  });
  if (!g.down.empty())
    weight_products<Half>(*this, hdys.view(), hh.view(), plan, g.down);
  if (!g.up.empty() || !g.gate.empty()) {
    const Array<Half> hxs = rounded(xs);
    if (!g.up.empty())
      weight_products<Half>(*this, hdup.view(), hxs.view(), plan, g.up);
    if (gated && !g.gate.empty())
      weight_products<Half>(*this, hdgate.view(), hxs.view(), plan, g.gate);
  }
  weighted_bias_grad(dys, plan, weight, g.down_bias);
  if (!g.up_bias.empty())
    grouped_bias_grad(dup.view(), plan, g.up_bias);
  if (gated && !g.gate_bias.empty())
    grouped_bias_grad(dgate.view(), plan, g.gate_bias);
}

}  // namespace moe
