// Compiled for x86-64-v3 alone: see lanes.h.
#define MOE_LEVEL v3
#include "lib/checkpoint/quant/byte_dots_rows.h"

const moe::quant::ByteDotsTable moe::quant::byte_dots_v3 = moe::quant::v3::byte_table;
