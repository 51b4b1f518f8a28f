#include "lib/model/mixers/key_compressor.h"

#include <algorithm>
#include <cmath>

#include "lib/model/config.h"

namespace moe {

template <class S>
KeyCompressor<S>::KeyCompressor(const HostSide<S>& side, const CompressorSizes& n, Index hidden,
                                const std::string& prefix, double eps, const Rotary& rotary)
    : side_(&side),
      n_(n),
      eps_(eps),
      rotary_(rotary),
      kv_(side.backend(), prefix + "kv", {n.cols(), hidden}),
      gate_(side.backend(), prefix + "gate", {n.cols(), hidden}),
      place_(side.backend(), prefix + "place", {n.rate, n.cols()}, ParameterKind::vector),
      norm_(side.backend(), prefix + "norm", {n.dim}, ParameterKind::vector) {}

template <class S>
void KeyCompressor<S>::collect(const ModelConfig& c, const std::string& published,
                               std::vector<ModelParameter<S>>& all) {
  const Start product = matrix_start(c, MatrixRole::mixer, c.hidden);
  all.push_back({.parameter = &kv_, .start = product, .published = published + "wkv.weight"});
  all.push_back({.parameter = &gate_, .start = product, .published = published + "wgate.weight"});
  all.push_back({.parameter = &place_, .start = {}, .published = published + "ape"});
  all.push_back(
      {.parameter = &norm_, .start = {.value = 1}, .published = published + "norm.weight"});
}

template <class S>
void KeyCompressor<S>::freeze() {
  for (Parameter<S>* p : {&kv_, &gate_, &place_, &norm_})
    p->freeze();
}

namespace {

// The rows whose numbers an entry weighs, for its number i: those of its own window, and with
// `before` first those of the window before it.
struct Rows {
  Index rate, cols, own, other;  // columns of the number in the two windows
  bool before;

