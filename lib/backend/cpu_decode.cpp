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

template <class T>
Index row_bytes(View<const T> w) {
  return w.cols * Index(sizeof(T));
}
// As its file holds it; as f32 where it says nothing of that.
Index row_bytes(const Weight& w) {
  Index bytes = 0;
  for (const auto& part : w.source->bytes(w.first, w.rows > 0 ? 1 : 0))
    bytes += Index(part.size());
  return bytes > 0 ? bytes : w.cols * Index(sizeof(float));
}

// Rows of w that a thread takes at once: at least some, so that taking them costs little.
template <class M>
Index piece_rows(const M& w) {
  constexpr Index some = 32;
  return std::max<Index>(some, piece_bytes / std::max<Index>(row_bytes(w), 1) / 4 * 4);
}

// Rows of activations, and their bytes where one of the weights rounds them.
struct Rounded {
  In numbers;
  ByteRows bytes;

  Rounded(In x, bool rounds) : numbers(x) {
    if (rounds)
      bytes = ByteRows(x);
  }
  ActivationRow row(Index t, bool rounds) const {
    return {numbers.row(t).data(), rounds ? bytes.row(t) : ByteRow{}};
  }
};
bool rounds(const Weight& w) {
  return w.rounds_activations();
}
template <class T>
bool rounds(View<const T>) {
  return false;
}

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

// Rows of activations that pieces of a pass have in common, one behind the other.
struct Some {
  const Rounded& all;
  Index first, count;

  In numbers() const {
    return all.numbers.slice(first, count);
  }
  ActivationRow row(Index t, bool rounded) const {
    return all.row(first + t, rounded);
  }
};

// Columns `rows` of y = x w' + beta y for these rows of w.
template <class T>
void product(const Some& some, View<const T> w, Rows rows, Out y, float beta) {
  const In x = some.numbers();
  // rows of w that stay in the nearest cache for all rows of x
  const Index together = x.rows == 1 ? rows.count : 4;
  for (Index r = rows.first; r < rows.first + rows.count; r += together) {
    const Index count = std::min(together, rows.first + rows.count - r);
    for (Index t = 0; t < x.rows; ++t)
      loops::row_dots(w.row(r).data(), x.row(t).data(), &y(t, r), beta, count, w.cols);
  }
}

// A source that multiplies rows as they lie, which costs the decoding of each for every row of x.
bool direct(const Some& x, const Weight& w, Rows rows, Out y, float beta) {
  thread_local std::vector<float> sums;
  sums.resize(std::size_t(rows.count));
  const bool rounded = rounds(w);
  for (Index t = 0; t < x.count; ++t) {
    float* to = &y(t, rows.first);
    if (!w.source->dots(w.first + rows.first, rows.count, x.row(t, rounded),
                        beta == 0 ? to : sums.data()))
      return false;
    for (Index r = 0; beta != 0 && r < rows.count; ++r)
      to[r] = sums[std::size_t(r)] + beta * to[r];
  }
  return true;
}

// Of a weight with another source its rows are made first, as many as stay in the nearest cache.
// Whole numbers need no decoding, so that any number of rows is multiplied with them as they lie.
void product(const Some& some, const Weight& w, Rows rows, Out y, float beta) {
  if ((some.count <= few || rounds(w)) && direct(some, w, rows, y, beta))
    return;
  const In x = some.numbers();
  const Index together = std::max<Index>(4, piece_bytes / Index(sizeof(float)) / w.cols);
  thread_local std::vector<float> made;
  made.resize(std::size_t(std::min(together, rows.count) * w.cols));
  for (Index done = 0; done < rows.count; done += together) {
    const View<float> read{made.data(), std::min(together, rows.count - done), w.cols};
    const Index first = rows.first + done;
    w.source->read(w.first + first, read);
    for (Index t = 0; t < x.rows; ++t)
      loops::row_dots(read.data, x.row(t).data(), &y(t, first), beta, read.rows, w.cols);
  }
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
  const std::vector<Piece> pieces = pieces_of({{0, 0, x.rows}}, w.rows, piece_rows(w));
  const Rounded rounded(x, rounds(w));
  const Some all{rounded, 0, x.rows};
  run_tasks(Index(pieces.size()), reading * double(w.rows * w.cols),
            [&](Index i) { product(all, w, pieces[std::size_t(i)].rows, y, beta); });
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
  const Rounded& xs;
  Out gate, up, hidden, ys;

  // Hidden units `rows` of a tile.
  void hide(const RowTile& t, Rows rows) const {
    const ExpertWeights<float>& w = bodies.weights;
    const Some x{xs, t.first, t.count};
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
  void put_out(const Rounded& units, const RowTile& t, Rows rows) const {
    const Out y = rows_of(ys, t);
    const Some h{units, t.first, t.count};
    product(h, expert_block(bodies.down, t.expert, ys.cols), rows, y, 0);
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
  const Rounded rounded(xs, (gated && rounds(bodies.gate)) || rounds(bodies.up));
  const BodyPass<M> pass{bodies, rounded, tape.gate.view(), tape.up.view(), hidden.view(), ys};
  const std::vector<RowTile> tiles = row_tiles(plan.offset.view(), most_decoding_tokens);
  const double work = reading * double(xs.size()) * double(width);
  const std::vector<Piece> in = pieces_of(tiles, width, piece_rows(bodies.up));
  run_tasks(Index(in.size()), (gated ? 2 : 1) * work,
            [&](Index i) { pass.hide(in[std::size_t(i)].tile, in[std::size_t(i)].rows); });
  const std::vector<Piece> out = pieces_of(tiles, ys.cols, piece_rows(bodies.down));
  const Rounded units(In(hidden.view()), rounds(bodies.down));
  run_tasks(Index(out.size()), work, [&](Index i) {
    pass.put_out(units, out[std::size_t(i)].tile, out[std::size_t(i)].rows);
  });
}

template void linear<float>(In, View<const float>, Out, float);
template void linear<Half>(In, View<const Half>, Out, float);
template void experts(Memory&, const Bodies<In>&, In, const Plan&, ExpertTape<float>&, Out);
template void experts(Memory&, const Bodies<View<const Half>>&, In, const Plan&, ExpertTape<float>&,
                      Out);
template void experts(Memory&, const Bodies<Weight>&, In, const Plan&, ExpertTape<float>&, Out);

}  // namespace moe::decode
