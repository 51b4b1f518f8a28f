// Lanes: the chains of micro-batches that a step is made of, whoever computes them. A lane adds the
// gradients of its micro-batches one after the other; the step's gradient is the sum over lanes in
// a fixed tree. So a run with L lanes has the same bytes on any number of ranks up to L.
//
// The tree over n lanes: left those up to the largest power of two below n, right the others, each
// a tree of its own; left + right.
#pragma once
#include <utility>
#include <vector>

#include "lib/backend/backend.h"

namespace moe {

struct Lanes {  // a stretch of lanes
  Index first = 0, count = 0;
  Index end() const {
    return first + count;
  }
  bool operator==(const Lanes&) const = default;
};

// Those that rank r of R computes: from floor(r L / R) on.
Lanes lanes_of_rank(int rank, int ranks, Index lanes);
// The two parts of a node of the tree (count > 1).
std::pair<Lanes, Lanes> parts_of(Lanes node);
// The largest nodes of the tree over all `lanes` that lie inside a stretch, from left to right.
std::vector<Lanes> nodes_inside(Index lanes, Lanes stretch);

// Gradients of parameters, by nodes of the tree, as lanes come in: two that are the halves of a
// node become one at once, so that few are kept.
class LaneSums {
 public:
  struct Node {
    Lanes lanes;
    std::vector<Array<float>> gradient;  // one a parameter
  };
  LaneSums(Backend<float>& backend, Index lanes) : backend_(backend), lanes_(lanes) {}

  void add(Index lane, std::vector<Array<float>> gradient);
  // What is there, from left to right; nothing is left.
  std::vector<Node> take();

 private:
  bool joined();

  Backend<float>& backend_;
  Index lanes_;
  std::vector<Node> nodes_;
};

}  // namespace moe
