// Published exchanges, and what they say of links and networks.
#include <cmath>

#include "lib/plan/fit.h"

namespace moe::plan {
namespace {

constexpr Count net_from = 4;  // nodes: at two the links decide

double counted_rows(const PublishedExchange& e) {
  const Copies c = expected_copies(e.shape);
  return e.shape.ranks > e.shape.gpus ? c.nodes : c.devices;
}
Count nodes_of(const PublishedExchange& e) {
  return e.shape.ranks / e.shape.gpus;
}

// Mean over rows of published seconds times rate over bytes sent.
double mean_factor(const PublishedExchange* without, bool net) {
  double sum = 0;
  double n = 0;
  for (const PublishedExchange& e : published_exchanges()) {
    if (&e == without || (net ? nodes_of(e) < net_from : nodes_of(e) > 1))
      continue;
    // the two directions of one size are one measurement as far as leaving out goes
    if (without && without->shape.ranks == e.shape.ranks)
      continue;
    const Device d = device_of(e.device);
    const Rows rows = rows_sent(e.shape, Dispatch::node);
    const double least = (net ? rows.net / d.net : rows.link / d.link) * e.tokens * e.row;
    sum += std::log(e.seconds() / least);
    n += 1;
  }
  return n > 0 ? std::exp(sum / n) : 1;
}

}  // namespace

const std::vector<PublishedExchange>& published_exchanges() {
  static const std::vector<PublishedExchange> all{
#define EXCHANGE(device, experts, k, ranks, gpus, limit, tokens, row, rate, source) \
  {device, {experts, k, ranks, gpus, limit}, tokens, row, rate, source},
#include "lib/plan/all_to_all_runs.def"
#undef EXCHANGE
  };
  return all;
}

double PublishedExchange::seconds() const {
  return counted_rows(*this) * tokens * row / rate;
}

ExchangeFactors exchange_factors(const PublishedExchange* without) {
  return {mean_factor(without, false), mean_factor(without, true)};
}

double predicted_seconds(const PublishedExchange& e, const ExchangeFactors& f) {
  const Device d = device_of(e.device);
  return exchange_seconds(e.shape, Dispatch::node, {d.link / f.link, d.net / f.net}, e.tokens,
                          e.row);
}

}  // namespace moe::plan
