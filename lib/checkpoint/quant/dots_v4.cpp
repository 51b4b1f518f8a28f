// Compiled for x86-64-v4 alone: see lanes.h.
#define MOE_LEVEL v4
#include "lib/checkpoint/quant/dots_rows.h"

const moe::quant::DotsTable moe::quant::dots_v4 = moe::quant::v4::table;
