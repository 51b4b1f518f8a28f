// The expert bodies of the cpu backend: one task takes a tile of rows through gate, up, activation
// and down, so that what lies between them stays in the cache, and small experts cost one wake-up
// of the threads instead of five.
#include <type_traits>

#include "lib/backend/cpu_decode.h"
#include "lib/backend/cpu_tiles.h"

namespace moe {
namespace {

using namespace tiles;
using In = View<const float>;
using Out = View<float>;

// y = x w' + b for the rows of a stack; a view in memory has stacks of one tile.
void product(Memory& memory, In x, const Stack&, In w, In bias, Index expert, Out y) {
  biased_product(memory, x, w, bias, expert, y);
}
void product(Memory& memory, In x, const Stack& s, const Weight& w, In bias, Index expert, Out y) {
  stack_product(memory, x, s.height, w, Op::transposed, y, 0);
  add_bias_row(bias, expert, y);
}

// M: how matrices are read, views of f32 or weights with a source.
template <class M>
struct ForwardPass {
  Memory& memory;
  const ExpertWeights<float>& weights;
  M w_gate, w_up, w_down;
  In xs;
  Out gate, up, ys;

  void stack(const Stack& s) const {
    const RowTile& t = s.all;
    const Index width = up.cols;
    const In x = rows_of(xs, t);
    const Out u = rows_of(up, t);
    const Out g = rows_of(gate, t);
    Array<float> hidden(memory, t.count, width);
    if (is_gated(weights.activation))
      product(memory, x, s, expert_block(w_gate, t.expert, width), weights.gate_bias, t.expert, g);
    product(memory, x, s, expert_block(w_up, t.expert, width), weights.up_bias, t.expert, u);
    for (Index first = 0; first < t.count; first += s.height) {
      const Index count = std::min(s.height, t.count - first);
      const auto at = [&](Out m) {
        return m.empty() ? m.data : m.data + first * width;
      };
      loops::activate(weights.activation, at(g), at(u), at(hidden.view()), count * width);
    }
    product(memory, In(hidden.view()), s, expert_block(w_down, t.expert, ys.cols),
            weights.down_bias, t.expert, rows_of(ys, t));
  }
  void tile(const RowTile& t) const {
    stack({t, t.count});
  }
};

template <class M>
struct BackwardPass {
  Memory& memory;
  Activation activation;
  M w_gate, w_up, w_down;
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
    tile_product(memory, rows_of(dys, t), expert_block(w_down, t.expert, dys.cols), Op::plain, h,
                 0);
    activation_backward(activation, rows_of(tape.gate.view(), t), rows_of(tape.up.view(), t), t,
                        plan, weight, rows_of(share, t), h, dg, du, dweight);
    tile_product(memory, In(du), expert_block(w_up, t.expert, width), Op::plain, dx, 0);
    if (is_gated(activation))
      tile_product(memory, In(dg), expert_block(w_gate, t.expert, width), Op::plain, dx, 1);
  }
};

// The matrices of experts as M reads them.
template <class M>
struct Matrices {
  M gate, up, down;
};
Matrices<In> in_memory(const ExpertWeights<float>& w) {
  return {is_gated(w.activation) ? plain<float>(w.gate) : In{}, plain<float>(w.up),
          plain<float>(w.down)};
}

template <class M>
void forward(Memory& memory, const ExpertWeights<float>& w, const Matrices<M>& m, In xs,
             const Plan& plan, ExpertTape<float>& tape, Out ys) {
  if (plan.decoding)
    return decode::experts(memory, decode::Bodies<M>{w, m.gate, m.up, m.down}, xs, plan, tape, ys);
  const Index width = w.up.rows / plan.experts();
  tape.up = Array<float>(memory, xs.rows, width);
  tape.gate = Array<float>(memory, is_gated(w.activation) ? xs.rows : 0, width);
  const ForwardPass<M> pass{memory,         w, m.gate, m.up, m.down, xs, tape.gate.view(),
                            tape.up.view(), ys};
  if constexpr (std::is_same_v<M, Weight>)
    run_stacks(plan, xs, width, pass);
  else
    run_tiles(plan, xs, width, pass);
}

}  // namespace

void Cpu::experts(const ExpertWeights<float>& w, In xs, const Plan& plan, ExpertTape<float>& tape,
                  Out ys) {
  if (w.up.source)
    forward(*this, w, Matrices<Weight>{w.gate, w.up, w.down}, xs, plan, tape, ys);
  else
    forward(*this, w, in_memory(w), xs, plan, tape, ys);
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
  const auto back = [&](const auto& m) {
    using M = std::remove_cvref_t<decltype(m.up)>;
    run_tiles(plan, xs, width,
              BackwardPass<M>{*this, w.activation, m.gate, m.up, m.down, plan, tape, dys, weight,
                              share.view(), dh.view(), dup.view(), dgate.view(), dxs, dweight});
  };
  if (w.up.source)
    back(Matrices<Weight>{w.gate, w.up, w.down});
  else
    back(in_memory(w));
  if (!g.down.empty())
    grouped_linear_dw(dys, dh.view(), plan, g.down);
  weighted_bias_grad(dys, plan, weight, g.down_bias);
  const auto add = [&](In slots, Out matrix, Out bias) {
    if (!matrix.empty())
      grouped_linear_dw(slots, xs, plan, matrix);
    if (!bias.empty())
      grouped_bias_grad(slots, plan, bias);
  };
  add(dup.view(), g.up, g.up_bias);
  if (gated)
    add(dgate.view(), g.gate, g.gate_bias);
}

}  // namespace moe
