// A row of activations as products read it: its numbers, and the same rounded to 8 bits
// (byte_rows.h) where products of whole numbers are wanted. Plain pointers alone: files that are
// compiled for one kind of processor include this.
#pragma once
#include <cstdint>

namespace moe {

inline constexpr int byte_block = 32;  // numbers that share a scale

// Of a row of n numbers, whole blocks.
struct ByteRow {
  const std::int8_t* number = nullptr;  // (n), -127..127
  const float* scale = nullptr;         // (n/32)
  const std::int32_t* sum = nullptr;    // (n/32), of the bytes of a block
  const float* scaled_half = nullptr;   // (n/16), the scale times the sum of 16 bytes
  const float* scaled_sum = nullptr;    // (n/32), the scale times the sum
  // For numbers in high halves of bytes that are read as 16 times what they are:
  const float* pair_scale = nullptr;            // (n/32), the scale; of odd blocks a 16th
  const float* nibble_scale = nullptr;          // (n/4), four times the scale, four times a 16th
  const std::int32_t* nibble_offset = nullptr;  // (n/4), four times -sum, four times -16 sum
};

struct ActivationRow {
  const float* number = nullptr;
  ByteRow bytes = {};  // bytes.number is null where products are exact
};

}  // namespace moe
