#include "lib/model/mixer.h"

#include "lib/core/batch.h"
#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {

Matrix<int> positions(const Batch& batch, std::span<const Index> state) {
  Matrix<int> at(1, batch.tokens());
  for (std::size_t q = 0; q + 1 < batch.start.size(); ++q) {
    const Index past =
        state.empty() ? (batch.past.empty() ? 0 : batch.past[q]) : state[q + 1] - state[q];
    for (Index t = batch.start[q]; t < batch.start[q + 1]; ++t)
      at(0, t) = int(past + t - batch.start[q]);
  }
  return at;
}

std::vector<Index> grown(const Batch& batch, std::span<const Index> start) {
  if (start.size() != batch.start.size()) {
    throw Error(Exit::bug, concat("a state of ", start.size() - 1,
                                  " sequences was given a batch of ", batch.sequences()));
  }
  std::vector<Index> after(start.begin(), start.end());
  for (std::size_t q = 0; q < after.size(); ++q)
    after[q] += batch.start[q];
  for (std::size_t q = 0; q < batch.past.size(); ++q) {
    if (batch.past[q] != start[q + 1] - start[q]) {
      throw Error(Exit::bug, concat("sequence ", q, " has ", start[q + 1] - start[q],
                                    " tokens in the state and the batch says ", batch.past[q]));
    }
  }
  return after;
}

}  // namespace moe
