// Compiled for x86-64-v4 with VNNI alone: see lanes.h.
#define MOE_LEVEL vnni
#include "lib/checkpoint/quant/byte_dots_rows.h"

const moe::quant::ByteDotsTable moe::quant::byte_dots_vnni = moe::quant::vnni::byte_table;
