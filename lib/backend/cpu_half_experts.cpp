// The expert bodies of cpu:dtype=bf16: a tile of rows is rounded, goes through gate, up, activation
// and down, and is rounded between them.
#include "lib/backend/cpu_decode.h"
#include "lib/backend/cpu_half.h"
#include "lib/backend/cpu_tiles.h"

namespace moe {

// What the backward pass leaves by slot for the gradients of the weights: rounded for products, and
// in full for the sums of biases, where there are any.
struct SlotGradients {
  Array<Half> dys, h, dup, dgate;
  Array<float> full_dup, full_dgate;
  SlotGradients(Memory& m, Index rows, Index hidden, Index width, bool gated, bool biased)
      : dys(m, rows, hidden),
        h(m, rows, width),
        dup(m, rows, width),
        dgate(m, gated ? rows : 0, width),
        full_dup(m, biased ? rows : 0, width),
        full_dgate(m, biased && gated ? rows : 0, width) {}
};

namespace {

using namespace tiles;
using In = View<const float>;
using Out = View<float>;
using Halves = View<const Half>;

void round(In x, View<Half> to) {
  loops::to_half(x.data, to.data, x.size());
}

// What the forward pass of a tile reads and writes. M: how matrices are read, views or weights with
// a source.
template <class M>
struct ForwardPass {
  Memory& memory;
  const ExpertWeights<float>& weights;
  M w_gate, w_up, w_down;
  In xs;
  Out gate, up, ys;

  void tile(const RowTile& t) const {
    const Index width = up.cols;
    Array<Half> x(memory, t.count, xs.cols);
    Array<Half> hidden(memory, t.count, width);
    round(rows_of(xs, t), x.view());
    Array<float> space_h(memory, t.count, width);
    const Out u = rows_of(up, t);
    const Out g = rows_of(gate, t);
    const Out h = space_h.view();
    const Halves in(x.view());
    if (is_gated(weights.activation))
      biased_product(memory, in, expert_block(w_gate, t.expert, width), weights.gate_bias, t.expert,
                     g);
    biased_product(memory, in, expert_block(w_up, t.expert, width), weights.up_bias, t.expert, u);
    loops::activate(weights.activation, g.data, u.data, h.data, u.size());
    round(h, hidden.view());
    biased_product(memory, Halves(hidden.view()), expert_block(w_down, t.expert, ys.cols),
                   weights.down_bias, t.expert, rows_of(ys, t));
  }
};

struct BackwardPass {
  Memory& memory;
  Activation activation;
  const RoundedExperts& rounded;
  const Plan& plan;
  const ExpertTape<float>& tape;
  In dys, weight, share;
  Out dxs, dweight;
  SlotGradients& slots;

