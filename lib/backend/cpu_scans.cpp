// Scans of the cpu backend whose heads have one decay each, in blocks of rows as library products:
// a task takes one head of one sequence. With c the running sum of decays inside a block, S its
// first state, and w = v, or for a delta rule (I - L) w = v + e^c A S, L = tril(A B' e^(c_i-c_j)):
//   o = e^c Q S + tril(Q B' e^(c_i-c_j)) w,   S_next = e^c_n S + (e^(c_n-c_j) B)' w
// (B is K where there is no delta rule). No exponent is positive. Going backwards, states and w of
// all blocks are computed again first; the gradient by c is q.dq + a.da - b.db, row by row, and
// that by the last state with what it holds.
#include <vector>

#include "lib/backend/cpu.h"
#include "lib/backend/cpu_loops.h"
#include "lib/backend/gemm.h"
#include "lib/core/parallel.h"

namespace moe {
namespace {

constexpr Index block_rows = 64, solve_rows = 16;

using In = View<const float>;
using Out = View<float>;

// Columns of one head in rows of a matrix, or numbers of the rows from `base` on.
struct Cut {
  const float* data = nullptr;
  Index step = 0, base = 0;

  Cut() = default;
  Cut(In m, Index column) : data(m.data + column), step(m.cols) {}
  Cut(const float* rows, Index width, Index first) : data(rows), step(width), base(first) {}
  const float* row(Index t) const {
    return data + (t - base) * step;
  }
  Operand rows(Index t, Op op = Op::plain) const {
    return {row(t), step, op};
  }
};
struct CutOut {
  float* data = nullptr;
  Index step = 0;

  CutOut() = default;
  CutOut(Out m, Index column) : data(m.data + column), step(m.cols) {}
  float* row(Index t) const {
    return data + t * step;
  }
};

struct Head {
  Cut q, a, b, v;
  const ScanInputs<float>& in;
  Index head, key, value;
  bool delta;

  Head(const ScanInputs<float>& i, const ScanShape& s, Index h)
      : in(i), head(h), key(s.key), value(s.value), delta(!i.a.empty()) {
    const Index group = h / (s.heads / s.groups) * key;
    q = {i.q, group};
    v = {i.v, h * value};
    b = delta ? Cut(i.b, h * key) : Cut(i.k, group);
    if (delta)
      a = {i.a, group};
  }
  Operand state(const float* s, Op op = Op::plain) const {
    return {s, value, op};
  }
};

// The decays of a block: e^c_i, e^(c_n-c_i) and the triangle e^(c_i-c_j).
struct Block {
  Index first, rows;
  float c[block_rows], grown[block_rows], left[block_rows];
  float whole = 1;  // e^c_n

