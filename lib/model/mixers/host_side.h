// Where a recurrent mixer works between its products with weights: on the host. On a host backend
// that is the backend's own memory and nothing is copied; otherwise numbers cross over.
#pragma once
#include <memory>

#include "lib/backend/host_memory.h"
#include "lib/backend/scans.h"
#include "lib/core/parallel.h"
#include "lib/layer/parameter.h"
#include "lib/model/linear.h"

namespace moe {

// Numbers for the host to read: where they lie, or a copy.
template <class S>
struct HostNumbers {
  Array<S> copy;
  View<const S> view;

  S operator()(Index r, Index c) const {
    return view(r, c);
  }
};

template <class S>
class HostSide {
 public:
  explicit HostSide(Backend<S>& b)
      : backend_(b),
        own_(dynamic_cast<HostBackend<S>*>(&b) ? nullptr : &beside_devices()),
        host_(own_ ? *own_ : b),
        scans_(scans_of(host_)) {}

  Backend<S>& backend() const {
    return backend_;
  }
  Backend<S>& host() const {
    return host_;
  }
  Scans<S>& scans() const {
    return scans_;
  }
  Array<S> array(Index rows, Index cols) const {
    return Array<S>(host_, rows, cols);
  }
  Array<S> zeros(Index rows, Index cols) const {
    return Array<S>::zeros(host_, rows, cols);
  }
  HostNumbers<S> read(View<const S> v) const {
    if (!own_)
      return {{}, v};
    HostNumbers<S> out{Array<S>(host_, v.rows, v.cols), {}};
    if (!v.empty())
      backend_.to_host(v.data, out.copy.view().data, out.copy.bytes());
    out.view = std::as_const(out.copy).view();
    return out;
  }
  HostNumbers<S> read(const Parameter<S>& p) const {
    return read(p.value());
  }
  // From the backend's memory to the host's and back.
  Array<S> fetched(Array<S> a) const {
    if (!own_)
      return a;
    const Matrix<S> m = a.to_host();
    return Array<S>(host_, m.view());
  }
  Array<S> sent(const Array<S>& a) const {
    const Matrix<S> m = a.to_host();
    return Array<S>(backend_, m.view());
  }
  // A host array in the backend's memory.
  Array<S> placed(Array<S> a) const {
    return own_ ? sent(a) : std::move(a);
  }
  // y = x w' + bias on the host
  Array<S> product(View<const S> x /*of the backend*/, const Parameter<S>& w,
                   const Parameter<S>& bias = {}) const {
    Array<S> y(backend_, x.rows, w.value().rows);
    project(backend_, x, w, bias, y.view());
    return fetched(std::move(y));
  }
  Array<S> product(const Array<S>& x /*host*/, const Parameter<S>& w) const {
    if (!own_)
      return product(x.view(), w);
    const Array<S> there = sent(x);
    return product(there.view(), w);
  }
  // Sets y, in the backend's memory.
  void product(const Array<S>& x /*host*/, const Parameter<S>& w, View<S> y) const {
    if (!own_)
      return backend_.linear(x.view(), w.weight(), y, 0);
    const Array<S> there = sent(x);
    backend_.linear(there.view(), w.weight(), y, 0);
  }
  // Of a product: adds to the gradient of w where it is trained, and returns that by x on the host.
  Array<S> product_backward(const Array<S>& dy, const Array<S>& x, Parameter<S>& w) const {
    if (own_) {
      const Array<S> dy_there = sent(dy);
      return product_backward(dy_there.view(), sent(x), w);
    }
    return product_backward(dy.view(), x, w);
  }
  // dy of the backend, x of the host
  Array<S> product_backward(View<const S> dy, const Array<S>& x, Parameter<S>& w) const {
    Array<S> there;
    if (own_)
      there = sent(x);
    const View<const S> rows = own_ ? std::as_const(there).view() : x.view();
    Array<S> dx(backend_, x.rows(), x.cols());
    backend_.linear_dx(dy, w.weight(), dx.view(), 0);
    if (!w.grad().empty())
      backend_.linear_dw(dy, rows, w.grad());
    return fetched(std::move(dx));
  }
  // dy of the host, x and dx of the backend: dx = gradient + beta dx
  void product_backward(const Array<S>& dy, View<const S> x, Parameter<S>& w, View<S> dx,
                        S beta) const {
    Parameter<S> none;
    product_backward(dy, x, w, none, dx, beta);
  }
  void product_backward(const Array<S>& dy, View<const S> x, Parameter<S>& w, Parameter<S>& bias,
                        View<S> dx, S beta) const {
    Array<S> there;
    if (own_)
      there = sent(dy);
    const View<const S> rows = own_ ? std::as_const(there).view() : dy.view();
    project_backward(backend_, rows, x, w, bias, dx, beta);
  }
  // y = what the host has
  void set(const Array<S>& host, View<S> y) const {
    if (!host.empty())
      backend_.to_device(host.view().data, y.data, host.bytes());
  }
  // The same products with matrices stored (in,out), or parts of one: y = x w
  Array<S> product_in_out(const Array<S>& x, View<const S> w) const {
    Array<S> there;
    if (own_)
      there = sent(x);
    const View<const S> rows = own_ ? std::as_const(there).view() : x.view();
    Array<S> y(backend_, rows.rows, w.cols);
    backend_.linear_dx(rows, Weight(w), y.view(), 0);
    return fetched(std::move(y));
  }
  // Returns the gradient by x; adds to dw unless it is empty.
  Array<S> product_in_out_backward(const Array<S>& dy, const Array<S>& x, View<const S> w,
                                   View<S> dw) const {
    Array<S> dy_there, x_there;
    if (own_) {
      dy_there = sent(dy);
      x_there = sent(x);
    }
    const View<const S> by = own_ ? std::as_const(dy_there).view() : dy.view();
    const View<const S> rows = own_ ? std::as_const(x_there).view() : x.view();
    Array<S> dx(backend_, rows.rows, rows.cols);
    backend_.linear(by, Weight(w), dx.view(), 0);
    if (!dw.empty())
      backend_.linear_dw(rows, by, dw);
    return fetched(std::move(dx));
  }
  // Adds to the gradient of a parameter where it is trained.
  void accumulate(View<const S> sum, Parameter<S>& p) const {
    if (p.grad().empty())
      return;
    const View<const S> shaped{sum.data, p.grad().rows, p.grad().cols};
    if (!own_)
      return backend_.add(shaped, p.grad(), 1);
    const Array<S> there(backend_, shaped);
    backend_.add(there.view(), p.grad(), 1);
  }