  void tile(const RowTile& t) const {
    const bool gated = is_gated(activation);
    const bool biased = !slots.full_dup.empty();
    const Index width = tape.up.cols();
    Array<float> space_h(memory, t.count, width);
    Array<float> space_u(memory, biased ? 0 : t.count, width);
    Array<float> space_g(memory, biased || !gated ? 0 : t.count, width);
    const Out dh = space_h.view();
    const Out du = biased ? rows_of(slots.full_dup.view(), t) : space_u.view();
    const Out dg = biased ? rows_of(slots.full_dgate.view(), t) : space_g.view();
    const View<Half> half_dys = rows_of(slots.dys.view(), t);
    round(rows_of(dys, t), half_dys);
    tile_product(memory, Halves(half_dys), rounded.down.block(t.expert, dys.cols), Op::plain, dh,
                 0);
    activation_backward(activation, rows_of(tape.gate.view(), t), rows_of(tape.up.view(), t), t,
                        plan, weight, rows_of(share, t), dh, dg, du, dweight);
    round(dh, rows_of(slots.h.view(), t));
    add_dx(t, rounded.up, du, slots.dup, 0);
    if (gated)
      add_dx(t, rounded.gate, dg, slots.dgate, 1);
  }
  // dx = d w + beta dx, with d rounded and kept
  void add_dx(const RowTile& t, Halves w, In d, Array<Half>& kept, float beta) const {
    const View<Half> half = rows_of(kept.view(), t);
    round(d, half);
    tile_product(memory, Halves(half), w.block(t.expert, tape.up.cols()), Op::plain,
                 rows_of(dxs, t), beta);
  }
};

template <class M>
void forward_tiles(Memory& memory, const ExpertWeights<float>& w, const M& gate, const M& up,
                   const M& down, In xs, const Plan& plan, ExpertTape<float>& tape, Out ys) {
  const Index width = w.up.rows / plan.experts();
  tape.up = Array<float>(memory, xs.rows, width);
  tape.gate = Array<float>(memory, is_gated(w.activation) ? xs.rows : 0, width);
  run_tiles(plan, xs, width,
            ForwardPass<M>{memory, w, gate, up, down, xs, tape.gate.view(), tape.up.view(), ys});
}

}  // namespace

RoundedExperts CpuHalf::halves(const ExpertWeights<float>& w) {
  RoundedExperts r;
  if (is_gated(w.activation))
    r.gate = halves(w.gate, r.space[0]);
  r.up = halves(w.up, r.space[1]);
  r.down = halves(w.down, r.space[2]);
  return r;
}

void CpuHalf::experts(const ExpertWeights<float>& w, In xs, const Plan& plan,
                      ExpertTape<float>& tape, Out ys) {
  const bool bytes = (is_gated(w.activation) && w.gate.rounds_activations()) ||
                     w.up.rounds_activations() || w.down.rounds_activations();
  if (w.up.source && (plan.decoding || bytes))
    return Cpu::experts(w, xs, plan, tape, ys);
  if (w.up.source)
    return forward_tiles(*this, w, w.gate, w.up, w.down, xs, plan, tape, ys);
  const RoundedExperts rounded_w = halves(w);
  if (plan.decoding) {
    const Array<float> x = rounded_numbers(xs);
    const decode::Bodies<Halves> bodies{w, rounded_w.gate, rounded_w.up, rounded_w.down};
    return decode::experts(*this, bodies, x.view(), plan, tape, ys);
  }
  forward_tiles(*this, w, rounded_w.gate, rounded_w.up, rounded_w.down, xs, plan, tape, ys);
}

void CpuHalf::add_weight_gradients(const ExpertGrads<float>& g, In xs, const Plan& plan,
                                   const SlotGradients& slots) {
  if (!g.down.empty())
    weight_products<Half>(*this, slots.dys.view(), slots.h.view(), plan, g.down);
  if (g.up.empty() && g.gate.empty())
    return;
  const Array<Half> hxs = rounded(xs);
  if (!g.up.empty())
    weight_products<Half>(*this, slots.dup.view(), hxs.view(), plan, g.up);
  if (!slots.dgate.empty() && !g.gate.empty())
    weight_products<Half>(*this, slots.dgate.view(), hxs.view(), plan, g.gate);
}

void CpuHalf::experts_backward(const ExpertWeights<float>& w, const ExpertGrads<float>& g, In xs,
                               const Plan& plan, const ExpertTape<float>& tape, In dys, In weight,
                               Out dxs, Out dweight) {
  if (w.up.source)
    return Cpu::experts_backward(w, g, xs, plan, tape, dys, weight, dxs, dweight);
  const bool gated = is_gated(w.activation);
  const bool biased = !g.up_bias.empty() || !g.gate_bias.empty();
  SlotGradients slots(*this, xs.rows, xs.cols, tape.up.cols(), gated, biased);
  const Array<float> share = dweight.empty() ? Array<float>{} : bias_share(w.down_bias, dys, plan);
  const RoundedExperts rounded_w = halves(w);
  std::ranges::fill(dweight.flat(), 0.0f);
  run_tiles(plan, xs, tape.up.cols(),
            BackwardPass{*this, w.activation, rounded_w, plan, tape, dys, weight, share.view(), dxs,
                         dweight, slots});
  add_weight_gradients(g, xs, plan, slots);
  weighted_bias_grad(dys, plan, weight, g.down_bias);
  if (!g.up_bias.empty())
    grouped_bias_grad(slots.full_dup.view(), plan, g.up_bias);
  if (gated && !g.gate_bias.empty())
    grouped_bias_grad(slots.full_dgate.view(), plan, g.gate_bias);
}

}  // namespace moe