  Block(const Head& h, Index from, Index end)
      : first(from), rows(std::min(block_rows, end - from)) {
    double sum = 0;
    for (Index i = 0; i < rows; ++i) {
      sum += double(h.in.decay(first + i, h.head));
      c[i] = float(sum);
    }
    float minus[block_rows];
    for (Index i = 0; i < rows; ++i)
      minus[i] = -c[i];
    loops::falling(minus, 0, grown, rows);
    loops::falling(c, c[rows - 1], left, rows);
    whole = grown[rows - 1];
  }
};

// Room for what a task needs of one block.
struct Room {
  explicit Room(const Head& h)
      : scores(block_rows * block_rows),
        lower(h.delta ? block_rows * block_rows : 0),
        by_scores(block_rows * block_rows),
        decay(block_rows * block_rows),
        narrow(block_rows * h.key),
        wide(block_rows * h.value) {}
  std::vector<float> scores, lower, by_scores, decay, narrow, wide;
};

// e^(c_i-c_j) for j <= i, 0 above.
void triangle(const Block& b, float* decay) {
  for (Index i = 0; i < b.rows; ++i) {
    loops::falling(b.c, b.c[i], decay + i * b.rows, i + 1);
    std::fill(decay + i * b.rows + i + 1, decay + (i + 1) * b.rows, 0.0f);
  }
}

// m = (rows of x) (rows of y)' times the triangle; without its diagonal where `strict`.
void masked(const Block& b, const Cut& x, const Cut& y, Index width, const float* decay,
            bool strict, float* m) {
  gemm(b.rows, b.rows, width, x.rows(b.first), y.rows(b.first, Op::transposed), 0, m, b.rows);
  loops::times(decay, m, b.rows * b.rows);
  for (Index i = 0; i < b.rows && strict; ++i)
    m[i * b.rows + i] = 0;
}

// w += L w in order of rows, or from the last row up with L'.
void solve(const float* lower, Index rows, bool transposed, float* w, Index width) {
  const Index blocks = (rows + solve_rows - 1) / solve_rows;
  for (Index n = 0; n < blocks; ++n) {
    const Index from = (transposed ? blocks - 1 - n : n) * solve_rows;
    const Index end = std::min(rows, from + solve_rows);
    const Index others = transposed ? rows - end : from;  // rows that are done
    const Index other = transposed ? end : 0;
    const float* l = transposed ? lower + other * rows + from : lower + from * rows;
    gemm(end - from, width, others, {l, rows, transposed ? Op::transposed : Op::plain},
         {w + other * width, width}, 1, w + from * width, width);
    for (Index n2 = 0; n2 < end - from; ++n2) {
      const Index i = transposed ? end - 1 - n2 : from + n2;
      for (Index j = transposed ? i + 1 : from; j < (transposed ? end : i); ++j) {
        const float f = transposed ? lower[j * rows + i] : lower[i * rows + j];
        loops::add(w + j * width, w + i * width, f, width);
      }
    }
  }
}

// to_i = factor_i x_i
void scaled_rows(const Block& b, const Cut& x, const float* factor, Index width, float* to) {
  for (Index i = 0; i < b.rows; ++i)
    loops::scaled(x.row(b.first + i), to + i * width, factor[i], width);
}

// w of a block.
void corrected(const Head& h, const Block& b, const float* state, Room& r, float* w) {
  for (Index i = 0; i < b.rows; ++i)
    std::copy_n(h.v.row(b.first + i), h.value, w + i * h.value);
  if (!h.delta)
    return;
  scaled_rows(b, h.a, b.grown, h.key, r.narrow.data());
  gemm(b.rows, h.value, h.key, {r.narrow.data(), h.key}, h.state(state), 1, w, h.value);
  masked(b, h.a, h.b, h.key, r.decay.data(), true, r.lower.data());
  solve(r.lower.data(), b.rows, false, w, h.value);
}
void read_out(const Head& h, const Block& b, const float* state, const float* w, Room& r,
              const CutOut& out) {
  masked(b, h.q, h.b, h.key, r.decay.data(), false, r.scores.data());
  float* o = out.row(b.first);
  gemm(b.rows, h.value, b.rows, {r.scores.data(), b.rows}, {w, h.value}, 0, o, out.step);
  scaled_rows(b, h.q, b.grown, h.key, r.narrow.data());
  gemm(b.rows, h.value, h.key, {r.narrow.data(), h.key}, h.state(state), 1, o, out.step);
}
void advance(const Head& h, const Block& b, const float* w, Room& r, float* state) {
  scaled_rows(b, h.b, b.left, h.key, r.narrow.data());
  loops::scaled(state, state, b.whole, h.key * h.value);
  gemm(h.key, h.value, b.rows, {r.narrow.data(), h.key, Op::transposed}, {w, h.value}, 1, state,
       h.value);
}

std::vector<float> first_state(const Head& h, Index row) {
  std::vector<float> s(std::size_t(h.key * h.value), 0.0f);
  if (!h.in.initial.empty())
    std::ranges::copy(h.in.initial.slice(row, h.key).flat(), s.begin());
  return s;
}

void scan_head(const Head& h, Index first, Index end, Index row, Out last, Out out) {
  Room r(h);
  std::vector<float> state = first_state(h, row);
  std::vector<float> w(std::size_t(block_rows * h.value));
  const CutOut o(out, h.head * h.value);
  for (Index t = first; t < end; t += block_rows) {
    const Block b(h, t, end);
    triangle(b, r.decay.data());
    corrected(h, b, state.data(), r, w.data());
    read_out(h, b, state.data(), w.data(), r, o);
    advance(h, b, w.data(), r, state.data());
  }
  if (!last.empty())
    std::ranges::copy(state, last.slice(row, h.key).data);
}

// One head going backwards: gradients by q, a and b (or k) have a head's columns of their own.
struct HeadBackward {
  const Head& h;
  Cut dout;
  CutOut dq, da, db, dv, ddecay;
  std::vector<float> by;    // (key, value) gradient by the state behind the block
  std::vector<float> by_w;  // (rows, value)
  Room& r;

