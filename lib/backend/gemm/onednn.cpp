// Products by oneDNN, which writes its inner loops at run time for the processor it finds.
#include <dnnl.h>

#include "lib/backend/gemm.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/text.h"

namespace moe {

void gemm(Index m, Index n, Index k, Operand a, Operand b, float beta, float* c, Index c_step) {
  if (detail::gemm_trivial(m, n, k, beta, c, c_step))
    return;
  const OneThread alone;  // the order of its sums must not depend on how many threads there are
  const dnnl_status_t status = dnnl_sgemm(char(a.op), char(b.op), m, n, k, 1, a.data, a.step,
                                          b.data, b.step, beta, c, c_step);
  if (status == dnnl_out_of_memory) {
    throw Error(Exit::memory,
                concat("oneDNN found no memory for a product of ", m, " x ", n, " x ", k));
  }
  if (status != dnnl_success) {
    throw Error(Exit::bug, concat("oneDNN refused a product of ", m, " x ", n, " x ", k,
                                  " (status ", int(status), ")"));
  }
}

std::string_view gemm_library() {
  static const std::string name = [] {
    const dnnl_version_t* v = dnnl_version();
    return concat("oneDNN ", v->major, ".", v->minor, ".", v->patch);
  }();
  return name;
}

}  // namespace moe