  Index count() const {
    return rate * (before ? 2 : 1);
  }
  bool is_before(Index j) const {
    return before && j < rate;
  }
  Index place(Index j) const {  // of row j in the (rate,cols) numbers by place
    return (before && j >= rate ? j - rate : j) * cols + (is_before(j) ? other : own);
  }
  Index offset(Index j) const {  // of row j from the window's first number
    return place(j) - (is_before(j) ? rate * cols : 0);
  }
};

Rows rows_of(const CompressorSizes& n, Index number, bool before) {
  return {n.rate, n.cols(), n.overlap ? n.dim + number : number, number, before};
}

// e^(gate + place - most) of each row; returns their sum.
template <class S>
double weigh(const Rows& rows, const S* gate, View<const S> place, std::vector<double>& weight) {
  double most = -INFINITY;
  weight.resize(std::size_t(rows.count()));
  for (Index j = 0; j < rows.count(); ++j) {
    weight[std::size_t(j)] = double(gate[rows.offset(j)]) + double(place.data[rows.place(j)]);
    most = std::max(most, weight[std::size_t(j)]);
  }
  double sum = 0;
  for (double& w : weight)
    sum += w = std::exp(w - most);
  return sum;
}

// One entry before its norm, from the first row of its window.
template <class S>
void pool(const CompressorSizes& n, const S* gate, const S* value, View<const S> place, bool before,
          S* out) {
  std::vector<double> weight;
  for (Index i = 0; i < n.dim; ++i) {
    const Rows rows = rows_of(n, i, before);
    const double sum = weigh(rows, gate, place, weight);
    double all = 0;
    for (Index j = 0; j < rows.count(); ++j)
      all += weight[std::size_t(j)] * double(value[rows.offset(j)]);
    out[i] = S(all / sum);
  }
}

}  // namespace

template <class S>
void KeyCompressor<S>::pool_backward(const CompressedKeys<S>& t, Index entry, View<const S> place,
                                     const S* dpooled, Array<S>& dgate, Array<S>& dvalue,
                                     S* dplace) const {
  const Index from = t.window[std::size_t(entry)];
  const bool before = n_.overlap && t.place[std::size_t(entry)] > 0;
  const S* value = row_of(t.value, from);
  std::vector<double> weight;
  for (Index i = 0; i < n_.dim; ++i) {
    const Rows rows = rows_of(n_, i, before);
    const double sum = weigh(rows, row_of(t.gate, from), place, weight);
    for (Index j = 0; j < rows.count(); ++j) {
      const double w = weight[std::size_t(j)] / sum * double(dpooled[i]);
      const double apart = double(value[rows.offset(j)]) - double(t.pooled.view()(entry, i));
      row_of(dvalue, from)[rows.offset(j)] += S(w);
      row_of(dgate, from)[rows.offset(j)] += S(w * apart);
      dplace[rows.place(j)] += S(w * apart);
    }
  }
}

template <class S>
void KeyCompressor<S>::turn(View<S> entry, const std::vector<Index>& place, bool back) const {
  if (n_.turned == 0)
    return;
  Matrix<int> at(1, entry.rows);
  for (Index e = 0; e < entry.rows; ++e)
    at(0, e) = int(place[std::size_t(e)]);
  const Array<int> position(side_->host(), std::as_const(at).view());
  const int furthest = int(*std::ranges::max_element(place));
  side_->host().rope(entry, rotary_.rotation(n_.dim, n_.dim - n_.turned, true, furthest),
                     position.view(), back);
}

template <class S>
void KeyCompressor<S>::finish(View<const S> pooled, const std::vector<Index>& place, View<S> rstd,
                              View<S> entry) const {
  side_->host().norm(pooled, side_->read(norm_).view, eps_, entry, rstd);
  turn(entry, place, false);
}

// The next so many entries of a sequence, whose rows are all there.
template <class S>
void KeyCompressor<S>::complete(typename CompressorState<S>::Sequence& s, Index fresh) const {
  const HostNumbers<S> weights = side_->read(place_);
  Array<S> pooled = side_->array(fresh, n_.dim);
  Array<S> rstd = side_->array(fresh, 1);
  Array<S> entry = side_->array(fresh, n_.dim);
  std::vector<Index> place;
  for (Index e = 0; e < fresh; ++e) {
    place.push_back((s.entries + e) * n_.rate);
    const Index offset = (place.back() - s.first) * n_.cols();
    pool<S>(n_, s.gate.data() + offset, s.value.data() + offset, weights.view,
            n_.overlap && place.back() > 0, row_of(pooled, e));
  }
  finish(std::as_const(pooled).view(), place, rstd.view(), entry.view());
  const auto numbers = entry.view().flat();
  s.entry.insert(s.entry.end(), numbers.begin(), numbers.end());
  s.entries += fresh;
}

// Appends rows of the products and every entry that they complete.
template <class S>
void KeyCompressor<S>::grow(typename CompressorState<S>::Sequence& s, View<const S> gate,
                            View<const S> value) const {
  s.gate.insert(s.gate.end(), gate.flat().begin(), gate.flat().end());
  s.value.insert(s.value.end(), value.flat().begin(), value.flat().end());
  const Index cols = n_.cols();
  const Index rows = s.first + Index(s.gate.size()) / cols;
  if (const Index fresh = rows / n_.rate - s.entries; fresh > 0)
    complete(s, fresh);
  const Index keep = std::max<Index>(0, s.entries - (n_.overlap ? 1 : 0)) * n_.rate;
  const Index drop = (keep - s.first) * cols;
  s.gate.erase(s.gate.begin(), s.gate.begin() + drop);
  s.value.erase(s.value.begin(), s.value.begin() + drop);
  s.first = keep;
}

template <class S>
CompressedKeys<S> KeyCompressor<S>::gathered(const CompressorState<S>& kept) const {
  CompressedKeys<S> t;
  t.start.push_back(0);
  for (const auto& s : kept.sequence)
    t.start.push_back(t.start.back() + s.entries);
  t.entry = side_->array(t.start.back(), n_.dim);
  for (std::size_t q = 0; q < kept.sequence.size(); ++q) {
    if (kept.sequence[q].entries > 0)
      std::ranges::copy(kept.sequence[q].entry, row_of(t.entry, t.start[q]));
  }
  return t;
}

template <class S>
CompressedKeys<S> KeyCompressor<S>::forward(std::span<const Index> start, View<const S> x,
                                            CompressorState<S>* kept) const {
  Array<S> gate = side_->product(x, gate_);
  Array<S> value = side_->product(x, kv_);
  if (kept) {
    for (std::size_t q = 0; q < kept->sequence.size(); ++q) {
      const Index rows = start[q + 1] - start[q];
      grow(kept->sequence[q], std::as_const(gate).view().slice(start[q], rows),
           std::as_const(value).view().slice(start[q], rows));
    }
    return gathered(*kept);
  }
  CompressedKeys<S> t;
  t.gate = std::move(gate);
  t.value = std::move(value);
  t.start.push_back(0);
  for (std::size_t q = 0; q + 1 < start.size(); ++q) {
    for (Index at = 0; at + n_.rate <= start[q + 1] - start[q]; at += n_.rate) {
      t.window.push_back(start[q] + at);
      t.place.push_back(at);
    }
    t.start.push_back(Index(t.window.size()));
  }
  make(t);
  return t;
}

// Entries of the windows that are listed.
template <class S>
void KeyCompressor<S>::make(CompressedKeys<S>& t) const {
  const Index n = t.start.back();
  t.pooled = side_->array(n, n_.dim);
  t.rstd = side_->array(n, 1);
  t.entry = side_->array(n, n_.dim);
  if (n == 0)
    return;
  const HostNumbers<S> place = side_->read(place_);
  for_rows(n, [&](Index e) {
    const Index from = t.window[std::size_t(e)];
    pool<S>(n_, row_of(std::as_const(t.gate), from), row_of(std::as_const(t.value), from),
            place.view, n_.overlap && t.place[std::size_t(e)] > 0, row_of(t.pooled, e));
  });
  finish(std::as_const(t.pooled).view(), t.place, t.rstd.view(), t.entry.view());
}

template <class S>
void KeyCompressor<S>::backward(const CompressedKeys<S>& t, View<const S> x, Array<S> dentry,
                                View<S> dx) {
  const Index n = t.pooled.rows();
  if (n == 0)
    return;
  turn(dentry.view(), t.place, true);
  Array<S> dpooled = side_->array(n, n_.dim);
  Array<S> dnorm = side_->zeros(1, n_.dim);
  side_->host().norm_backward(std::as_const(dentry).view(), t.pooled.view(),
                              side_->read(norm_).view, t.rstd.view(), dpooled.view(), dnorm.view(),
                              0);
  side_->accumulate(std::as_const(dnorm).view(), norm_);
  Array<S> dgate = side_->zeros(t.gate.rows(), t.gate.cols());
  Array<S> dvalue = side_->zeros(t.gate.rows(), t.gate.cols());
  Array<S> dplace = side_->zeros(n_.rate, n_.cols());
  const HostNumbers<S> place = side_->read(place_);
  // no two entries read the same number of a row
  sum_rows(n, dplace.view(), [&](Index e, S* sum) {
    pool_backward(t, e, place.view, row_of(std::as_const(dpooled), e), dgate, dvalue, sum);
  });
  side_->accumulate(std::as_const(dplace).view(), place_);
  side_->product_backward(dgate, x, gate_, dx, S(1));
  side_->product_backward(dvalue, x, kv_, dx, S(1));
}

template class KeyCompressor<float>;
template class KeyCompressor<double>;

}  // namespace moe