  HeadBackward(const Head& head, In by_out, const ScanGradients<float>& to, Room& room)
      : h(head),
        dout(by_out, head.head * head.value),
        dq(to.q, head.head * head.key),
        db(head.delta ? to.b : to.k, head.head * head.key),
        dv(to.v, head.head * head.value),
        ddecay(to.decay, head.head),
        by(std::size_t(head.key * head.value)),
        by_w(std::size_t(block_rows * head.value)),
        r(room) {
    if (head.delta)
      da = {to.a, head.head * head.key};
  }

  // r.by_scores = (rows of x) w' times the triangle
  void through(const Block& b, const Cut& x, const float* w, bool strict) {
    masked(b, x, {w, h.value, b.first}, h.value, r.decay.data(), strict, r.by_scores.data());
  }
  // to += factor (rows of x) s'
  void by_state(const Block& b, const Cut& x, const float* s, const float* factor, float* to,
                Index step) {
    gemm(b.rows, h.key, h.value, x.rows(b.first), h.state(s, Op::transposed), 0, r.narrow.data(),
         h.key);
    for (Index i = 0; i < b.rows; ++i)
      loops::add(r.narrow.data() + i * h.key, to + i * step, factor[i], h.key);
  }
  void by_corrected(const Block& b) {
    masked(b, h.q, h.b, h.key, r.decay.data(), false, r.scores.data());
    gemm(b.rows, h.value, b.rows, {r.scores.data(), b.rows, Op::transposed}, dout.rows(b.first), 0,
         by_w.data(), h.value);
    scaled_rows(b, h.b, b.left, h.key, r.narrow.data());
    gemm(b.rows, h.value, h.key, {r.narrow.data(), h.key}, h.state(by.data()), 1, by_w.data(),
         h.value);
    if (h.delta) {
      masked(b, h.a, h.b, h.key, r.decay.data(), true, r.lower.data());
      solve(r.lower.data(), b.rows, true, by_w.data(), h.value);
    }
    for (Index i = 0; i < b.rows; ++i)
      std::copy_n(by_w.data() + i * h.value, h.value, dv.row(b.first + i));
  }
  // Of what is read by `x` (q or a) with `y` as the gradient of what was read.
  void by_reader(const Block& b, const Cut& x, const Cut& y, const float* w, const float* state,
                 bool strict, const CutOut& to, float beta) {
    through(b, y, w, strict);
    const Operand m{r.by_scores.data(), b.rows};
    gemm(b.rows, h.key, b.rows, m, h.b.rows(b.first), 0, to.row(b.first), to.step);
    gemm(b.rows, h.key, b.rows, {m.data, m.step, Op::transposed}, x.rows(b.first), beta,
         db.row(b.first), db.step);
    by_state(b, y, state, b.grown, to.row(b.first), to.step);
  }
  // dc of the rows, summed from the last on; `held` = by . (state behind the block).
  void by_decay(const Block& b, double held) {
    double sum = held;
    for (Index i = b.rows; i-- > 0;) {
      const Index t = b.first + i;
      sum += double(loops::dot(h.q.row(t), dq.row(t), h.key));
      if (h.delta)
        sum += double(loops::dot(h.a.row(t), da.row(t), h.key));
      sum -= double(loops::dot(h.b.row(t), db.row(t), h.key));
      *ddecay.row(t) = float(sum);
    }
  }
  void block(const Block& b, const float* state, const float* behind, const float* w) {
    triangle(b, r.decay.data());
    double held = 0;
    for (Index c = 0; c < h.key; ++c)
      held += double(loops::dot(by.data() + c * h.value, behind + c * h.value, h.value));
    by_corrected(b);
    const Cut by_rows{by_w.data(), h.value, b.first};
    by_reader(b, h.q, dout, w, state, false, dq, 0);
    if (h.delta)
      by_reader(b, h.a, by_rows, w, state, true, da, 1);
    by_state(b, {w, h.value, b.first}, by.data(), b.left, db.row(b.first), db.step);
    by_decay(b, held);
    loops::scaled(by.data(), by.data(), b.whole, h.key * h.value);
    back(b, h.q, dout);
    if (h.delta)
      back(b, h.a, by_rows);
  }
  // by += (e^c x)' y
  void back(const Block& b, const Cut& x, const Cut& y) {
    scaled_rows(b, x, b.grown, h.key, r.narrow.data());
    gemm(h.key, h.value, b.rows, {r.narrow.data(), h.key, Op::transposed}, y.rows(b.first), 1,
         by.data(), h.value);
  }
};

struct Span {
  Index first, end, row;  // rows of the sequence; first row of the head's state
};

// The states around all blocks, (blocks+1) of them, and w of every row.
struct Swept {
  std::vector<float> states, w;

