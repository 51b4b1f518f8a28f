// What expert parallelism sends, and how long an exchange of it takes. Copies are counted as they
// are expected where every choice is equally likely, or with experts of at most some nodes, as
// group-limited routing leaves them (drawn, with a fixed seed).
#pragma once
#include "lib/plan/cluster.h"

namespace moe::plan {

struct ExchangeShape {
  Count experts = 1, k = 1;
  Count ranks = 1;        // of expert parallelism
  Count gpus = 1;         // of them in a node
  Count limit_nodes = 0;  // 0 = all
};

// Of a token: devices and nodes of the expert group that get a row of it, its own included.
struct Copies {
  double devices = 1, nodes = 1;
  double remote_nodes = 0;  // without its own
};
Copies expected_copies(const ExchangeShape&);

// Rows of a token that leave a device over the links of the node, and over the network.
struct Rows {
  double link = 0, net = 0;
};
Rows rows_sent(const ExchangeShape&, Dispatch);

// What kernels reach of the rates that data sheets name.
struct ExchangeRates {
  double link = 0, net = 0;  // bytes/s
};
// Seconds of one exchange of `tokens` rows a device, `row` bytes each: links and network work at
// once, the slower one decides.
double exchange_seconds(const ExchangeShape&, Dispatch, const ExchangeRates&, double tokens,
                        double row);

}  // namespace moe::plan
