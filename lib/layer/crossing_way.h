// How rows of tokens cross to experts on several ranks: what travels, how often a token's row goes
// where several of its experts are, and who hands it on.
#pragma once
#include <cstdint>
#include <vector>

#include "lib/core/view.h"

namespace moe {

enum class Move { tokens, weights };
// Of a token that chose several experts: a row for every choice; one to each rank that has some of
// them; or one to each node, where a rank hands it on to the others. Copies alone, so that nothing
// that is computed changes.
enum class Send { rows, once, nodes };

struct CrossingWay {
  Move move = Move::tokens;
  Send send = Send::rows;
  std::vector<int> nodes = {};  // (ranks of the group) the node of each; empty = all on one

  int node_of(int rank) const {
    return nodes.empty() ? 0 : nodes[std::size_t(rank)];
  }
  std::vector<int> on_node(int node, int ranks) const;
  // Of a node the rank that rows of `home` go to first: that of the same place among its own, so
  // that each hands on its share.
  int relay(int home, int node, int ranks) const;
  // Whether rows of `home` come to `here` for all of its node.
  bool hands_on(int home, int here, int ranks) const {
    return send == Send::nodes && node_of(home) != node_of(here) &&
           relay(home, node_of(here), ranks) == here;
  }
  // Whether rows of `home` that `there` computes go straight to it.
  bool straight(int home, int there) const {
    return send != Send::nodes || node_of(home) == node_of(there);
  }
};

// Where rows of tokens go of which none goes twice; crossing_once.cpp.
struct CrossingRoute {
  // (ranks) rows of the home that go there first, one a token
  std::vector<std::vector<Index>> first;
  // (ranks) how many such rows come from there
  std::vector<Index> coming;
  // (ranks)(ranks) of the rows that come from a rank of another node, those that each rank of this
  // node is handed
  std::vector<std::vector<std::vector<Index>>> on;
  // (ranks) of each row that is computed here for that rank, its place among the different ones,
  // and how many these are
  std::vector<std::vector<Index>> place;
  std::vector<Index> different;
};

// Rows of tokens in forward passes of training. A row that another rank hands on counts twice.
struct CrossedRows {
  std::int64_t tokens = 0, choices = 0;  // of tokens of this rank, what experts computed
  // rows that this rank sent to others, towards experts and back home: to ranks of its node, and to
  // other nodes
  std::int64_t near = 0, far = 0, back_near = 0, back_far = 0;

  CrossedRows& operator+=(const CrossedRows&);
};

}  // namespace moe
