// Where the numbers of a model come from, whatever kind of file holds them: tensors by name, whose
// rows become float32 when they are asked for.
#pragma once
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/core/byte_row.h"
#include "lib/core/tensor.h"

namespace moe {

// Tables of token ids are the one kind of integers in published models (DeepSeek-V4).
inline bool holds_ids(std::string_view tensor) {
  return tensor.ends_with("tid2eid");
}

// One tensor of a model, which may lie in its files in another form or in several pieces. Rows are
// all sizes but the last.
class StoredRows {
 public:
  // throws Error(bug) where the shape has no size
  StoredRows(std::string name, Dims dims);
  StoredRows(const StoredRows&) = default;
  StoredRows& operator=(const StoredRows&) = default;
  virtual ~StoredRows() = default;

  const std::string& name() const {
    return name_;
  }
  const Dims& dims() const {
    return dims_;
  }
  Index size() const {
    return size_;
  }
  Index rows() const {
    return cols() == 0 ? 0 : size_ / cols();
  }
  Index cols() const {
    return dims_.empty() ? 1 : dims_.back();
  }
  void to_float(Index first, View<float> out) const;  // rows first .. first+out.rows

  virtual std::vector<std::string> tensors() const = 0;  // the names in the file that make it up
  // y[r] = row first + r times x for `rows` rows as they lie (quant/dots.h); x has cols() numbers,
  // of which the bytes are multiplied where they are there and has_byte_dots(). False where there
  // is no such product.
  virtual bool dots(Index /*first*/, Index /*rows*/, const ActivationRow& /*x*/,
                    float* /*y*/) const {
    return false;
  }
  virtual bool has_dots() const {
    return false;
  }
  virtual bool has_byte_dots() const {
    return false;
  }
  virtual bool finite(Index first, Index rows) const;  // whether all numbers of these rows are
  // fewer bits a number than any float has: rows are decoded each time they are read
  virtual bool quantised() const {
    return false;
  }
  virtual Tensor numbers() const;  // all of it; f32 where it was converted
  // Bytes of mapped files that these rows are made from; none where the numbers are in memory.
  virtual std::vector<std::span<const std::byte>> bytes(Index first, Index rows) const = 0;
  // gives the pages of these rows back to the system; they are read again when asked for
  void forget(Index first, Index rows) const;

 protected:
  // as to_float(), which has checked that the rows are there
  virtual void convert(Index first, View<float> out) const = 0;

 private:
  std::string name_;
  Dims dims_;
  Index size_ = 0;
};

class Weights {
 public:
  virtual ~Weights() = default;
  virtual const std::filesystem::path& path() const = 0;
  virtual const std::filesystem::path& file_of(const std::string& tensor) const = 0;
  // of all tensors that could be part of a model, sorted
  virtual std::vector<std::string> names() const = 0;
  // of tensors that the files say they have and do not hold; open() says where each should be
  virtual std::vector<std::string> absent() const {
    return {};
  }
  virtual double most_numbers() const = 0;  // the files cannot hold more
  // Matrices of few bits are among them that are better decoded each time they are read than held
  // in full, for products whose operands are of this type.
  virtual bool quantised(DType /*operands*/) const {
    return false;
  }
  // sentences about files that disagree where nothing needed is missing
  virtual std::vector<std::string> notes() const {
    return {};
  }
  // Throws Error(input) naming tensor and shapes where it is missing or of another shape.
  virtual std::unique_ptr<const StoredRows> open(const std::string& name,
                                                 const Dims& dims) const = 0;
};

// Those of safetensors files, under the names that the files have.
std::unique_ptr<const Weights> safetensors_weights(const std::filesystem::path& folder);

}  // namespace moe
