// The expert bodies of the cpu backend: one task takes a tile of rows through gate, up, activation
// and down, so that what lies between them stays in the cache, and small experts cost one wake-up
// of the threads instead of five.
#include "lib/backend/cpu_tiles.h"

namespace moe {
namespace {

using namespace tiles;
using In = View<const float>;
using Out = View<float>;

}  // namespace

void Cpu::experts(const ExpertWeights<float>& w, In xs, const Plan& plan, ExpertTape<float>& tape,
                  Out ys) {
  const bool gated = is_gated(w.activation);
  const Index width = w.up.rows / plan.experts();
  tape.up = Array<float>(*this, xs.rows, width);
  tape.gate = Array<float>(*this, gated ? xs.rows : 0, width);
  const In wg = gated ? plain<float>(w.gate) : In{};
  const In wu = plain<float>(w.up);
  const In wd = plain<float>(w.down);
  const Out gate = tape.gate.view();
  const Out up = tape.up.view();
  const std::vector<RowTile> tiles = row_tiles(plan.offset.view(), row_height);
  run_tasks(Index(tiles.size()), double(xs.size()) * double(width) * 3, [&](Index i) {
    const RowTile& t = tiles[std::size_t(i)];
    const In x = rows_of(xs, t);
    const Out u = rows_of(up, t);
    const Out g = rows_of(gate, t);
    Array<float> hidden(*this, t.count, width);
    if (gated)
      biased_product(*this, x, wg.block(t.expert, width), w.gate_bias, t.expert, g);
    biased_product(*this, x, wu.block(t.expert, width), w.up_bias, t.expert, u);
    loops::activate(w.activation, g.data, u.data, hidden.view().data, u.size());
    biased_product(*this, In(hidden.view()), wd.block(t.expert, ys.cols), w.down_bias, t.expert,
                   rows_of(ys, t));
  });
}

void Cpu::experts_backward(const ExpertWeights<float>& w, const ExpertGrads<float>& g, In xs,
                           const Plan& plan, const ExpertTape<float>& tape, In dys, In weight,
                           Out dxs, Out dweight) {
  const bool gated = is_gated(w.activation);
  const Index width = tape.up.cols();
  const Index hidden = xs.cols;
  Array<float> dh(*this, xs.rows, width);
  Array<float> dup(*this, xs.rows, width);
  Array<float> dgate(*this, gated ? xs.rows : 0, width);
  const Array<float> share = dweight.empty() ? Array<float>{} : bias_share(w.down_bias, dys, plan);
  const In wg = gated ? plain<float>(w.gate) : In{};
  const In wu = plain<float>(w.up);
  const In wd = plain<float>(w.down);
  const std::vector<RowTile> tiles = row_tiles(plan.offset.view(), row_height);
  std::ranges::fill(dweight.flat(), 0.0f);
  run_tasks(Index(tiles.size()), double(xs.size()) * double(width) * 3, [&](Index i) {
    const RowTile& t = tiles[std::size_t(i)];
    const Out h = rows_of(dh.view(), t);
    const Out du = rows_of(dup.view(), t);
    const Out dg = rows_of(dgate.view(), t);
    const Out dx = rows_of(dxs, t);
    tile_product(*this, rows_of(dys, t), wd.block(t.expert, hidden), Op::plain, h, 0);
    activation_backward(w.activation, rows_of(tape.gate.view(), t), rows_of(tape.up.view(), t), t,
                        plan, weight, rows_of(share.view(), t), h, dg, du, dweight);
    tile_product(*this, In(du), wu.block(t.expert, width), Op::plain, dx, 0);
    if (gated)
      tile_product(*this, In(dg), wg.block(t.expert, width), Op::plain, dx, 1);
  });
  if (!g.down.empty())
    grouped_linear_dw(dys, dh.view(), plan, g.down);
  if (!g.up.empty())
    grouped_linear_dw(dup.view(), xs, plan, g.up);
  if (gated && !g.gate.empty())
    grouped_linear_dw(dgate.view(), xs, plan, g.gate);
  weighted_bias_grad(dys, plan, weight, g.down_bias);
  if (!g.up_bias.empty())
    grouped_bias_grad(dup.view(), plan, g.up_bias);
  if (gated && !g.gate_bias.empty())
    grouped_bias_grad(dgate.view(), plan, g.gate_bias);
}

}  // namespace moe
