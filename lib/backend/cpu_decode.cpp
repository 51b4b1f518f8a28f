#include "lib/backend/cpu_decode.h"

#include <algorithm>

#include "lib/backend/cpu_loops.h"

namespace moe::decode {
namespace {

using In = View<const float>;
using Out = View<float>;

// Bytes of weights that a thread takes at once: some microseconds of reading.
constexpr Index piece_bytes = Index(1) << 16;

template <class T>
Index piece_rows(Index cols) {
  return std::max<Index>(4, piece_bytes / (Index(sizeof(T)) * std::max<Index>(cols, 1)) / 4 * 4);
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

void add_bias(In bias, Index expert, Rows rows, Out y) {
  if (bias.empty())
    return;
  for (Index t = 0; t < y.rows; ++t)
    loops::add(&bias(expert, rows.first), &y(t, rows.first), 1, rows.count);
}

template <class S>
View<S> rows_of(View<S> all, const RowTile& t) {
  return all.empty() ? all : all.slice(t.first, t.count);
}

}  // namespace

template <class T>
void linear(In x, View<const T> w, Out y, float beta) {
  const std::vector<Piece> pieces = pieces_of({{0, 0, x.rows}}, w.rows, piece_rows<T>(w.cols));
  run_tasks(Index(pieces.size()), reading * double(w.size()),
            [&](Index i) { product(x, w, pieces[std::size_t(i)].rows, y, beta); });
}

template <class T>
void experts(Memory& memory, const Bodies<T>& bodies, In xs, const Plan& plan,
             ExpertTape<float>& tape, Out ys) {
  const ExpertWeights<float>& w = bodies.weights;
  const bool gated = is_gated(w.activation);
  const Index width = bodies.up.rows / plan.experts();
  tape.up = Array<float>(memory, xs.rows, width);
  tape.gate = Array<float>(memory, gated ? xs.rows : 0, width);
  Array<float> hidden(memory, xs.rows, width);
  const std::vector<RowTile> tiles = row_tiles(plan.offset.view(), most_decoding_tokens);
  const double work = reading * double(xs.size()) * double(width);
  const std::vector<Piece> in = pieces_of(tiles, width, piece_rows<T>(xs.cols));
  run_tasks(Index(in.size()), (gated ? 2 : 1) * work, [&](Index i) {
    const auto& [t, rows] = in[std::size_t(i)];
    const Out gate = rows_of(tape.gate.view(), t);
    const Out up = rows_of(tape.up.view(), t);
    const Out h = rows_of(hidden.view(), t);
    if (gated) {
      product(rows_of(xs, t), bodies.gate.block(t.expert, width), rows, gate, 0);
      add_bias(w.gate_bias, t.expert, rows, gate);
    }
    product(rows_of(xs, t), bodies.up.block(t.expert, width), rows, up, 0);
    add_bias(w.up_bias, t.expert, rows, up);
    for (Index r = 0; r < t.count; ++r) {
      loops::activate(w.activation, gated ? &gate(r, rows.first) : nullptr, &up(r, rows.first),
                      &h(r, rows.first), rows.count);
      if constexpr (sizeof(T) == 2)
        loops::round_half(&h(r, rows.first), rows.count);
    }
  });
  const std::vector<Piece> out = pieces_of(tiles, ys.cols, piece_rows<T>(width));
  run_tasks(Index(out.size()), work, [&](Index i) {
    const auto& [t, rows] = out[std::size_t(i)];
    const Out y = rows_of(ys, t);
    product(In(rows_of(hidden.view(), t)), bodies.down.block(t.expert, ys.cols), rows, y, 0);
    add_bias(w.down_bias, t.expert, rows, y);
  });
}

template void linear<float>(In, View<const float>, Out, float);
template void linear<Half>(In, View<const Half>, Out, float);
template void experts<float>(Memory&, const Bodies<float>&, In, const Plan&, ExpertTape<float>&,
                             Out);
template void experts<Half>(Memory&, const Bodies<Half>&, In, const Plan&, ExpertTape<float>&, Out);

}  // namespace moe::decode
