#include "lib/model/lanes.h"

#include <algorithm>
#include <bit>

namespace moe {

Lanes lanes_of_rank(int rank, int ranks, Index lanes) {
  const Index first = rank * lanes / ranks;
  return {first, (rank + 1) * lanes / ranks - first};
}

std::pair<Lanes, Lanes> parts_of(Lanes node) {
  const Index left = Index(std::bit_ceil(std::uint64_t(node.count)) / 2);
  return {{node.first, left}, {node.first + left, node.count - left}};
}

namespace {

void collect_nodes(Lanes node, Lanes stretch, std::vector<Lanes>& out) {
  if (node.count == 0 || node.end() <= stretch.first || stretch.end() <= node.first)
    return;
  if (stretch.first <= node.first && node.end() <= stretch.end()) {
    out.push_back(node);
    return;
  }
  const auto [left, right] = parts_of(node);
  collect_nodes(left, stretch, out);
  collect_nodes(right, stretch, out);
}

// Whether the two are the halves of one node.
bool make_a_node(Lanes all, Lanes left, Lanes right) {
  while (all.count > 1) {
    const auto [a, b] = parts_of(all);
    if (a == left && b == right)
      return true;
    all = left.first >= b.first ? b : a;
    if (left.first < all.first || right.end() > all.end())
      return false;
  }
  return false;
}

}  // namespace

std::vector<Lanes> nodes_inside(Index lanes, Lanes stretch) {
  std::vector<Lanes> out;
  collect_nodes({0, lanes}, stretch, out);
  return out;
}

void LaneSums::add(Index lane, std::vector<Array<float>> gradient) {
  const auto behind =
      std::ranges::find_if(nodes_, [&](const Node& n) { return n.lanes.first > lane; });
  nodes_.insert(behind, Node{{lane, 1}, std::move(gradient)});
  while (joined()) {
  }
}

// Makes one node of two that are its halves, where there are any.
bool LaneSums::joined() {
  for (std::size_t i = 0; i + 1 < nodes_.size(); ++i) {
    Node& left = nodes_[i];
    Node& right = nodes_[i + 1];
    if (!make_a_node({0, lanes_}, left.lanes, right.lanes))
      continue;
    for (std::size_t p = 0; p < left.gradient.size(); ++p)
      backend_.add(std::as_const(right.gradient[p]).view(), left.gradient[p].view(), 1);
    left.lanes.count += right.lanes.count;
    nodes_.erase(nodes_.begin() + std::ptrdiff_t(i) + 1);
    return true;
  }
  return false;
}

std::vector<LaneSums::Node> LaneSums::take() {
  return std::exchange(nodes_, {});
}

}  // namespace moe
