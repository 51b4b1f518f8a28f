// Matrices in few bits as safetensors checkpoints have them, a number rounded to nearest:
//   int8   8-bit whole numbers, a scale for each row or for `block` numbers of it: NAME (I8),
//   NAME_scale int4   4-bit whole numbers -8..7, eight in an I32, the first lowest: NAME_packed,
//   NAME_scale,
//          NAME_shape
//   fp8    e4m3, a scale for each 128x128 numbers (DeepSeek-V3): NAME (F8_E4M3), NAME_scale_inv
//   mxfp4  e2m1, two in a byte, a power of two for 32 numbers of a row: NAME_packed (U8),
//   NAME_scale
// int8, int4 and mxfp4 are laid out as compressed-tensors lays them out ("int-quantized",
// "pack-quantized", "mxfp4-pack-quantized"). A scale of whole numbers is the largest of its numbers
// over 127 or 7, of fp8 over 448; of mxfp4 the power of two of the OCP specification (v1.0, section
// 6.3).
#pragma once
#include <array>
#include <span>
#include <string>
#include <vector>

#include "lib/checkpoint/safetensors.h"
#include "lib/core/tensor.h"

namespace moe {

// The numbers of e2m1, by their four bits.
inline constexpr std::array<float, 16> e2m1_numbers = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                                                       -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

enum class FewBits : std::uint8_t { int8, int4, fp8, mxfp4 };

struct FewBitsFormat {
  FewBits kind = FewBits::int8;
  Index block = 0;  // numbers of a row that share a scale; 0 = the whole row

  bool operator==(const FewBitsFormat&) const = default;
};

// "int8", "int8:block=32", "int4" (blocks of 32), "int4:block=128", "fp8", "mxfp4". Throws
// Error(usage).
FewBitsFormat few_bits_format(const std::string& text);
std::string text_of(const FewBitsFormat&);
std::vector<std::string> few_bits_names();

// Why a matrix (rows, cols) cannot be stored so; empty where it can.
std::string cannot_hold(const FewBitsFormat&, Index rows, Index cols);
// With scales; of a matrix that can be stored so.
Index bytes_of(const FewBitsFormat&, Index rows, Index cols);

// What a matrix becomes: tensors under names that begin with its own. Each is made when its turn in
// the file comes, far from the others, so that it is rounded once for each rather than kept.
std::vector<NamedTensor> in_few_bits(const NamedTensor& matrix, const FewBitsFormat&);
// What the numbers of a matrix become, as f32.
void round_to(const FewBitsFormat&, View<float> numbers);

// Rows as they are stored, one at a time.
struct FewBitsRow {
  const std::byte* numbers = nullptr;
  const std::byte* scales = nullptr;  // f32, bf16 or f16; of mxfp4 bytes
  DType scale_type = DType::f32;
};
float scale_of(const FewBitsRow&, Index block);  // of int8 and int4
// fp8 not: its scales belong to several rows.
void decode_row(const FewBitsFormat&, const FewBitsRow&, std::span<float> out);

}  // namespace moe
