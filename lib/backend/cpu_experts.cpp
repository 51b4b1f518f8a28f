// The expert bodies of the cpu backend: one task takes a tile of rows through gate, up, activation
// and down, so that what lies between them stays in the cache, and small experts cost one wake-up
// of the threads instead of five.
#include "lib/backend/cpu_decode.h"
#include "lib/backend/cpu_tiles.h"

namespace moe {
namespace {

using namespace tiles;
using In = View<const float>;
using Out = View<float>;

struct ForwardPass {
  Memory& memory;
  const ExpertWeights<float>& weights;
  In w_gate, w_up, w_down, xs;
  Out gate, up, ys;

  void tile(const RowTile& t) const {
    const Index width = up.cols;
    const In x = rows_of(xs, t);
    const Out u = rows_of(up, t);
    const Out g = rows_of(gate, t);
    Array<float> hidden(memory, t.count, width);
    if (is_gated(weights.activation))
      biased_product(memory, x, w_gate.block(t.expert, width), weights.gate_bias, t.expert, g);
    biased_product(memory, x, w_up.block(t.expert, width), weights.up_bias, t.expert, u);
    loops::activate(weights.activation, g.data, u.data, hidden.view().data, u.size());
    biased_product(memory, In(hidden.view()), w_down.block(t.expert, ys.cols), weights.down_bias,
                   t.expert, rows_of(ys, t));
  }
};

struct BackwardPass {
  Memory& memory;
  Activation activation;
  In w_gate, w_up, w_down;
  const Plan& plan;
  const ExpertTape<float>& tape;
  In dys, weight, share;
  Out dh, dup, dgate, dxs, dweight;

  void tile(const RowTile& t) const {
    const Index width = tape.up.cols();
    const Out h = rows_of(dh, t);
    const Out du = rows_of(dup, t);
    const Out dg = rows_of(dgate, t);
    const Out dx = rows_of(dxs, t);
    tile_product(memory, rows_of(dys, t), w_down.block(t.expert, dys.cols), Op::plain, h, 0);
    activation_backward(activation, rows_of(tape.gate.view(), t), rows_of(tape.up.view(), t), t,
                        plan, weight, rows_of(share, t), h, dg, du, dweight);
    tile_product(memory, In(du), w_up.block(t.expert, width), Op::plain, dx, 0);
    if (is_gated(activation))
      tile_product(memory, In(dg), w_gate.block(t.expert, width), Op::plain, dx, 1);
  }
};

}  // namespace

void Cpu::experts(const ExpertWeights<float>& w, In xs, const Plan& plan, ExpertTape<float>& tape,
                  Out ys) {
  const bool gated = is_gated(w.activation);
  if (plan.decoding) {
    const decode::Bodies<float> bodies{w, gated ? plain<float>(w.gate) : In{}, plain<float>(w.up),
                                       plain<float>(w.down)};
    return decode::experts(*this, bodies, xs, plan, tape, ys);
  }
  const Index width = w.up.rows / plan.experts();
  tape.up = Array<float>(*this, xs.rows, width);
  tape.gate = Array<float>(*this, gated ? xs.rows : 0, width);
  run_tiles(plan, xs, width,
            ForwardPass{*this, w, gated ? plain<float>(w.gate) : In{}, plain<float>(w.up),
                        plain<float>(w.down), xs, tape.gate.view(), tape.up.view(), ys});
}

void Cpu::experts_backward(const ExpertWeights<float>& w, const ExpertGrads<float>& g, In xs,
                           const Plan& plan, const ExpertTape<float>& tape, In dys, In weight,
                           Out dxs, Out dweight) {
  const bool gated = is_gated(w.activation);
  const Index width = tape.up.cols();
  Array<float> dh(*this, xs.rows, width);
  Array<float> dup(*this, xs.rows, width);
  Array<float> dgate(*this, gated ? xs.rows : 0, width);
  const Array<float> share = dweight.empty() ? Array<float>{} : bias_share(w.down_bias, dys, plan);
  std::ranges::fill(dweight.flat(), 0.0f);
  run_tiles(plan, xs, width,
            BackwardPass{*this, w.activation, gated ? plain<float>(w.gate) : In{},
                         plain<float>(w.up), plain<float>(w.down), plan, tape, dys, weight,
                         share.view(), dh.view(), dup.view(), dgate.view(), dxs, dweight});
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
