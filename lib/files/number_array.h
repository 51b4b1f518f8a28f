// An array of numbers from a file of any kind (NumPy, safetensors, PyTorch): element type, shape,
// strides and bytes that somebody keeps alive. Numbers are looked at where they lie, so an array
// costs nothing until it is read. Whoever makes one has checked that its bytes are there.
#pragma once
#include <string>
#include <vector>

#include "lib/core/tensor.h"
#include "lib/files/zip.h"

namespace moe {

struct NumberArray {
  std::string name;  // for sentences: "'a.npz' expert_ids"
  DType dtype = DType::f32;
  Dims shape, stride;              // stride in elements
  Bytes bytes;                     // from the first element on
  std::vector<std::string> texts;  // an array of text instead of numbers

  Index size() const;
  int axes() const {
    return int(shape.size());
  }
  bool is_whole() const;
  bool is_text() const {
    return !texts.empty();
  }
  // Offset in elements of [a], [a][b], ...
  Index place(Index a) const {
    return a * stride[0];
  }
  Index place(Index a, Index b) const {
    return place(a) + b * stride[1];
  }
  Index place(Index a, Index b, Index c) const {
    return place(a, b) + c * stride[2];
  }
  Index place(Index a, Index b, Index c, Index d) const {
    return place(a, b, c) + d * stride[3];
  }
  std::int64_t whole(Index place) const;  // of a whole-number type
  double real(Index place) const;         // of any type
  // [index] of the first axis
  NumberArray at(Index index) const;
  void refuse(const std::string& why, const std::string& hint) const;
  // Error(input) where it is not of whole numbers, or not of `axes` axes ("[T, L, K]")
  void must_be_whole() const;
  void must_have(int axes, const char* meaning) const;
};

// Row-major strides of a shape.
Dims strides_of(const Dims& shape);
// A .npy file in memory. Object arrays (they hold a pickle) are refused by name.
NumberArray npy_array(const Bytes& file, const std::string& name);
// Of a type and shape; Error(input) where `bytes` has fewer, or the shape does not fit.
NumberArray checked_array(const std::string& name, DType, const Dims& shape, const Bytes& bytes);

}  // namespace moe
