#include "lib/layer/crossing_way.h"

#include <algorithm>

namespace moe {

std::vector<int> CrossingWay::on_node(int node, int ranks) const {
  std::vector<int> out;
  for (int r = 0; r < ranks; ++r) {
    if (node_of(r) == node)
      out.push_back(r);
  }
  return out;
}

int CrossingWay::relay(int home, int node, int ranks) const {
  const std::vector<int> own = on_node(node_of(home), ranks);
  const std::vector<int> there = on_node(node, ranks);
  const auto place = std::size_t(std::ranges::find(own, home) - own.begin());
  return there[place % there.size()];
}

CrossedRows& CrossedRows::operator+=(const CrossedRows& o) {
  tokens += o.tokens;
  choices += o.choices;
  near += o.near;
  far += o.far;
  back_near += o.back_near;
  back_far += o.back_far;
  return *this;
}

}  // namespace moe