 private:
  // One for all, which outlives tapes and states that hold its memory.
  static Backend<S>& beside_devices() {
    static const std::unique_ptr<Backend<S>> host = make_reference<S>();
    return *host;
  }

  Backend<S>& backend_;
  Backend<S>* own_;  // where the backend has memory of its own, else null
  Backend<S>& host_;
  Scans<S>& scans_;
};

template <class S>
S* row_of(Array<S>& a, Index r) {
  return a.view().data + r * a.cols();
}
template <class S>
const S* row_of(const Array<S>& a, Index r) {
  return a.view().data + r * a.cols();
}

// Some columns of a matrix.
template <class S>
struct Columns {
  S* data = nullptr;
  Index step = 0;

  Columns() = default;
  Columns(View<S> m, Index first) : data(m.data + first), step(m.cols) {}
  S* row(Index t) const {
    return data + t * step;
  }
};

inline constexpr Index rows_of_piece = 64;

template <class F>
void for_rows(Index rows, const F& each) {
  parallel_for(rows, rows_of_piece, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t)
      each(t);
  });
}

// sum += what each(t, part) adds to `part` over all rows, in a fixed order.
template <class S, class F>
void sum_rows(Index rows, View<S> sum, const F& each) {
  const Index pieces = (rows + rows_of_piece - 1) / rows_of_piece;
  Matrix<S> part(pieces, sum.size());
  parallel_for(rows, rows_of_piece, [&](Index first, Index last) {
    S* mine = part.row(first / rows_of_piece).data();
    for (Index t = first; t < last; ++t)
      each(t, mine);
  });
  for (Index i = 0; i < sum.size(); ++i) {
    double all = double(sum.data[i]);
    for (Index p = 0; p < pieces; ++p)
      all += double(part(p, i));
    sum.data[i] = S(all);
  }
}

}  // namespace moe
