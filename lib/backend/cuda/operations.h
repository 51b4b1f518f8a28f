// The operations of Backend<float> for a device, written once over an engine: memory, a way to run
// a body for each number or each row, BLAS products, and a stable sort. The engine of cuda.cu is a
// GPU; the tests have one on the host, under which the same bodies, index arithmetic and BLAS calls
// meet the definition on machines without a GPU. An engine has
//   allocate, release, to_device, to_host, zero   as in Memory
//   wait(doing)          until all of that is done; an error message names `doing`
//   each(name, n, body)  body(i) for i < n, in any order; trivially copyable, callable on the
//   device rows(name, n, body)  body(r, group) for r < n, the lanes of a group together gemm(call,
//   types), gemm_group(calls, types) sort_choices(kept, n, experts, key, choice, offset)   as in
//   plan.h weight_budget()      bytes for converted copies of weights
// What it does not override runs by the definition on host copies.
#pragma once
#include "lib/backend/cuda/operations_heads.h"
#include "lib/backend/cuda/operations_products.h"
#include "lib/backend/cuda/operations_rows.h"
