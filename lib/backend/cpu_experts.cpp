// The expert bodies of the cpu backend: one task takes a tile of rows through gate, up, activation and down, so that what lies
// between them stays in the cache, and small experts cost one wake-up of the threads instead of five.
#include "lib/backend/cpu_tiles.h"

namespace moe {
namespace {

using namespace tiles;
using In = View<const float>;
using Out = View<float>;

}  // namespace

void Cpu::experts(const ExpertWeights<float>& w, In xs, const Plan& plan, ExpertTape<float>& tape, Out ys) {
  const bool gated = is_gated(w.activation);
  const Index width = w.up.rows / plan.experts();
  tape.up = Array<float>(*this, xs.rows, width);
  tape.h = Array<float>(*this, xs.rows, width);
  tape.gate = Array<float>(*this, gated ? xs.rows : 0, width);
  const In wg = gated ? plain<float>(w.gate) : In{}, wu = plain<float>(w.up), wd = plain<float>(w.down);
  const Out gate = tape.gate.view(), up = tape.up.view(), h = tape.h.view();
  const std::vector<RowTile> tiles = row_tiles(plan.offset.view(), row_height);
  run_tasks(Index(tiles.size()), double(xs.size()) * double(width) * 3, [&](Index i) {
    const RowTile& t = tiles[std::size_t(i)];
    const In x = xs.slice(t.first, t.count);
    const Out u = up.slice(t.first, t.count), hidden = h.slice(t.first, t.count), g = gated ? gate.slice(t.first, t.count) : Out{};
    if (gated) biased_product(*this, x, wg.block(t.expert, width), w.gate_bias, t.expert, g);
    biased_product(*this, x, wu.block(t.expert, width), w.up_bias, t.expert, u);
    loops::activate(w.activation, g.data, u.data, hidden.data, u.size());
    biased_product(*this, In(hidden), wd.block(t.expert, ys.cols), w.down_bias, t.expert, ys.slice(t.first, t.count));
  });
}

void Cpu::experts_backward(const ExpertWeights<float>& w, const ExpertGrads<float>& g, In xs, const Plan& plan, const ExpertTape<float>& tape,
                           In dys, Out dxs) {
  const bool gated = is_gated(w.activation);
  const Index width = tape.h.cols(), hidden = xs.cols;
  Array<float> dh(*this, xs.rows, width), dup(*this, xs.rows, width), dgate(*this, gated ? xs.rows : 0, width);
  const In wg = gated ? plain<float>(w.gate) : In{}, wu = plain<float>(w.up), wd = plain<float>(w.down);
  const std::vector<RowTile> tiles = row_tiles(plan.offset.view(), row_height);
  const auto rows = [](auto m, const RowTile& t) { return m.empty() ? m : m.slice(t.first, t.count); };
  run_tasks(Index(tiles.size()), double(xs.size()) * double(width) * 3, [&](Index i) {
    const RowTile& t = tiles[std::size_t(i)];
    const Out h = rows(dh.view(), t), du = rows(dup.view(), t), dg = rows(dgate.view(), t), dx = rows(dxs, t);
    tile_product(*this, rows(dys, t), wd.block(t.expert, hidden), Op::plain, h, 0);
    loops::activate_backward(w.activation, rows(tape.gate.view(), t).data, rows(tape.up.view(), t).data, h.data, dg.data, du.data, h.size());
    tile_product(*this, In(du), wu.block(t.expert, width), Op::plain, dx, 0);
    if (gated) tile_product(*this, In(dg), wg.block(t.expert, width), Op::plain, dx, 1);
  });
  if (!g.down.empty()) grouped_linear_dw(dys, tape.h.view(), plan, g.down);
  if (!g.up.empty()) grouped_linear_dw(dup.view(), xs, plan, g.up);
  if (gated && !g.gate.empty()) grouped_linear_dw(dgate.view(), xs, plan, g.gate);
  if (!g.down_bias.empty()) grouped_bias_grad(dys, plan, g.down_bias);
  if (!g.up_bias.empty()) grouped_bias_grad(dup.view(), plan, g.up_bias);
  if (gated && !g.gate_bias.empty()) grouped_bias_grad(dgate.view(), plan, g.gate_bias);
}

}  // namespace moe
