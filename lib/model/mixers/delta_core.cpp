#include "lib/model/mixers/delta_core.h"

#include <cmath>

#include "lib/model/mixers/row_math.h"
#include "lib/model/mixers/state_scan.h"

namespace moe {
namespace {

constexpr double length_eps = 1e-6;  // under the root of every length

// y = factor x / |x|; returns 1 / |x|.
template <class S>
S normed(const S* x, S factor, S* y, Index n) {
  const S r = 1 / std::sqrt(row_math::dot(x, x, n) + S(length_eps));
  row_math::scale(x, r * factor, y, n);
  return r;
}
// dx from y and its gradient.
template <class S>
void normed_backward(const S* y, const S* dy, S r, S factor, S* dx, Index n) {
  row_math::scale(dy, r * factor, dx, n);
  row_math::add(y, -row_math::dot(y, dy, n) * r / factor, dx, n);
}

}  // namespace

template <class S>
ScanShape DeltaCore<S>::shape(const Batch& batch) const {
  return {
      .heads = value_heads, .groups = key_heads, .key = key, .value = value, .start = batch.start};
}
template <class S>
ScanInputs<S> DeltaCore<S>::inputs(const DeltaTape<S>& t, View<const S> decay) const {
  return {.q = t.q.view(), .v = t.v.view(), .decay = decay, .a = t.a.view(), .b = t.b.view()};
}

template <class S>
void DeltaCore<S>::make_arrays(DeltaTape<S>& t, Index rows) const {
  t.q = side.array(rows, keys());
  t.a = side.array(rows, keys());
  t.length_q = side.array(rows, key_heads);
  t.length_k = side.array(rows, key_heads);
  t.v = side.array(rows, values());
  t.b = side.array(rows, value_heads * key);
}

template <class S>
void DeltaCore<S>::forward(const Batch& batch, View<const S> mixed, View<const S> beta,
                           View<const S> decay, DeltaTape<S>& t, View<S> o,
                           StatePart<S>* state) const {
  const Index rows = mixed.rows;
  make_arrays(t, rows);
  const Index each = value_heads / key_heads;
  for_rows(rows, [&](Index r) {
    const S* from = mixed.row(r).data();
    S* q = row_of(t.q, r);
    S* a = row_of(t.a, r);
    row_math::silu(from, q, nullptr, keys());
    row_math::silu(from + keys(), a, nullptr, keys());
    row_math::silu(from + 2 * keys(), row_of(t.v, r), nullptr, values());
    for (Index h = 0; h < key_heads; ++h) {
      S* const k = a + h * key;
      t.length_q.view()(r, h) =
          normed(q + h * key, S(1 / std::sqrt(double(key))), q + h * key, key);
      t.length_k.view()(r, h) = normed(k, S(-1), k, key);
      for (Index i = h * each; i < (h + 1) * each; ++i)
        row_math::scale(k, -beta(r, i), row_of(t.b, r) + i * key, key);
    }
  });
  t.states = scan_from<S>(side, inputs(t, decay), shape(batch), state, o);
}

template <class S>
void DeltaCore<S>::row_backward(const DeltaTape<S>& t, Index r, View<const S> beta,
                                View<const S> da, View<const S> db, View<const S> dq, S* dmixed,
                                View<S> dbeta) const {
  const Index each = value_heads / key_heads;
  const S* a = row_of(t.a, r);
  std::vector<S> by(std::size_t(key), S(0));
  for (Index h = 0; h < key_heads; ++h) {
    const Index at = h * key;
    std::copy_n(da.row(r).data() + at, key, by.data());
    for (Index i = h * each; i < (h + 1) * each; ++i) {
      const S* d = db.row(r).data() + i * key;
      dbeta(r, i) = -row_math::dot(d, a + at, key);
      row_math::add(d, -beta(r, i), by.data(), key);
    }
    normed_backward(a + at, by.data(), t.length_k.view()(r, h), S(-1), dmixed + keys() + at, key);
    normed_backward(row_of(t.q, r) + at, dq.row(r).data() + at, t.length_q.view()(r, h),
                    S(1 / std::sqrt(double(key))), dmixed + at, key);
  }
}

template <class S>
void DeltaCore<S>::backward(const Batch& batch, const DeltaTape<S>& t, View<const S> mixed,
                            View<const S> beta, View<const S> decay, View<const S> d_o,
                            View<S> dmixed, View<S> dbeta, View<S> ddecay,
                            StatePart<S>* gradient) const {
  const Index rows = mixed.rows;
  Array<S> dq = side.array(rows, keys());
  Array<S> da = side.array(rows, keys());
  Array<S> db = side.array(rows, value_heads * key);
  Array<S> dv = side.array(rows, values());
  ScanGradients<S> to{
      .q = dq.view(), .v = dv.view(), .decay = ddecay, .a = da.view(), .b = db.view()};
  scan_back<S>(side, inputs(t, decay), shape(batch), t.states, d_o, gradient, to);
  for_rows(rows, [&](Index r) {
    S* d = dmixed.row(r).data();
    row_backward(t, r, beta, da.view(), db.view(), dq.view(), d, dbeta);
    std::copy_n(row_of(dv, r), values(), d + 2 * keys());
    std::vector<S> slope(static_cast<std::size_t>(mixed.cols));
    row_math::silu(mixed.row(r).data(), nullptr, slope.data(), mixed.cols);
    row_math::product(slope.data(), d, d, mixed.cols);
  });
}

template struct DeltaCore<float>;
template struct DeltaCore<double>;

}  // namespace moe
