// The part of Operations around attention: turning, joining and splitting heads, clamping,
// centring, sinks.
#pragma once
#include "lib/backend/cuda/bodies_heads.h"
#include "lib/backend/cuda/operations_class.h"

namespace moe::gpu {

template <class E>
void Operations<E>::center(Out x) {
  engine_.rows("center", x.rows, Center{x.data, x.cols});
}
template <class E>
void Operations<E>::clamp(Out x, double limit) {
  engine_.each("clamp", x.size(), Clamp{x.data, float(limit)});
}
template <class E>
void Operations<E>::clamp_backward(In y, double limit, Out dy) {
  engine_.each("clamp_backward", y.size(), ClampBackward{y.data, dy.data, float(limit)});
}
template <class E>
void Operations<E>::rope(Out x, const Rotation& r, View<const int> position, bool transposed) {
  const Index pairs = Index(r.frequency.size());
  const Array<double> frequency(*this, View<const double>{r.frequency.data(), 1, pairs});
  engine_.rows("rope", x.rows,
               Rope{x.data, position.data, frequency.view().data, x.cols, r.head_dim, r.first,
                    pairs, r.interleaved, transposed, r.scale});
}
template <class E>
void Operations<E>::join_heads(In a, In b, int heads, Out y) {
  const Index m = a.cols / heads;
  const Index n = y.cols / heads - m;
  engine_.each("join_heads", y.size(),
               JoinHeads{a.data, b.data, y.data, heads, m, n, b.cols == n ? 0 : n});
}
template <class E>
void Operations<E>::split_heads(In y, int heads, Out a, Out b) {
  const Index m = a.cols / heads;
  const Index n = y.cols / heads - m;
  engine_.each("split_heads", a.size(), SplitFirst{y.data, a.data, m, n});
  engine_.each("split_heads", b.size(),
               SplitSecond{y.data, b.data, heads, m, n, b.cols == n ? 0 : n});
}
template <class E>
void Operations<E>::attention_sink(In sink, Out out, Out lse) {
  engine_.each("attention_sink", out.size(),
               SinkScale{sink.data, lse.data, out.data, lse.cols, out.cols / lse.cols});
  engine_.each("attention_sink", lse.size(), SinkSum{sink.data, lse.data, lse.cols});
}
template <class E>
void Operations<E>::attention_sink_backward(In sink, In out, In lse, In dout, Out dsink) {
  engine_.rows("attention_sink_backward", lse.cols,
               SinkBackward{sink.data, out.data, lse.data, dout.data, dsink.data, out.rows,
                            lse.cols, out.cols / lse.cols});
}

}  // namespace moe::gpu
