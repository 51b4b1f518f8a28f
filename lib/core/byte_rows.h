// Rows of activations rounded to 8 bits, which products of whole numbers read. A block of 32
// numbers shares a scale d, the largest size among them over 127; number i becomes
//   q_i = round(x_i / d), ties to even, -127..127,   so that |x_i - d q_i| <= d/2 (1 + 2^-14).
// A block whose largest size is below 2^-90 counts as zeros. One that holds a NaN or an infinity
// has the scale NaN, so that all products with its row are NaN.
#pragma once
#include <vector>

#include "lib/core/byte_row.h"
#include "lib/core/view.h"

namespace moe {

class ByteRows {
 public:
  ByteRows() = default;
  explicit ByteRows(View<const float> x);  // Error(bug) where its columns are no whole blocks
  bool empty() const {
    return numbers_.empty();
  }
  ByteRow row(Index t) const;

 private:
  Index cols_ = 0;
  std::vector<std::int8_t> numbers_;
  // of a row behind each other what byte_row.h names, in its order
  static constexpr Index floats_a_block = 13;
  static constexpr Index ints_a_block = 9;
  std::vector<float> floats_;
  std::vector<std::int32_t> ints_;
};

// What the rows count as: d q_i for x_i. `out` may be x.
void rounded_to_bytes(View<const float> x, View<float> out);

}  // namespace moe
