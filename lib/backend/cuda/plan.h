// The sort behind every plan, written once with Thrust and an execution policy: the GPU runs it
// under thrust::cuda, the tests under OpenMP. Stable, so inside an expert choices stay in the order
// of tokens, then ranks.
#pragma once
#include <thrust/binary_search.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/sequence.h>
#include <thrust/sort.h>
#include <thrust/transform.h>

#include "lib/core/view.h"

namespace moe::gpu {

struct KeyOf {  // not computed = after all experts
  int experts;
  MOE_HD int operator()(int expert) const {
    return expert < 0 ? experts : expert;
  }
};

// key (n): the experts in order; choice (n): the places in `kept` they stood at; offset
// (experts+1): where each expert begins.
template <class Policy>
void sort_choices(const Policy& policy, const int* kept, Index n, int experts, int* key,
                  int* choice, int* offset) {
  thrust::transform(policy, kept, kept + n, key, KeyOf{experts});
  thrust::sequence(policy, choice, choice + n);
  thrust::stable_sort_by_key(policy, key, key + n, choice);
  const thrust::counting_iterator<int> first(0);
  thrust::lower_bound(policy, key, key + n, first, first + experts + 1, offset);
}

}  // namespace moe::gpu
