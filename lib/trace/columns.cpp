// Which datasets there are, and their cells: see columns.h.
#include "lib/trace/columns.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <limits>

#include "lib/core/clones.h"
#include "lib/core/dtype.h"
#include "lib/core/error.h"

static_assert(std::endian::native == std::endian::little,
              "cells are little-endian in the file and taken as they are");

namespace moe {
namespace {
using h5::Cell;

template <class T>
void store(std::uint8_t* out, std::size_t i, T value) {
  std::memcpy(out + i * sizeof(T), &value, sizeof(T));
}
template <class T>
T load(const std::uint8_t* in, std::size_t i) {
  T value;
  std::memcpy(&value, in + i * sizeof(T), sizeof(T));
  return value;
}

[[noreturn]] void misshapen(const TraceColumn& c, Index layer, Index rows, Index cols) {
  throw Error(Exit::bug, fmt::format("{} of layer {} was given as {}x{}; the trace holds {} a row",
                                     c.path, layer, rows, cols, c.width));
}

template <class Id>
void encode_ids(const Matrix<int>& m, Index first, Index count, const TraceColumn& c, int experts,
                Index layer, std::uint8_t* out) {
  for (Index t = 0; t < count; ++t) {
    for (Index k = 0; k < c.width; ++k) {
      const int id = k < m.cols() ? m(first + t, k) : -1;
      if (id < -1 || id >= experts) {
        throw Error(Exit::bug, fmt::format("{}: expert {} in layer {}, which has {}", c.path, id,
                                           layer, experts));
      }
      store(out, std::size_t(t * c.width + k), Id(id));  // -1 becomes all ones
    }
  }
}

// Ids as numbers; "none", all ones, becomes -1. Returns the largest + 1.
template <class Id>
MOE_INLINE Id widen(const std::uint8_t* in, int* out, Index cells) {
  Id most = 0;
  for (Index i = 0; i < cells; ++i) {
    Id next;
    std::memcpy(&next, in + std::size_t(i) * sizeof next, sizeof next);
    next = Id(next + 1);
    most = most > next ? most : next;
    out[i] = int(next) - 1;
  }
  return most;
}
MOE_SIMD std::uint16_t widen_16(const std::uint8_t* in, int* out, Index cells) {
  return widen<std::uint16_t>(in, out, cells);
}
MOE_SIMD std::uint32_t widen_32(const std::uint8_t* in, int* out, Index cells) {
  return widen<std::uint32_t>(in, out, cells);
}

template <class Id>
void decode_ids(const std::uint8_t* in, Index count, const TraceColumn& c, int experts, Index layer,
                Matrix<int>& m, Index at) {
  const Index cells = count * c.width;
  int* out = m.data() + at * m.cols();
  // one pass without a branch; what is out of range is looked for only where there is some
  if (m.cols() == c.width) {
    std::uint64_t most = 0;
    if constexpr (sizeof(Id) == 2)
      most = widen_16(in, out, cells);
    else
      most = widen_32(in, out, cells);
    if (most <= std::uint64_t(experts))
      return;
  }
  for (Index t = 0; t < count; ++t) {
    for (Index k = 0; k < c.width; ++k) {
      const Id id = load<Id>(in, std::size_t(t * c.width + k));
      if (id != Id(-1) && std::uint64_t(id) >= std::uint64_t(experts)) {
        throw Error(
            Exit::input,
            fmt::format(
                "{} names expert {} in row {} of the window, MoE layer {}, which has {} experts",
                c.path, id, at + t, layer, experts));
      }
      m(at + t, k) = id == Id(-1) ? -1 : int(id);
    }
  }
}

float cell_float(const std::uint8_t* in, std::size_t i, Cell cell) {
  return cell == Cell::f16 ? f16_to_float(load<std::uint16_t>(in, i)) : load<float>(in, i);
}
void store_float(std::uint8_t* out, std::size_t i, Cell cell, float v) {
  if (cell == Cell::f16)
    store(out, i, float_to_f16(v));
  else
    store(out, i, v);
}

void encode_floats(const float* from, Index cols, Index count, const TraceColumn& c,
                   std::uint8_t* out) {
  const float none = std::numeric_limits<float>::quiet_NaN();
  for (Index t = 0; t < count; ++t) {
    for (Index k = 0; k < c.width; ++k) {
      store_float(out, std::size_t(t * c.width + k), c.cell,
                  from && k < cols ? from[t * cols + k] : none);
    }
  }
}

void encode_dropped(const Matrix<std::uint8_t>& m, Index first, Index count, const TraceColumn& c,
                    std::uint8_t* out) {
  std::memset(out, 0, std::size_t(count * c.width));
  for (Index t = 0; t < count; ++t) {
    for (Index k = 0; k < m.cols(); ++k) {
      if (m(first + t, k))
        out[t * c.width + k / 8] |= std::uint8_t(1u << (k % 8));
    }
  }
}

// Which member a column is. Overloads so that reading and writing name each member once.
template <class Rows>
auto numbers(Rows& rows, Field f) -> decltype(&rows.token_id) {
  switch (f) {
    case Field::position:
      return &rows.position;
    case Field::predicted_id:
      return &rows.predicted_id;
    case Field::sequence:
      return &rows.sequence;
    case Field::step:
      return &rows.step;
    case Field::target_id:
      return &rows.target_id;
    case Field::token_id:
      return &rows.token_id;
    default:
      return nullptr;
  }
}
template <class Rows>
auto bytes(Rows& rows, Field f) -> decltype(&rows.flags) {
  return f == Field::flags ? &rows.flags : f == Field::modality ? &rows.modality : nullptr;
}
template <class Layer>
auto ids(Layer& layer, Field f) -> decltype(&layer.expert) {
  return f == Field::expert      ? &layer.expert
         : f == Field::kept      ? &layer.kept
         : f == Field::predicted ? &layer.predicted
                                 : nullptr;
}
template <class Layer>
auto floats(Layer& layer, Field f) -> decltype(&layer.weight) {
  return f == Field::weight     ? &layer.weight
         : f == Field::logits   ? &layer.logits
         : f == Field::out_norm ? &layer.out_norm
                                : nullptr;
}
template <class Layer>
auto figures(Layer& layer, Field f) -> decltype(&layer.entropy) {
  return f == Field::entropy     ? &layer.entropy
         : f == Field::margin    ? &layer.margin
         : f == Field::logsumexp ? &layer.logsumexp
                                 : nullptr;
}

template <class T>
void encode_numbers(const std::vector<T>& from, const TraceRows& rows, Index first, Index count,
                    const TraceColumn& c, std::uint8_t* out) {
  if (from.size() != rows.tokens())
    misshapen(c, 0, Index(from.size()), 1);
  std::memcpy(out, from.data() + first, std::size_t(count) * sizeof(T));
}

void encode_layer(const LayerRows& rows, Index tokens, Index first, Index count,
                  const TraceColumn& c, const TraceLayer& info, Index layer, std::uint8_t* out) {
  const auto fits = [&](Index r, Index w, Index most) {
    if (r != tokens || w > most)
      misshapen(c, layer, r, w);
  };
  if (const auto* m = ids(rows, c.field)) {
    if (c.field == Field::kept && m->empty())
      m = &rows.expert;  // nothing was rerouted here
    if (c.field != Field::predicted || !m->empty())
      fits(m->rows(), m->cols(), c.width);
    c.cell == Cell::u16 ? encode_ids<std::uint16_t>(*m, first, count, c, info.experts, layer, out)
                        : encode_ids<std::uint32_t>(*m, first, count, c, info.experts, layer, out);
  } else if (const auto* f = floats(rows, c.field)) {
    if (c.field == Field::weight || !f->empty())
      fits(f->rows(), f->cols(), c.width);
    encode_floats(f->empty() ? nullptr : f->data() + first * f->cols(), f->cols(), count, c, out);
  } else if (const auto* v = figures(rows, c.field)) {
    if (!v->empty())
      fits(Index(v->size()), 1, 1);
    encode_floats(v->empty() ? nullptr : v->data() + first, 1, count, c, out);
  } else {
    if (!rows.dropped.empty())
      fits(rows.dropped.rows(), rows.dropped.cols(), c.choices);
    encode_dropped(rows.dropped, first, count, c, out);
  }
}

bool TraceFields::*member(Field f) {
  switch (f) {
    case Field::dropped:
      return &TraceFields::dropped;
    case Field::entropy:
      return &TraceFields::entropy;
    case Field::kept:
      return &TraceFields::kept;
    case Field::logits:
      return &TraceFields::logits;
    case Field::logsumexp:
      return &TraceFields::logsumexp;
    case Field::margin:
      return &TraceFields::margin;
    case Field::out_norm:
      return &TraceFields::out_norm;
    case Field::predicted:
      return &TraceFields::predicted;
    case Field::weight:
      return &TraceFields::weights;
    case Field::modality:
      return &TraceFields::modality;
    case Field::rank:
      return &TraceFields::rank;
    case Field::logprob:
    case Field::predicted_id:
    case Field::target_id:
      return &TraceFields::prediction;
    default:
      return nullptr;  // always there
  }
}

}  // namespace

bool asked(const TraceFields& fields, Field f) {
  return !member(f) || fields.*member(f);
}
void set_asked(TraceFields& fields, Field f) {
  if (member(f))
    fields.*member(f) = true;
}

namespace {
// In path order.
std::vector<TraceColumn> routing_columns(const TraceHeader& h) {
  const Index k = std::max(1, h.max_choices());  // counts alone need no top_k
  const Index experts = h.max_experts();
  const Index ahead = h.predicted > 0 ? h.predicted : k;
  const Cell id = experts >= 65535 ? Cell::u32 : Cell::u16;
  return {
      {Field::dropped, "/routing/dropped", Cell::u8, true, (k + 7) / 8, 3, commit_rows, k},
      {Field::entropy, "/routing/entropy", Cell::f16, true, 1, 2},
      {Field::expert, "/routing/expert_ids", id, true, k},
      {Field::kept, "/routing/kept_ids", id, true, k},
      {Field::logits, "/routing/logits", h.wide_logits ? Cell::f32 : Cell::f16, true, experts, 3,
       256},
      {Field::logsumexp, "/routing/logsumexp", Cell::f32, true, 1, 2},
      {Field::margin, "/routing/margin", Cell::f16, true, 1, 2},
      {Field::out_norm, "/routing/out_norm", Cell::f32, true, k},
      {Field::predicted, "/routing/predicted_ids", id, true, ahead},
      {Field::weight, "/routing/weights", h.wide_weights ? Cell::f32 : Cell::f16, true, k},
  };
}
std::vector<TraceColumn> token_columns() {
  return {
      {Field::flags, "/tokens/flags", Cell::u8, false, 1, 1, token_chunk},
      {Field::logprob, "/tokens/logprob", Cell::f32, false, 1, 1, token_chunk},
      {Field::modality, "/tokens/modality", Cell::u8, false, 1, 1, token_chunk},
      {Field::position, "/tokens/position", Cell::u32, false, 1, 1, token_chunk},
      {Field::predicted_id, "/tokens/predicted_id", Cell::u32, false, 1, 1, token_chunk},
      {Field::rank, "/tokens/rank", Cell::u16, false, 1, 1, token_chunk},
      {Field::sequence, "/tokens/sequence", Cell::u32, false, 1, 1, token_chunk},
      {Field::step, "/tokens/step", Cell::u32, false, 1, 1, token_chunk},
      {Field::target_id, "/tokens/target_id", Cell::u32, false, 1, 1, token_chunk},
      {Field::token_id, "/tokens/token_id", Cell::u32, false, 1, 1, token_chunk},
  };
}
// Every dataset there can be, in path order.
std::vector<TraceColumn> all_columns(const TraceHeader& h) {
  std::vector<TraceColumn> all = routing_columns(h);
  const std::vector<TraceColumn> tokens = token_columns();
  all.insert(all.end(), tokens.begin(), tokens.end());
  return all;
}
}  // namespace

std::vector<TraceColumn> columns_of(const TraceHeader& h, const TraceFields& fields) {
  std::vector<TraceColumn> out;
  for (const TraceColumn& c : all_columns(h)) {
    if (asked(fields, c.field))
      out.push_back(c);
  }
  for (TraceColumn& c : out) {  // very wide rows: shorter chunks, far below what readers refuse
    while (c.chunk > 1 && c.chunk * Index(c.row_bytes()) > (16 << 20))
      c.chunk /= 2;
  }
  return out;
}

void encode(const TraceRows& rows, Index first, Index count, const TraceColumn& c,
            const TraceLayer& info, Index layer, std::uint8_t* out) {
  if (c.layered) {
    return encode_layer(rows.layer[std::size_t(layer)], Index(rows.tokens()), first, count, c, info,
                        layer, out);
  }
  if (const auto* v = numbers(rows, c.field))
    return encode_numbers(*v, rows, first, count, c, out);
  if (const auto* v = bytes(rows, c.field))
    return encode_numbers(*v, rows, first, count, c, out);
  if (c.field == Field::rank)
    return encode_numbers(rows.rank, rows, first, count, c, out);
  encode_numbers(rows.logprob, rows, first, count, c, out);
}

void prepare(TraceRows& out, Index count, const TraceColumn& c, Index layer) {
  const auto n = std::size_t(count);
  if (auto* v = c.layered ? nullptr : numbers(out, c.field))
    return v->assign(n, 0);
  if (auto* v = bytes(out, c.field))
    return v->assign(n, 0);
  if (c.field == Field::rank)
    return out.rank.assign(n, 0);
  if (c.field == Field::logprob)
    return out.logprob.assign(n, 0);
  auto& rows = out.layer[std::size_t(layer)];
  if (auto* m = ids(rows, c.field))
    *m = Matrix<int>(count, c.width);
  if (auto* f = floats(rows, c.field))
    *f = Matrix<float>(count, c.width, std::numeric_limits<float>::quiet_NaN());
  if (auto* v = figures(rows, c.field))
    v->assign(n, 0);
  if (c.field == Field::dropped)
    rows.dropped = Matrix<std::uint8_t>(count, c.choices);
}

namespace {
void decode_layer(const std::uint8_t* cells, Index count, const TraceColumn& c,
                  const TraceLayer& info, Index layer, LayerRows& rows, Index at) {
  if (auto* m = ids(rows, c.field)) {
    return c.cell == Cell::u16
               ? decode_ids<std::uint16_t>(cells, count, c, info.experts, layer, *m, at)
               : decode_ids<std::uint32_t>(cells, count, c, info.experts, layer, *m, at);
  }
  if (auto* f = floats(rows, c.field)) {
    for (Index t = 0; t < count; ++t) {
      for (Index k = 0; k < f->cols(); ++k)
        (*f)(at + t, k) = cell_float(cells, std::size_t(t * c.width + k), c.cell);
    }
  } else if (auto* v = figures(rows, c.field)) {
    for (Index t = 0; t < count; ++t)
      (*v)[std::size_t(at + t)] = cell_float(cells, std::size_t(t), c.cell);
  } else {
    for (Index t = 0; t < count; ++t) {
      for (Index k = 0; k < rows.dropped.cols(); ++k)
        rows.dropped(at + t, k) = cells[t * c.width + k / 8] >> (k % 8) & 1;
    }
  }
}
}  // namespace

void decode(const std::uint8_t* cells, Index count, const TraceColumn& c, const TraceLayer& info,
            Index layer, TraceRows& out, Index at) {
  const auto copy = [&](auto& v) {
    std::memcpy(v.data() + at, cells, std::size_t(count) * sizeof(v[0]));
  };
  if (auto* v = c.layered ? nullptr : numbers(out, c.field))
    return copy(*v);
  if (auto* v = bytes(out, c.field))
    return copy(*v);
  if (c.field == Field::rank)
    return copy(out.rank);
  if (c.field == Field::logprob)
    return copy(out.logprob);
  decode_layer(cells, count, c, info, layer, out.layer[std::size_t(layer)], at);
}

std::vector<std::uint8_t> interleave(const std::vector<const std::uint8_t*>& planes, Index rows,
                                     std::size_t row_bytes) {
  std::vector<std::uint8_t> out(planes.size() * std::size_t(rows) * row_bytes);
  auto* to = out.data();
  for (std::size_t t = 0; t < std::size_t(rows); ++t) {
    for (const auto* plane : planes) {
      std::memcpy(to, plane + t * row_bytes, row_bytes);
      to += row_bytes;
    }
  }
  return out;
}

}  // namespace moe
