#include "lib/core/parallel.h"

#include <omp.h>

#include <algorithm>
#include <exception>

namespace moe {
namespace {
int& wanted() {
  static int n = omp_get_max_threads();
  return n;
}
}  // namespace

int threads() { return wanted(); }
void set_threads(int n) { omp_set_num_threads(wanted() = std::max(1, n)); }

OneThread::OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
OneThread::~OneThread() { omp_set_num_threads(before_); }

void parallel_for(Index count, Index grain, const std::function<void(Index, Index)>& body) {
  const Index pieces = (count + grain - 1) / grain;
  if (pieces <= 1 || wanted() == 1 || omp_in_parallel()) {
    for (Index i = 0; i < pieces; ++i) body(i * grain, std::min(count, (i + 1) * grain));
    return;
  }
  std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic, 1) num_threads(wanted())
  for (Index i = 0; i < pieces; ++i) {
    try {
      body(i * grain, std::min(count, (i + 1) * grain));
    } catch (...) {
#pragma omp critical(moe_parallel_failure)
      if (!failure) failure = std::current_exception();
    }
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace moe
