// The rest of Operations: plan, ways to the experts and back, row by row, tokens, attention,
// optimiser. Host synchronisation: plan (a grouped library call needs its sizes on the host) and
// sum_squares (its result is a host number); nothing else waits.
#pragma once
#include "lib/backend/cuda/operations_class.h"

namespace moe::gpu {

// ---- who goes where --------------------------------------------------------------------------

template <class E>
Plan Operations<E>::plan(View<const int> kept, int experts) {
  Plan p;
  const Index n = kept.size();
  if (n > std::numeric_limits<int>::max()) {
    throw Error(Exit::memory, concat(n, " choices are more than one plan can hold"))
        .hint("fewer tokens a step");
  }
  Array<int> key(*this, 1, n);
  p.place = Array<int>(*this, kept.rows, kept.cols);
  p.offset = Array<int>(*this, 1, experts + 1);
  p.token = Array<int>(*this, 1, n);
  p.choice = Array<int>(*this, 1, n);
  engine_.sort_choices(kept.data, n, experts, key.view().data, p.choice.view().data,
                       p.offset.view().data);
  engine_.each("place", n,
               PlaceChoices{key.view().data, p.choice.view().data, p.place.view().data,
                            p.token.view().data, int(kept.cols), experts});
  p.host_offset = offsets_on_host(p);
  p.slots = p.host_offset.back();
  return p;
}
template <class E>
void Operations<E>::dispatch(In x, const Plan& p, Out xs) {
  engine_.rows("dispatch", p.slots, Dispatch{x.data, p.token.view().data, xs.data, xs.cols});
}
template <class E>
void Operations<E>::combine(In ys, const Plan& p, In weight, Out y, float beta) {
  engine_.rows("combine", y.rows,
               Combine{ys.data, p.place.view().data, weight.empty() ? nullptr : weight.data, y.data,
                       y.cols, p.place.cols(), beta});
}
template <class E>
void Operations<E>::combine_backward(In dy, In ys, const Plan& p, In weight, Out dys, Out dweight) {
  engine_.rows(
      "combine_backward", dy.rows,
      CombineBackward{dy.data, ys.data, p.place.view().data, weight.empty() ? nullptr : weight.data,
                      dys.data, dweight.empty() ? nullptr : dweight.data, dy.cols, p.place.cols()});
}
template <class E>
void Operations<E>::scale_slots(Out xs, const Plan& p, In weight) {
  engine_.rows("scale_slots", p.slots,
               ScaleSlots{xs.data, p.choice.view().data, weight.data, xs.cols});
}

// ---- biases, and sums over columns -----------------------------------------------------------

template <class E>
void Operations<E>::add_bias(In b, Out y) {
  engine_.rows("add_bias", y.rows, AddBias{b.data, y.data, y.cols});
}
template <class E>
void Operations<E>::bias_grad(In dy, Out db) {
  sum_columns("bias_grad", {.x = dy.data, .cols = dy.cols}, nullptr, 1, dy.rows, db);
}
template <class E>
void Operations<E>::grouped_add_bias(In b, const Plan& p, Out y) {
  engine_.rows("grouped_add_bias", p.slots,
               GroupedAddBias{b.data, p.offset.view().data, y.data, y.cols, p.experts()});
}
template <class E>
void Operations<E>::grouped_bias_grad(In dy, const Plan& p, Out db) {
  sum_columns("grouped_bias_grad", {.x = dy.data, .cols = dy.cols}, p.offset.view().data,
              p.experts(), dy.rows, db);
}
// Parts of about 64 rows where the rows are spread evenly; their number depends on shapes alone.
template <class E>
void Operations<E>::sum_columns(const char* name, const Value& value, const int* offset,
                                Index experts, Index rows, Out out) {
  const Index parts = std::min<Index>(256, rows / experts / 64 + 1);
  Array<double> partial(*this, experts * parts, value.cols);
  engine_.each(name, experts * parts * value.cols,
               PartialSums{value, offset, rows, parts, partial.view().data});
  engine_.each(name, experts * value.cols,
               AddPartial{partial.view().data, out.data, value.cols, parts});
}

// ---- row by row ------------------------------------------------------------------------------

template <class E>
void Operations<E>::activate(Activation a, In gate, In up, Out h) {
  engine_.each("activate", up.size(),
               Activate{a, gate.empty() ? nullptr : gate.data, up.data, h.data});
}
template <class E>
void Operations<E>::activate_backward(Activation a, In gate, In up, const Plan& p, In weight,
                                      In share, Out dh, Out dgate, Out dup, Out dweight) {
  const auto or_null = [](auto m) {
    return m.empty() ? nullptr : m.data;
  };
  if (!dweight.empty())
    zero(dweight.data, std::size_t(dweight.size()) * sizeof(float));
  engine_.rows("activate_backward", p.slots,
               ActivateBackward{a, or_null(gate), up.data, p.choice.view().data, or_null(weight),
                                or_null(share), dh.data, or_null(dgate), dup.data, or_null(dweight),
                                up.cols});
}
template <class E>
void Operations<E>::norm(In x, In w, double eps, Out y, Out rstd) {
  engine_.rows("norm", x.size() / w.cols, Norm{x.data, w.data, y.data, rstd.data, w.cols, eps});
}
template <class E>
void Operations<E>::norm_backward(In dy, In x, In w, In rstd, Out dx, Out dw, float beta) {
  const Index rows = x.size() / w.cols;
  // before dx is written, which may lie where dy does
  if (!dw.empty()) {
    sum_columns("norm_backward", {.x = dy.data, .y = x.data, .s = rstd.data, .cols = w.cols},
                nullptr, 1, rows, dw);
  }
  engine_.rows("norm_backward", rows,
               NormBackward{dy.data, x.data, w.data, rstd.data, dx.data, w.cols, beta});
}
template <class E>
void Operations<E>::add(In x, Out y, float scale) {
  engine_.each("add", y.size(), Add{x.data, y.data, scale});
}
template <class E>
void Operations<E>::sigmoid_gate(In gate, In x, Out y) {
  engine_.rows("sigmoid_gate", y.rows, SigmoidGate{gate.data, x.data, y.data, y.cols});
}
template <class E>
void Operations<E>::sigmoid_gate_backward(In dy, In gate, In x, Out dgate, Out dx) {
  engine_.rows("sigmoid_gate_backward", dy.rows,
               SigmoidGateBackward{dy.data, gate.data, x.data, dgate.data, dx.data, dy.cols});
}

// ---- tokens ----------------------------------------------------------------------------------

template <class E>
void Operations<E>::embed(const Weight& table, View<const int> id, Out y) {
  engine_.rows("embed", y.rows, Embed{plain<float>(table).data, id.data, y.data, y.cols});
}
// Tokens sorted by id, so that a row of the table sums its own in order.
template <class E>
void Operations<E>::embed_backward(In dy, View<const int> id, Out dtable) {
  const Index n = id.size();
  Array<int> key(*this, 1, n);
  Array<int> choice(*this, 1, n);
  Array<int> offset(*this, 1, dtable.rows + 1);
  engine_.sort_choices(id.data, n, int(dtable.rows), key.view().data, choice.view().data,
                       offset.view().data);
  engine_.rows(
      "embed_backward", dtable.rows,
      EmbedBackward{dy.data, offset.view().data, choice.view().data, dtable.data, dtable.cols});
}
template <class E>
void Operations<E>::cross_entropy(Out z, View<const int> target, Out loss, float scale,
                                  bool backward) {
  engine_.rows("cross_entropy", z.rows,
               CrossEntropy{z.data, target.data, loss.data, z.cols, scale, backward});
}

// ---- causal attention ------------------------------------------------------------------------

// (2, Tq): the first key row that each query sees, and one past the last.
template <class E>
Array<int> Operations<E>::ranges_of_queries(const AttentionShape& a, Index queries) {
  Matrix<int> range(2, queries);
  for (std::size_t s = 0; s + 1 < a.query_start.size(); ++s) {
    const Index before =
        a.key_start[s + 1] - a.key_start[s] - (a.query_start[s + 1] - a.query_start[s]);
    for (Index t = a.query_start[s]; t < a.query_start[s + 1]; ++t) {
      const Index last = before + t - a.query_start[s];
      range(0, t) = int(a.key_start[s] + a.first_key(last));
      range(1, t) = int(a.key_start[s] + last + 1);
    }
  }
  return {*this, std::as_const(range).view()};
}
// (2, Tk): the first query row that sees each key, and one past the last.
template <class E>
Array<int> Operations<E>::ranges_of_keys(const AttentionShape& a, Index keys) {
  Matrix<int> range(2, keys);
  for (std::size_t s = 0; s + 1 < a.query_start.size(); ++s) {
    const Index queries = a.query_start[s + 1] - a.query_start[s];
    const Index before = a.key_start[s + 1] - a.key_start[s] - queries;
    for (Index j = a.key_start[s]; j < a.key_start[s + 1]; ++j) {
      // the query at the key's own place; negative for keys of an earlier call
      const Index at = j - a.key_start[s];
      const Index own = at - before;
      Index end = before + queries;  // one past the last position that sees it
      if (a.window > 0)
        end = std::min<Index>(end, at + a.window);
      if (a.chunk > 0)
        end = std::min<Index>(end, (at / a.chunk + 1) * a.chunk);
      range(0, j) = int(a.query_start[s] + std::max<Index>(0, own));
      range(1, j) = int(a.query_start[s] + std::max<Index>(0, end - before));
    }
  }
  return {*this, std::as_const(range).view()};
}
template <class E>
void Operations<E>::attention(In q, In k, In v, const AttentionShape& a, Out out, Out lse) {
  const Array<int> range = ranges_of_queries(a, q.rows);
  engine_.rows(
      "attention", q.rows * a.heads,
      Attend{q.data, k.data, v.data, range.view().data, out.data, lse.data, heads_of(a), q.rows});
}
template <class E>
void Operations<E>::attention_backward(In q, In k, In v, In out, In lse, In dout,
                                       const AttentionShape& a, Out dq, Out dk, Out dv) {
  const Array<int> of_queries = ranges_of_queries(a, q.rows);
  const Array<int> of_keys = ranges_of_keys(a, k.rows);
  Array<float> delta(*this, q.rows, a.heads);
  const float* d = delta.view().data;
  engine_.rows("attention_backward", q.rows * a.heads,
               AttendDelta{out.data, dout.data, delta.view().data, a.value_columns()});
  engine_.rows("attention_backward", q.rows * a.heads,
               AttendQueries{q.data, k.data, v.data, lse.data, dout.data, d, of_queries.view().data,
                             dq.data, heads_of(a), q.rows});
  engine_.rows("attention_backward", k.rows * a.kv_heads,
               AttendKeys{q.data, k.data, v.data, lse.data, dout.data, d, of_keys.view().data,
                          dk.data, dv.data, heads_of(a), k.rows});
}

// ---- optimiser -------------------------------------------------------------------------------

template <class E>
void Operations<E>::adamw(Out value, Out grad, Out m, Out v, const AdamW& o) {
  const double c1 = 1 - std::pow(o.beta1, double(o.step));
  const double c2 = 1 - std::pow(o.beta2, double(o.step));
  engine_.each("adamw", value.size(), Adam{value.data, grad.data, m.data, v.data, o, c1, c2});
}
template <class E>
double Operations<E>::sum_squares(In x) {
  Array<double> sum = Array<double>::zeros(*this, 1, 1);
  add_squares(x, sum.view());
  return sum.to_host()(0, 0);
}
template <class E>
void Operations<E>::add_squares(In x, View<double> sum) {
  constexpr Index each = 256;
  if (x.empty())
    return;
  Index parts = std::min<Index>(x.size(), each * each);
  Array<double> sums(*this, 1, parts);
  engine_.each("sum_squares", parts, SumSquares{x.data, x.size(), parts, sums.view().data});
  while (parts > 1) {
    const Index next = (parts + each - 1) / each;
    Array<double> fewer(*this, 1, next);
    engine_.rows("sum_squares", next, SumRun{sums.view().data, parts, each, fewer.view().data});
    sums = std::move(fewer);
    parts = next;
  }
  engine_.each("sum_squares", 1, AddSum{sums.view().data, sum.data});
}

// ---- routing ---------------------------------------------------------------------------------

template <class E>
void Operations<E>::top_k(In z, const TopK& o, View<const double> bias, View<const int> valid,
                          View<int> expert, Out weight, Out seen) {
  engine_.rows("top_k", z.rows,
               ChooseTopK{z.data, o, bias.empty() ? nullptr : bias.data,
                          valid.empty() ? nullptr : valid.data, expert.data, weight.data, seen.data,
                          z.cols});
}
template <class E>
void Operations<E>::top_k_backward(In z, const TopK& o, View<const int> valid,
                                   View<const int> expert, In dweight,
                                   View<const double> dprobability, double dsquare, Out dz) {
  engine_.rows(
      "top_k_backward", z.rows,
      TopKBackward{z.data, o, valid.empty() ? nullptr : valid.data, expert.data, dweight.data,
                   dprobability.empty() ? nullptr : dprobability.data, dsquare, dz.data, z.cols});
}

}  // namespace moe::gpu
