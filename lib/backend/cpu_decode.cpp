#include "lib/backend/cpu_decode.h"

#include <algorithm>
#include <type_traits>

#include "lib/backend/cpu_loops.h"
#include "lib/backend/cpu_tiles.h"

namespace moe::decode {
namespace {

using tiles::expert_block;
using tiles::rows_of;

using In = View<const float>;
using Out = View<float>;

// Bytes of weights that a thread takes at once: some microseconds of reading.
constexpr Index piece_bytes = Index(1) << 16;

template <class M>
Index piece_rows(Index cols) {
  constexpr Index each = std::is_same_v<M, View<const Half>> ? sizeof(Half) : sizeof(float);
  return std::max<Index>(4, piece_bytes / (each * std::max<Index>(cols, 1)) / 4 * 4);
}

// Reading a number takes as long as some four multiplications of numbers that are near.
constexpr double reading = 4;

struct Rows {
  Index first, count;
};

// Rows of one matrix of one expert.
struct Piece {
  RowTile tile;
  Rows rows;
};
std::vector<Piece> pieces_of(const std::vector<RowTile>& tiles, Index rows, Index each) {
  std::vector<Piece> out;
  for (const RowTile& t : tiles) {
    for (Index first = 0; first < rows; first += each)
      out.push_back({t, {first, std::min(each, rows - first)}});
  }
  return out;
}

// Columns `rows` of y = x w' + beta y for these rows of w.
template <class T>
void product(In x, View<const T> w, Rows rows, Out y, float beta) {
  // rows of w that stay in the nearest cache for all rows of x
  const Index together = x.rows == 1 ? rows.count : 4;
  for (Index r = rows.first; r < rows.first + rows.count; r += together) {
    const Index count = std::min(together, rows.first + rows.count - r);
    for (Index t = 0; t < x.rows; ++t)
      loops::row_dots(w.row(r).data(), x.row(t).data(), &y(t, r), beta, count, w.cols);
  }
}

// A source that multiplies rows as they lie, which costs the decoding of each for every row of x.
bool direct(In x, const Weight& w, Rows rows, Out y, float beta) {
  thread_local std::vector<float> sums;
  sums.resize(std::size_t(rows.count));
  for (Index t = 0; t < x.rows; ++t) {
    float* to = &y(t, rows.first);
    if (!w.source->dots(w.first + rows.first, rows.count, x.row(t).data(),
                        beta == 0 ? to : sums.data()))
      return false;
    for (Index r = 0; beta != 0 && r < rows.count; ++r)
      to[r] = sums[std::size_t(r)] + beta * to[r];
  }
  return true;
}

// Of a weight with another source its rows are made first, as many as stay in the nearest cache.
void product(In x, const Weight& w, Rows rows, Out y, float beta) {
  if (x.rows <= few && direct(x, w, rows, y, beta))
    return;
  thread_local std::vector<float> made;
  made.resize(std::size_t(rows.count * w.cols));
  const View<float> read{made.data(), rows.count, w.cols};
  w.source->read(w.first + rows.first, read);
  for (Index t = 0; t < x.rows; ++t)
    loops::row_dots(read.data, x.row(t).data(), &y(t, rows.first), beta, rows.count, w.cols);
}

void add_bias(In bias, Index expert, Rows rows, Out y) {
  if (bias.empty())
    return;
  for (Index t = 0; t < y.rows; ++t)
    loops::add(&bias(expert, rows.first), &y(t, rows.first), 1, rows.count);
}

}  // namespace

template <class M>
void linear_pieces(In x, const M& w, Out y, float beta) {
  const std::vector<Piece> pieces = pieces_of({{0, 0, x.rows}}, w.rows, piece_rows<M>(w.cols));
  run_tasks(Index(pieces.size()), reading * double(w.rows * w.cols),
            [&](Index i) { product(x, w, pieces[std::size_t(i)].rows, y, beta); });
}

template <class T>
void linear(In x, View<const T> w, Out y, float beta) {
  linear_pieces(x, w, y, beta);
}
void linear(In x, const Weight& w, Out y, float beta) {
  linear_pieces(x, w, y, beta);
}

namespace {

// What the pieces of a pass through the bodies read and write.
template <class M>
struct BodyPass {
  const Bodies<M>& bodies;
  In xs;
  Out gate, up, hidden, ys;

  // Hidden units `rows` of a tile.
  void hide(const RowTile& t, Rows rows) const {
    const ExpertWeights<float>& w = bodies.weights;
    const In x = rows_of(xs, t);
    const Out g = rows_of(gate, t);
    const Out u = rows_of(up, t);
    const Out h = rows_of(hidden, t);
    if (is_gated(w.activation)) {
      product(x, expert_block(bodies.gate, t.expert, up.cols), rows, g, 0);
      add_bias(w.gate_bias, t.expert, rows, g);
    }
    product(x, expert_block(bodies.up, t.expert, up.cols), rows, u, 0);
    add_bias(w.up_bias, t.expert, rows, u);
    for (Index r = 0; r < t.count; ++r) {
      loops::activate(w.activation, g.empty() ? nullptr : &g(r, rows.first), &u(r, rows.first),
                      &h(r, rows.first), rows.count);
      if constexpr (std::is_same_v<M, View<const Half>>)
        loops::round_half(&h(r, rows.first), rows.count);
    }
  }
  // Outputs `rows` of a tile.
  void put_out(const RowTile& t, Rows rows) const {
    const Out y = rows_of(ys, t);
    product(In(rows_of(hidden, t)), expert_block(bodies.down, t.expert, ys.cols), rows, y, 0);
    add_bias(bodies.weights.down_bias, t.expert, rows, y);
  }
};

}  // namespace

template <class M>
void experts(Memory& memory, const Bodies<M>& bodies, In xs, const Plan& plan,
             ExpertTape<float>& tape, Out ys) {
  const bool gated = is_gated(bodies.weights.activation);
  const Index width = bodies.up.rows / plan.experts();
  tape.up = Array<float>(memory, xs.rows, width);
  tape.gate = Array<float>(memory, gated ? xs.rows : 0, width);
  Array<float> hidden(memory, xs.rows, width);
  const BodyPass<M> pass{bodies, xs, tape.gate.view(), tape.up.view(), hidden.view(), ys};
  const std::vector<RowTile> tiles = row_tiles(plan.offset.view(), most_decoding_tokens);
  const double work = reading * double(xs.size()) * double(width);
  const std::vector<Piece> in = pieces_of(tiles, width, piece_rows<M>(xs.cols));
  run_tasks(Index(in.size()), (gated ? 2 : 1) * work,
            [&](Index i) { pass.hide(in[std::size_t(i)].tile, in[std::size_t(i)].rows); });
  const std::vector<Piece> out = pieces_of(tiles, ys.cols, piece_rows<M>(width));
  run_tasks(Index(out.size()), work,
            [&](Index i) { pass.put_out(out[std::size_t(i)].tile, out[std::size_t(i)].rows); });
}

template void linear<float>(In, View<const float>, Out, float);
template void linear<Half>(In, View<const Half>, Out, float);
template void experts(Memory&, const Bodies<In>&, In, const Plan&, ExpertTape<float>&, Out);
template void experts(Memory&, const Bodies<View<const Half>>&, In, const Plan&, ExpertTape<float>&,
                      Out);
template void experts(Memory&, const Bodies<Weight>&, In, const Plan&, ExpertTape<float>&, Out);

}  // namespace moe::decode