  Swept(const Head& h, const Span& s, Index blocks, Room& r)
      : states(std::size_t((blocks + 1) * h.key * h.value)),
        w(std::size_t(blocks * block_rows * h.value)) {
    const Index size = h.key * h.value;
    std::ranges::copy(first_state(h, s.row), states.begin());
    for (Index n = 0; n < blocks; ++n) {
      const Block b(h, s.first + n * block_rows, s.end);
      triangle(b, r.decay.data());
      float* const at = states.data() + n * size;
      float* const mine = w.data() + n * block_rows * h.value;
      corrected(h, b, at, r, mine);
      std::copy_n(at, size, at + size);
      advance(h, b, mine, r, at + size);
    }
  }
};

void scan_head_backward(HeadBackward& back, const Span& s, In dlast, Out dinitial) {
  const Head& h = back.h;
  const Index size = h.key * h.value;
  const Index blocks = (s.end - s.first + block_rows - 1) / block_rows;
  const Swept kept(h, s, blocks, back.r);
  if (!dlast.empty())
    std::ranges::copy(dlast.slice(s.row, h.key).flat(), back.by.begin());
  for (Index n = blocks; n-- > 0;) {
    const float* at = kept.states.data() + n * size;
    back.block(Block(h, s.first + n * block_rows, s.end), at, at + size,
               kept.w.data() + n * block_rows * h.value);
  }
  if (!dinitial.empty())
    std::ranges::copy(back.by, dinitial.slice(s.row, h.key).data);
}

bool in_blocks(const ScanInputs<float>& in, const ScanShape& s) {
  return !s.before && in.decay.cols == s.heads && in.k.empty() != in.a.empty();
}
double work_of(const ScanInputs<float>& in, const ScanShape& s) {
  return double(in.v.rows) * double(s.heads) * double(s.key + s.value) * double(block_rows);
}

// Sums of the heads of each group.
void add_heads(In heads, const ScanShape& s, Out groups) {
  const Index each = s.heads / s.groups;
  parallel_for(heads.rows, 64, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      for (Index h = 0; h < s.heads; ++h) {
        loops::axpby(heads.row(t).data() + h * s.key, 1, groups.row(t).data() + h / each * s.key,
                     h % each == 0 ? 0 : 1, s.key);
      }
    }
  });
}

}  // namespace

void Cpu::scan(const ScanInputs<float>& in, const ScanShape& s, Out last, Out out) {
  if (!in_blocks(in, s))
    return Scans<float>::scan(in, s, last, out);
  run_tasks(s.sequences() * s.heads, work_of(in, s), [&](Index task) {
    const Index q = task / s.heads;
    const Head h(in, s, task % s.heads);
    scan_head(h, s.start[q], s.start[std::size_t(q) + 1], task * s.key, last, out);
  });
}

void Cpu::scan_backward(const ScanInputs<float>& in, const ScanShape& s, In dout, In dlast,
                        const ScanGradients<float>& to) {
  if (!in_blocks(in, s))
    return Scans<float>::scan_backward(in, s, dout, dlast, to);
  const bool delta = !in.a.empty();
  const bool grouped = s.heads != s.groups;
  const Index wide = grouped ? s.heads * s.key : 0;
  Array<float> q(*this, in.v.rows, wide);
  Array<float> a(*this, in.v.rows, delta ? wide : 0);
  Array<float> k(*this, in.v.rows, delta ? 0 : wide);
  ScanGradients<float> own = to;  // heads apart
  if (grouped) {
    own.q = q.view();
    own.a = a.view();
    own.k = k.view();
  }
  run_tasks(s.sequences() * s.heads, 3 * work_of(in, s), [&](Index task) {
    const Index n = task / s.heads;
    const Head h(in, s, task % s.heads);
    Room room(h);
    HeadBackward back(h, dout, own, room);
    scan_head_backward(back, {s.start[n], s.start[std::size_t(n) + 1], task * s.key}, dlast,
                       to.initial);
  });
  if (!grouped)
    return;
  add_heads(own.q, s, to.q);
  add_heads(delta ? own.a : own.k, s, delta ? to.a : to.k);
}

}  // namespace moe
