// The products of Operations: dense, grouped by expert, and the expert bodies made of them. In bf16
// the library's grouped call writes bf16, which is added to the f32 result; one call an expert
// writes f32 at once.
#pragma once
#include <memory>

#include "lib/backend/cuda/operations_class.h"
#include "lib/core/dtype.h"
#include "lib/core/rng.h"

namespace moe::gpu {

template <class E>
auto Operations<E>::operand(In x, bool half) -> Operand {
  if (!half)
    return {x.data, false, x.rows, x.cols, {}};
  Array<std::uint16_t> copy(*this, x.rows, x.cols);
  engine_.each("to_bf16", x.size(), ToHalf{x.data, copy.view().data});
  const void* data = copy.view().data;
  return {data, true, x.rows, x.cols, std::move(copy)};
}

// Weights keep their copy until they change: mutate() gives them a new version.
template <class E>
auto Operations<E>::operand(const Weight& w) -> Operand {
  const In plain_w = plain<float>(w);
  const bool half = choices_.half && !w.exact;
  if (!half || w.id == 0)
    return operand(plain_w, half);
  Copy& copy = copies_[w.id];
  const bool fits = copy.numbers.rows() == w.rows && copy.numbers.cols() == w.cols;
  if (!fits || copy.version != w.version) {
    const std::size_t bytes = std::size_t(w.rows * w.cols) * 2;
    if (!fits) {
      copied_ -= copy.numbers.bytes();
      if (copied_ + bytes > engine_.weight_budget()) {
        copies_.clear();
        copied_ = 0;
      }
      copies_[w.id].numbers = Array<std::uint16_t>(*this, w.rows, w.cols);
      copied_ += bytes;
    }
    Copy& fresh = copies_[w.id];
    engine_.each("to_bf16", w.rows * w.cols, ToHalf{plain_w.data, fresh.numbers.view().data});
    fresh.version = w.version;
  }
  return {copies_[w.id].numbers.view().data, true, w.rows, w.cols, {}};
}

template <class E>
void Operations<E>::multiply(const Gemm& g, bool half) {
  if (g.m == 0 || g.n == 0)
    return;
  if (g.k > 0)
    return engine_.gemm(g, {half, false});
  engine_.each("scale", g.m * g.n, Scaled{static_cast<float*>(g.c), g.beta});  // an empty sum
}

// So many ordinary numbers, of many the first million over and over, in f32 or bf16.
template <class E>
auto Operations<E>::numbers(Index size, std::uint64_t seed)
    -> std::shared_ptr<Array<std::uint16_t>> {
  const bool half = choices_.half;
  Rng rng(seed);
  Matrix<float> block(1, std::min<Index>(size, Index(1) << 20));
  for (float& v : block.flat())
    v = float(rng.normal());
  std::vector<std::uint16_t> rounded;
  for (const float v : block.flat())
    rounded.push_back(float_to_bf16(v));
  auto out = std::make_shared<Array<std::uint16_t>>(*this, 1, half ? size : 2 * size);
  const std::size_t each = half ? 2 : 4;
  for (Index at = 0; at < size; at += block.cols()) {
    to_device(half ? static_cast<const void*>(rounded.data()) : block.data(),
              reinterpret_cast<char*>(out->view().data) + std::size_t(at) * each,
              std::size_t(std::min(block.cols(), size - at)) * each);
  }
  return out;
}

// The products of one gated expert; operands x, g, u, y, w_gate, w_up, w_down.
inline std::vector<Gemm> gated_expert_calls(Index rows, Index hidden, Index width,
                                            const std::vector<void*>& at, bool backward) {
  void *x = at[0], *g = at[1], *u = at[2], *y = at[3], *wg = at[4], *wu = at[5], *wd = at[6];
  std::vector<Gemm> calls = {forward_gemm(rows, hidden, width, x, wg, g, 0),
                             forward_gemm(rows, hidden, width, x, wu, u, 0),
                             forward_gemm(rows, width, hidden, u, wd, y, 0)};
  if (backward) {
    calls.push_back(dx_gemm(rows, width, hidden, y, wd, g, 0));
    calls.push_back(dx_gemm(rows, hidden, width, u, wg, y, 0));
    calls.push_back(dx_gemm(rows, hidden, width, u, wu, y, 0));
    calls.push_back(dw_gemm(rows, width, hidden, g, y, wd, 0));
    calls.push_back(dw_gemm(rows, hidden, width, x, u, wg, 0));
    calls.push_back(dw_gemm(rows, hidden, width, x, u, wu, 0));
  }
  return calls;
}

template <class E>
std::function<void()> Operations<E>::plain_products(Index rows, Index hidden, Index width,
                                                    bool backward) {
  const bool half = choices_.half;
  const auto x = numbers(rows * hidden, 1);
  const auto g = numbers(rows * width, 2);
  const auto u = numbers(rows * width, 3);
  const auto y = numbers(rows * hidden, 4);
  const auto wg = numbers(width * hidden, 5);
  const auto wu = numbers(width * hidden, 6);
  const auto wd = numbers(hidden * width, 7);
  const std::vector operands = {x, g, u, y, wg, wu, wd};  // live as long as the function
  std::vector<void*> at;
  for (const auto& operand : operands)
    at.push_back(operand->view().data);
  const std::vector<Gemm> calls = gated_expert_calls(rows, hidden, width, at, backward);
  return [this, half, calls, operands] {
    for (const Gemm& call : calls)
      engine_.gemm(call, {half, half});
  };
}

template <class E>
void Operations<E>::linear(In x, const Weight& w, Out y, float beta) {
  const Operand b = operand(w);
  const Operand a = operand(x, b.half);
  multiply(forward_gemm(x.rows, x.cols, w.rows, a.data, b.data, y.data, beta), a.half);
}
template <class E>
void Operations<E>::linear_dx(In dy, const Weight& w, Out dx, float beta) {
  const Operand b = operand(w);
  const Operand a = operand(dy, b.half);
  multiply(dx_gemm(dy.rows, w.cols, w.rows, a.data, b.data, dx.data, beta), a.half);
}
template <class E>
void Operations<E>::linear_dw(In dy, In x, Out dw) {
  const Operand a = operand(dy);
  const Operand b = operand(x);
  multiply(dw_gemm(x.rows, x.cols, dy.cols, a.data, b.data, dw.data, 1), a.half);
}

template <class E>
std::vector<Index> Operations<E>::offsets_on_host(const Plan& p) {
  if (!p.host_offset.empty())
    return p.host_offset;
  const Matrix<int> m = p.offset.to_host();
  return {m.data(), m.data() + m.size()};
}

// forward: a = x (S,I), b = w (E*O,I), c = y (S,O). dx: a = dy (S,O), b = w, c = dx (S,I). dw: a =
// dy, b = x, c = dw (E*O,I). The calls of experts that have rows; `target` is a row of c.
template <class E>
template <class Target>
std::vector<Gemm> Operations<E>::expert_calls(Kind kind, const Operand& a, const Operand& b,
                                              const std::vector<Index>& offset, float beta,
                                              const Target& target) {
  const Index experts = Index(offset.size()) - 1;
  const Index out = kind == Kind::dw ? a.cols : b.rows / experts;
  const Index in = b.cols;
  std::vector<Gemm> calls;
  for (Index e = 0; e < experts; ++e) {
    const Index first = offset[std::size_t(e)];
    const Index rows = offset[std::size_t(e) + 1] - first;
    if (rows == 0 || in == 0 || out == 0)
      continue;
    if (kind == Kind::forward)
      calls.push_back(forward_gemm(rows, in, out, a.at(first), b.at(e * out), target(first), beta));
    if (kind == Kind::dx)
      calls.push_back(dx_gemm(rows, in, out, a.at(first), b.at(e * out), target(first), beta));
    if (kind == Kind::dw)
      calls.push_back(dw_gemm(rows, in, out, a.at(first), b.at(first), target(e * out), beta));
  }
  return calls;
}

template <class E>
void Operations<E>::grouped(Kind kind, const Operand& a, const Operand& b, const Plan& plan, Out c,
                            float beta) {
  const std::vector<Index> offset = offsets_on_host(plan);
  const bool wide = a.half && choices_.grouped;  // through a bf16 result
  Array<std::uint16_t> half(*this, !wide ? 0 : kind == Kind::dw ? c.rows : offset.back(), c.cols);
  const auto target = [&](Index row) -> void* {
    if (wide)
      return half.view().data + row * c.cols;
    return c.data + row * c.cols;
  };
  const std::vector<Gemm> calls = expert_calls(kind, a, b, offset, wide ? 0 : beta, target);
  // experts without rows have no call
  const bool idle = std::ranges::adjacent_find(offset) != offset.end();
  if (wide && kind == Kind::dw && idle)
    half.clear();
  if (calls.empty())
    return;
  if (choices_.grouped) {
    engine_.gemm_group(calls, {a.half, wide});
  } else {
    for (const Gemm& g : calls)
      engine_.gemm(g, {a.half, false});
  }
  if (wide)
    engine_.each("from_bf16", half.rows() * half.cols(), FromHalf{half.view().data, c.data, beta});
}

template <class E>
void Operations<E>::grouped_linear(In x, const Weight& w, const Plan& p, Out y, float beta) {
  grouped(Kind::forward, operand(x), operand(w), p, y, beta);
}
template <class E>
void Operations<E>::grouped_linear_dx(In dy, const Weight& w, const Plan& p, Out dx, float beta) {
  grouped(Kind::dx, operand(dy), operand(w), p, dx, beta);
}
template <class E>
void Operations<E>::grouped_linear_dw(In dy, In x, const Plan& p, Out dw) {
  grouped(Kind::dw, operand(dy), operand(x), p, dw, 1);
}

template <class E>
void Operations<E>::experts(const ExpertWeights<float>& w, In xs, const Plan& plan,
                            ExpertTape<float>& tape, Out ys) {
  const bool gated = is_gated(w.activation);
  const Index width = w.up.rows / plan.experts();
  tape.up = Array<float>(*this, xs.rows, width);
  tape.gate = Array<float>(*this, gated ? xs.rows : 0, width);
  {
    const Operand x = operand(xs);
    if (gated)
      grouped(Kind::forward, x, operand(w.gate), plan, tape.gate.view(), 0);
    grouped(Kind::forward, x, operand(w.up), plan, tape.up.view(), 0);
  }
  if (gated && !w.gate_bias.empty())
    grouped_add_bias(w.gate_bias, plan, tape.gate.view());
  if (!w.up_bias.empty())
    grouped_add_bias(w.up_bias, plan, tape.up.view());
  Array<float> h(*this, xs.rows, width);
  activate(w.activation, tape.gate.view(), tape.up.view(), h.view());
  grouped_linear(h.view(), w.down, plan, ys, 0);
  if (!w.down_bias.empty())
    grouped_add_bias(w.down_bias, plan, ys);
}

// dx = d w + beta dx; dw += d' x, unless dw is empty
template <class E>
void Operations<E>::through_inner(const Operand& d, const Weight& w, const Operand& x,
                                  const Plan& plan, Out dx, float beta, Out dw) {
  grouped(Kind::dx, d, operand(w), plan, dx, beta);
  if (!dw.empty())
    grouped(Kind::dw, d, x, plan, dw, 1);
}
template <class E>
void Operations<E>::inner_bias_grads(In dup, In dgate, const Plan& plan,
                                     const ExpertGrads<float>& g) {
  if (!g.up_bias.empty())
    grouped_bias_grad(dup, plan, g.up_bias);
  if (!dgate.empty() && !g.gate_bias.empty())
    grouped_bias_grad(dgate, plan, g.gate_bias);
}

template <class E>
void Operations<E>::experts_backward(const ExpertWeights<float>& w, const ExpertGrads<float>& g,
                                     In xs, const Plan& plan, const ExpertTape<float>& tape, In dys,
                                     In weight, Out dxs, Out dweight) {
  const bool gated = is_gated(w.activation);
  const Index width = tape.up.cols();
  Array<float> dh(*this, xs.rows, width);
  Array<float> dup(*this, xs.rows, width);
  Array<float> dgate(*this, gated ? xs.rows : 0, width);
  {
    const Operand d = operand(dys);
    const Array<float> share =
        dweight.empty() ? Array<float>{} : bias_share(w.down_bias, dys, plan);
    grouped(Kind::dx, d, operand(w.down), plan, dh.view(), 0);
    activate_backward(w.activation, tape.gate.view(), tape.up.view(), plan, weight, share.view(),
                      dh.view(), dgate.view(), dup.view(), dweight);
    if (!g.down.empty())
      grouped(Kind::dw, d, operand(In(dh.view())), plan, g.down, 1);
  }
  dh = {};
  weighted_bias_grad(dys, plan, weight, g.down_bias);
  inner_bias_grads(dup.view(), dgate.view(), plan, g);
  Operand x;
  if (!g.up.empty() || (gated && !g.gate.empty()))
    x = operand(xs);
  through_inner(operand(In(dup.view())), w.up, x, plan, dxs, 0, g.up);
  if (gated)
    through_inner(operand(In(dgate.view())), w.gate, x, plan, dxs, 1, g.gate);
}

}  // namespace moe::gpu
