// Sums of products with rows as files hold them, decoded in registers: what decoding a token at a
// time needs, which reads every weight once. The numbers are those of dequantise.h; a scale is
// multiplied with the sum of its block's products, so that a result differs from that of the
// decoded row in its last bits: by at most n 2^-23 times the sum of the sizes of its terms.
#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "lib/checkpoint/quant/few_bits.h"
#include "lib/core/byte_row.h"
#include "lib/files/gguf.h"

namespace moe::quant {

// y[r] = sum over i < n of w(r, i) x[i]; rows of w lie one behind the other. n is whole blocks.
using RowDots = void (*)(const std::byte* w, const float* x, float* y, std::ptrdiff_t rows,
                         std::ptrdiff_t n);
// Of "F32", "BF16", "F16", "Q8_0", "Q4_0", "Q4_K" and "Q6_K"; nullptr for other formats and where
// the processor has no AVX2: their rows are decoded first.
RowDots row_dots(const GgmlType&);
RowDots row_dots(DType);  // of f32, bf16 and f16

// The same with a row of activations that was rounded to 8 bits (lib/core/byte_rows.h): products
// and sums of a block are whole numbers. y[r] is the sum of w(r, i) d q_i within the same bound. Of
// "Q8_0", "Q4_0", "Q4_K" and "Q6_K"; nullptr for others and without AVX2.
using RowByteDots = void (*)(const std::byte* w, const ByteRow& x, float* y, std::ptrdiff_t rows,
                             std::ptrdiff_t n);
RowByteDots row_byte_dots(const GgmlType&);

// A row of int8 or int4 whose scales stand beside it; x as it is, or rounded where it has bytes.
bool has_dots(const FewBitsFormat&, Index cols);
float few_bits_dot(const FewBitsFormat&, const FewBitsRow&, const ActivationRow& x, Index n);

// Every level of processors that this one has, the fastest first: for tests, which compare them.
std::vector<RowByteDots> byte_dots_of_levels(const GgmlType&);

// Whether all numbers of these whole blocks are finite, of a format that has sums: scales are
// looked at where there are any.
bool all_finite(const GgmlType&, std::span<const std::byte> blocks);
bool all_finite(DType, std::span<const std::byte> numbers);

}  // namespace moe::quant
