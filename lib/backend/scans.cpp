// The definition of the general scan: a head of a sequence at a time, its state in double. Going
// backwards the states are computed again from marks that were kept every few rows.
#include "lib/backend/scans.h"

#include <cmath>
#include <vector>

#include "lib/backend/backend.h"
#include "lib/core/matrix.h"

namespace moe {
namespace {

constexpr Index mark_rows = 16;  // between kept states

using State = std::vector<double>;  // (key, value)

// One head: where its numbers stand in a row of each input.
template <class S>
struct Head {
  const ScanInputs<S>& in;
  const ScanShape& shape;
  Index head, group, key, value;

  Head(const ScanInputs<S>& i, const ScanShape& s, Index h)
      : in(i), shape(s), head(h), group(h / (s.heads / s.groups)), key(s.key), value(s.value) {}

  double q(Index t, Index c) const {
    return double(in.q(t, group * key + c));
  }
  double k(Index t, Index c) const {
    return in.k.empty() ? 0 : double(in.k(t, group * key + c));
  }
  double v(Index t, Index d) const {
    return double(in.v(t, head * value + d));
  }
  bool by_key() const {
    return in.decay.cols != shape.heads;
  }
  Index decay_column(Index c) const {
    return by_key() ? head * key + c : head;
  }
  double kept(Index t, Index c) const {
    return std::exp(double(in.decay(t, decay_column(c))));
  }
  bool has_delta() const {
    return !in.a.empty();
  }
  double a(Index t, Index c) const {
    return double(in.a(t, group * key + c));
  }
  double b(Index t, Index c) const {
    return double(in.b(t, head * key + c));
  }
  Index initial_row(Index sequence) const {
    return (sequence * shape.heads + head) * key;
  }

  void load(Index sequence, State& s) const {
    s.assign(std::size_t(key * value), 0.0);
    for (Index i = 0; i < key * value && !in.initial.empty(); ++i)
      s[i] = double(in.initial.data[initial_row(sequence) * value + i]);
  }
  // u = D S' a, and the state decayed
  void decayed(Index t, State& s, State& u) const {
    u.assign(std::size_t(value), 0.0);
    for (Index c = 0; c < key; ++c) {
      const double f = kept(t, c);
      for (Index d = 0; d < value; ++d) {
        double& x = s[c * value + d];
        x *= f;
        if (has_delta())
          u[d] += a(t, c) * x;
      }
    }
  }
  void step(Index t, State& s, State& u) const {
    decayed(t, s, u);
    const bool one = in.k.empty();  // b is k
    for (Index c = 0; c < key; ++c) {
      const double bc = has_delta() ? b(t, c) : 0.0;
      const double kc = one ? bc : k(t, c);
      for (Index d = 0; d < value; ++d)
        s[c * value + d] += bc * u[d] + kc * v(t, d);
    }
  }
  void read(Index t, const State& s, View<S> out) const {
    for (Index d = 0; d < value; ++d) {
      double sum = 0;
      for (Index c = 0; c < key; ++c)
        sum += q(t, c) * s[c * value + d];
      out(t, head * value + d) = S(sum);
    }
  }
};

template <class S>
void scan_head(const Head<S>& h, Index sequence, View<S> last, View<S> out) {
  State s, u;
  h.load(sequence, s);
  const auto& start = h.shape.start;
  for (Index t = start[sequence]; t < start[std::size_t(sequence) + 1]; ++t) {
    if (h.shape.before)
      h.read(t, s, out);
    h.step(t, s, u);
    if (!h.shape.before)
      h.read(t, s, out);
  }
  for (Index i = 0; i < h.key * h.value && !last.empty(); ++i)
    last.data[h.initial_row(sequence) * h.value + i] = S(s[i]);
}

// One head going backwards: `by` is the gradient by the state after the row at hand.
template <class S>
struct HeadBackward {
  const Head<S>& h;
  View<const S> dout;
  const ScanGradients<S>& to;
  State by, u;

