// bf16 products where oneDNN is missing: there are none.
#include "lib/backend/gemm_half.h"
#include "lib/core/error.h"

namespace moe {

std::string no_half_products() {
  return "this build has no oneDNN, which makes them";
}

void gemm(Index, Index, Index, HalfOperand, HalfOperand, float, float*, Index) {
  throw Error(Exit::bug, "a bf16 product in a build that has none");
}

}  // namespace moe
