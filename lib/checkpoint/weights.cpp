// What all stored tensors share, and safetensors files as the weights of a model.
#include "lib/checkpoint/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "lib/checkpoint/stored.h"
#include "lib/core/error.h"
#include "lib/files/file.h"

namespace moe {

StoredRows::StoredRows(std::string name, Dims dims)
    : name_(std::move(name)), dims_(std::move(dims)) {
  if (!checked_size(dims_, size_)) {
    throw Error(Exit::bug,
                fmt::format("the shape {} of {} has no size", text_of(dims_), in_quotes(name_)));
  }
}

void StoredRows::to_float(Index first, View<float> out) const {
  if (first < 0 || out.cols != cols() || first > rows() - out.rows) {
    throw Error(Exit::bug,
                fmt::format("rows {} to {} of {} numbers requested from {} of shape {}", first,
                            first + out.rows, out.cols, in_quotes(name_), text_of(dims_)));
  }
  convert(first, out);
}

bool StoredRows::finite(Index first, Index rows) const {
  Matrix<float> numbers(rows, cols());
  to_float(first, numbers.view());
  std::uint32_t largest = 0;  // exponent of an infinity or a NaN, where there is one
  for (const float v : numbers.flat())
    largest = std::max(largest, std::bit_cast<std::uint32_t>(v) & 0x7f800000u);
  return largest < 0x7f800000u;
}

Tensor StoredRows::numbers() const {
  Tensor t(DType::f32, dims_);
  to_float(0, t.mutable_view<float>());
  return t;
}

void StoredRows::forget(Index first, Index rows) const {
  for (const auto& part : bytes(first, rows))
    forget_pages(part);
}

namespace {

class SafetensorsWeights final : public Weights {
 public:
  explicit SafetensorsWeights(const std::filesystem::path& folder) : tensors_(folder) {}

  const std::filesystem::path& path() const override {
    return tensors_.path();
  }
  const std::filesystem::path& file_of(const std::string& tensor) const override {
    const TensorInfo* t = tensors_.find(tensor);
    return t ? tensors_.file(*t) : tensors_.path();
  }
  std::vector<std::string> names() const override {
    return tensors_.names();
  }
  // four bits a number is the narrowest format
  double most_numbers() const override {
    double bytes = 0;
    for (const TensorInfo& t : tensors_.list())
      bytes += double(t.bytes);
    return 2 * bytes;
  }
  bool quantised(DType) const override {
    return std::ranges::any_of(tensors_.list(), [](const TensorInfo& t) {
      return t.dtype == DType::i8 || t.dtype == DType::f8_e4m3 || t.name.ends_with("_packed");
    });
  }
  std::vector<std::string> notes() const override {
    return tensors_.notes();
  }
  std::vector<std::string> absent() const override {
    return tensors_.absent();
  }
  std::unique_ptr<const StoredRows> open(const std::string& name, const Dims& dims) const override {
    return std::make_unique<const Stored>(tensors_, name, dims);
  }

 private:
  Tensors tensors_;
};

}  // namespace

std::unique_ptr<const Weights> safetensors_weights(const std::filesystem::path& folder) {
  return std::make_unique<const SafetensorsWeights>(folder);
}

}  // namespace moe
