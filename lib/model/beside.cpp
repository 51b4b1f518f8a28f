#include "lib/model/beside.h"

#include <cmath>

#include "lib/backend/backend.h"
#include "lib/model/config.h"

namespace moe {
namespace {

template <class S>
void normed(Backend<S>& b, const Norm<S>& by, View<const S> x, Array<S>& out, Array<S>& rstd) {
  out = Array<S>(b, x.rows, x.cols);
  rstd = Array<S>(b, x.rows, 1);
  by.forward(x, out.view(), rstd.view());
}

}  // namespace

template <class S>
Beside<S>::Beside(const ModelConfig& c, Backend<S>& b, const std::string& at)
    : backend_(b),
      normed_(c.dense_beside == DenseBeside::normed),
      router_scale_(1 / std::sqrt(double(c.hidden))) {
  if (!normed_)
    return;
  const auto make = [&](const char* name, NormKind kind) {
    return Norm<S>(b, at + name, kind, c.hidden, c.norm_eps);
  };
  dense_after_ = make("dense_norm_after", c.norm);
  experts_norm_ = make("experts_norm", c.norm);
  experts_after_ = make("experts_norm_after", c.norm);
  router_norm_ = make("router_norm", NormKind::rms);
}

template <class S>
void Beside<S>::forward(const Bodies& in, View<const S> plain, View<const S> read, View<S> y,
                        Tape& t, Array<S>& late) {
  const Index rows = read.rows;
  const Index cols = read.cols;
  if (!normed_) {
    late = Array<S>(backend_, rows, cols);
    in.moe.forward(in.pass, read, late.view(), in.moe_tape);
    return in.dense.forward(in.pass.batch, read, y, in.dense_tape);
  }
  normed(backend_, experts_norm_, plain, t.experts_in, t.experts_rstd);
  normed(backend_, router_norm_, plain, t.router_in, t.router_rstd);
  backend_.add(t.router_in.view(), t.router_in.view(), S(router_scale_ - 1));
  t.experts_out = Array<S>(backend_, rows, cols);
  in.moe.forward(in.pass, std::as_const(t.router_in).view(), std::as_const(t.experts_in).view(),
                 t.experts_out.view(), in.moe_tape);
  t.dense_out = Array<S>(backend_, rows, cols);
  in.dense.forward(in.pass.batch, read, t.dense_out.view(), in.dense_tape);
  t.dense_rstd = Array<S>(backend_, rows, 1);
  dense_after_.forward(t.dense_out.view(), y, t.dense_rstd.view());
  Array<S> of_experts;
  normed(backend_, experts_after_, std::as_const(t.experts_out).view(), of_experts,
         t.experts_out_rstd);
  backend_.add(of_experts.view(), y, 1);
}

template <class S>
void Beside<S>::backward(const Bodies& in, const Tape& t, View<const S> plain, View<const S> read,
                         View<const S> dy, View<const S> dlate, View<S> dread, View<S> dplain,
                         const GateGradients& gate) {
  if (!normed_) {
    in.dense.backward(in.dense_tape, read, dy, dread);
    if (dlate.empty())
      return;
    Array<S> part(backend_, read.rows, read.cols);
    in.moe.backward(in.pass, in.moe_tape, read, dlate, part.view(), gate);
    return backend_.add(part.view(), dread, 1);
  }
  Array<S> dout(backend_, dy.rows, dy.cols);
  experts_after_.backward(dy, t.experts_out.view(), t.experts_out_rstd.view(), dout.view(), 0);
  Array<S> ddense(backend_, dy.rows, dy.cols);
  dense_after_.backward(dy, t.dense_out.view(), t.dense_rstd.view(), ddense.view(), 0);
  in.dense.backward(in.dense_tape, read, ddense.view(), dread);
  experts_backward(in, t, plain, std::as_const(dout).view(), dplain, gate);
}

// From what the experts put out to the plain rows, through the experts and through the router.
template <class S>
void Beside<S>::experts_backward(const Bodies& in, const Tape& t, View<const S> plain,
                                 View<const S> dout, View<S> dplain, const GateGradients& gate) {
  Array<S> dexperts(backend_, dout.rows, dout.cols);
  auto drouter = Array<S>::zeros(backend_, dout.rows, dout.cols);
  in.moe.backward(in.pass, in.moe_tape, {t.router_in.view(), drouter.view()}, t.experts_in.view(),
                  dout, dexperts.view(), gate);
  backend_.add(drouter.view(), drouter.view(), S(router_scale_ - 1));
  experts_norm_.backward(dexperts.view(), plain, t.experts_rstd.view(), dplain, 1);
  router_norm_.backward(drouter.view(), plain, t.router_rstd.view(), dplain, 1);
}

template <class S>
std::vector<Norm<S>*> Beside<S>::norms() {
  return {&dense_after_, &experts_norm_, &experts_after_, &router_norm_};
}

template class Beside<float>;
template class Beside<double>;

}  // namespace moe
