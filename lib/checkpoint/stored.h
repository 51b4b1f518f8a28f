// A tensor as numbers, whatever the file holds: plain floats of any width, FP8 with a scale for
// each block (DeepSeek-V3, Kimi), MXFP4 (gpt-oss), and the formats of quant/few_bits.h. Nothing is
// converted before it is asked for, a few rows at a time if wanted, so weights can stay in their
// mapped file.
#pragma once
#include <optional>

#include "lib/checkpoint/quant/few_bits.h"
#include "lib/checkpoint/safetensors.h"
#include "lib/checkpoint/weights.h"

namespace moe {

// Of a tensor of a file whose matrices may be in few bits: in which format its numbers are ("int8",
// "int4", "mxfp4", "fp8", else the name of its type), and how many it holds; 0 of scales and the
// like, which stand beside a matrix.
std::string format_in_file(const TensorInfo&);
double numbers_in_file(const TensorInfo&);

class Stored final : public StoredRows {
 public:
  // rows and columns that share an FP8 scale; blocks at the edge are cut
  static constexpr Index block = 128;
  static constexpr Index group = 32;  // numbers that share an MXFP4 scale

  // `dims` is the shape of the numbers. Where NAME is FP8, NAME_scale_inv must be there; where NAME
  // is missing and NAME_blocks and NAME_scales are there, the numbers are MXFP4, stored (..., out,
  // in) and seen as (..., in, out), as the unquantised tensor is. Where NAME is I8, or NAME_packed
  // is there in its place, NAME_scale says how many numbers share a scale. Throws Error(input)
  // naming tensor and shapes.
  Stored(const Tensors&, const std::string& name, const Dims& dims);

  bool quantised() const override {
    return kind_ != Kind::plain;
  }
  bool has_dots() const override;
  bool has_byte_dots() const override;
  bool dots(Index first, Index rows, const ActivationRow& x, float* y) const override;
  bool finite(Index first, Index rows) const override;
  std::vector<std::string> tensors() const override;
  // The format of a matrix in few bits; none of plain numbers, and of MXFP4 as gpt-oss has it.
  std::optional<FewBitsFormat> few_bits() const;
  // What the file holds of it, bit by bit, under another name than the tensor's.
  std::vector<NamedTensor> in_file(const std::string& name) const;
  // the mapped tensor itself where it is plain, else f32
  Tensor numbers() const override;
  std::vector<std::span<const std::byte>> bytes(Index first, Index rows) const override;

 private:
  enum class Kind { plain, fp8, mxfp4, few_bits };
  void convert(Index first, View<float> out) const override;
  std::span<const std::byte> bytes_of(const Tensor&, Index first, Index rows) const;
  FewBitsRow few_bits_row(Index row) const;
  void open_fp8(const Tensors&);
  void open_mxfp4(const Tensors&);
  void open_few_bits(const Tensors&, const std::string& tensor);
  void refuse_variants(const Tensors&) const;
  Index block_of_scales(const Tensors&) const;
  void from_fp8(Index first, View<float> out) const;
  void from_mxfp4(Index first, View<float> out) const;
  void from_few_bits(Index first, View<float> out) const;

  Kind kind_ = Kind::plain;
  FewBitsFormat format_;  // of few_bits
  std::string stored_as_;
  Tensor values_, scales_, shape_;  // shape_: empty where the file has none
};

}  // namespace moe
