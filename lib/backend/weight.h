// A matrix of weights as products read it: (O,I), or E of them stacked to (E*O,I). A backend may
// keep a packed or converted copy of it, keyed by `id` and `version`; id 0 = never cache.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lib/core/byte_rows.h"
#include "lib/core/dtype.h"

namespace moe {

// A matrix whose numbers are made when they are read: stored in few bits, in a mapped file say.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // Rows first .. first+out.rows, in host memory. Called from several threads at once.
  virtual void read(Index first, View<float> out) const = 0;
  // y[r] = row first + r times x, for `rows` rows, without making them; false where these rows have
  // no such product, and y is then undefined. x has bytes where rounds_activations().
  virtual bool dots(Index /*first*/, Index /*rows*/, const ActivationRow& /*x*/,
                    float* /*y*/) const {
    return false;
  }
  // Whether all rows have dots().
  virtual bool has_dots() const {
    return false;
  }
  // Products y = x w' take rows of x rounded to 8 bits (byte_rows.h): all rows have dots() then.
  virtual bool rounds_activations() const {
    return false;
  }
  // Bytes of mapped files that such rows are made from, for whoever reads ahead.
  virtual std::vector<std::span<const std::byte>> bytes(Index /*first*/, Index /*rows*/) const {
    return {};
  }
  // Whether rows lie in memory as bf16, and such rows, each behind the one before; an expert's rows
  // lie together.
  virtual bool lies_as_bf16() const {
    return false;
  }
  virtual const std::uint16_t* bf16_rows(Index /*first*/, Index /*rows*/) const {
    return nullptr;
  }
};

struct Weight {
  const void* data = nullptr;
  DType dtype = DType::f32;
  Index rows = 0, cols = 0;
  std::uint64_t id = 0, version = 0;
  const RowSource* source = nullptr;  // instead of data: row 0 is row `first` of it
  Index first = 0;
  bool exact = false;  // products with it are in full precision on every backend: router scores

  Weight() = default;
  Weight(const void* d, DType t, Index r, Index c, std::uint64_t i = 0, std::uint64_t v = 0)
      : data(d), dtype(t), rows(r), cols(c), id(i), version(v) {}
  template <class S>
  Weight(View<S> v) : Weight(v.data, dtype_of<std::remove_const_t<S>>, v.rows, v.cols) {}
  Weight in_full() const {
    Weight w = *this;
    w.exact = true;
    return w;
  }
  bool empty() const {
    return rows * cols == 0;
  }
  bool rounds_activations() const {
    return source && source->rounds_activations();
  }
  // Of numbers from a source: rows i*count .. (i+1)*count.
  Weight block_of_source(Index i, Index count) const {
    Weight w = *this;
    w.first += i * count;
    w.rows = count;
    return w;
  }
};

// The numbers as a view, where they are stored as S; throws Error(bug) otherwise.
template <class S>
View<const S> plain(const Weight& w);

}  // namespace moe