  void add(View<S> m, Index t, Index column, double x) const {
    if (!m.empty())
      m(t, column) += S(x);
  }
  // o = S' q
  void read(Index t, const State& s) {
    for (Index c = 0; c < h.key; ++c) {
      double sum = 0;
      for (Index d = 0; d < h.value; ++d) {
        const double g = double(dout(t, h.head * h.value + d));
        sum += g * s[c * h.value + d];
        by[c * h.value + d] += h.q(t, c) * g;
      }
      add(to.q, t, h.group * h.key + c, sum);
    }
  }
  // S = D S_before + b u' + k v'
  State write(Index t, const State& inside) {
    const bool one = h.in.k.empty();
    State du(std::size_t(h.value), 0.0);
    for (Index d = 0; d < h.value; ++d) {
      double dv = 0;
      for (Index c = 0; c < h.key; ++c) {
        const double g = by[c * h.value + d];
        const double bc = h.has_delta() ? h.b(t, c) : 0.0;
        du[d] += g * bc;
        dv += g * (one ? bc : h.k(t, c));
      }
      to.v(t, h.head * h.value + d) = S(dv);
    }
    for (Index c = 0; c < h.key; ++c) {
      double dk = 0;
      double db = 0;
      double da = 0;
      for (Index d = 0; d < h.value; ++d) {
        const double g = by[c * h.value + d];
        dk += g * h.v(t, d);
        db += g * u[d];
        da += inside[c * h.value + d] * du[d];
      }
      if (!one)
        add(to.k, t, h.group * h.key + c, dk);
      if (!h.has_delta())
        continue;
      to.b(t, h.head * h.key + c) = S(one ? db + dk : db);
      add(to.a, t, h.group * h.key + c, da);
    }
    return du;
  }
  void decay(Index t, const State& inside, const State& du) {
    for (Index c = 0; c < h.key; ++c) {
      double sum = 0;
      const double f = h.kept(t, c);
      for (Index d = 0; d < h.value; ++d) {
        double& g = by[c * h.value + d];
        if (h.has_delta())
          g += h.a(t, c) * du[d];
        sum += g * inside[c * h.value + d];
        g *= f;
      }
      to.decay(t, h.decay_column(c)) += S(sum);
    }
  }
  void step(Index t, const State& before, const State& after) {
    if (!h.shape.before)
      read(t, after);
    State inside = before;
    h.decayed(t, inside, u);
    const State du = write(t, inside);
    decay(t, inside, du);
    if (h.shape.before)
      read(t, before);
  }
};

// The states before every mark_rows-th row.
template <class S>
std::vector<State> marks_of(const Head<S>& h, Index sequence, Index first, Index end) {
  State s, u;
  std::vector<State> marks;
  h.load(sequence, s);
  for (Index t = first; t < end; ++t) {
    if ((t - first) % mark_rows == 0)
      marks.push_back(s);
    h.step(t, s, u);
  }
  return marks;
}

template <class S>
void scan_head_backward(const Head<S>& h, Index sequence, View<const S> dout, View<const S> dlast,
                        const ScanGradients<S>& to) {
  const Index first = h.shape.start[sequence];
  const Index end = h.shape.start[std::size_t(sequence) + 1];
  HeadBackward<S> back{h, dout, to, State(std::size_t(h.key * h.value), 0.0), {}};
  for (Index i = 0; i < h.key * h.value && !dlast.empty(); ++i)
    back.by[i] = double(dlast.data[h.initial_row(sequence) * h.value + i]);
  const std::vector<State> marks = marks_of(h, sequence, first, end);
  State u;
  for (Index m = Index(marks.size()); m-- > 0;) {
    std::vector<State> states{marks[m]};
    const Index from = first + m * mark_rows;
    const Index to_row = std::min(end, from + mark_rows);
    for (Index t = from; t < to_row; ++t) {
      states.push_back(states.back());
      h.step(t, states.back(), u);
    }
    for (Index t = to_row; t-- > from;)
      back.step(t, states[t - from], states[std::size_t(t - from) + 1]);
  }
  for (Index i = 0; i < h.key * h.value && !to.initial.empty(); ++i)
    to.initial.data[h.initial_row(sequence) * h.value + i] = S(back.by[i]);
}

}  // namespace

template <class S>
void Scans<S>::scan(const ScanInputs<S>& in, const ScanShape& shape, View<S> last, View<S> out) {
  for (Index q = 0; q < shape.sequences(); ++q) {
    for (Index h = 0; h < shape.heads; ++h)
      scan_head(Head<S>(in, shape, h), q, last, out);
  }
}

template <class S>
void Scans<S>::scan_backward(const ScanInputs<S>& in, const ScanShape& shape, View<const S> dout,
                             View<const S> dlast, const ScanGradients<S>& to) {
  for (const View<S>& sum : {to.q, to.k, to.decay, to.a})
    std::ranges::fill(sum.flat(), S(0));
  for (Index q = 0; q < shape.sequences(); ++q) {
    for (Index h = 0; h < shape.heads; ++h)
      scan_head_backward(Head<S>(in, shape, h), q, dout, dlast, to);
  }
}

template <class S>
Scans<S>& scans_of(Backend<S>& backend) {
  static Scans<S> definition;
  auto* own = dynamic_cast<Scans<S>*>(&backend);
  return own ? *own : definition;
}
template Scans<float>& scans_of(Backend<float>&);
template Scans<double>& scans_of(Backend<double>&);

template class Scans<float>;
template class Scans<double>;

}  // namespace moe
