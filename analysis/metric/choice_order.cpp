#include "analysis/metric/choice_order.h"

#include <algorithm>

#include "analysis/metric/metric.h"

namespace moe {
namespace {

constexpr std::uint64_t rows_looked_at = 4096;
constexpr double nearly_all = 0.99;
constexpr std::int64_t enough = 100;  // random orders of two choices rise in half of the rows

bool one_choice(const TraceHeader& h) {
  return std::ranges::all_of(h.layers, [](const TraceLayer& l) { return l.top_k <= 1; });
}

struct Rising {
  std::int64_t rows = 0, rising = 0;  // of two choices and more
};

void count_row(std::span<const int> ids, Rising& out) {
  std::vector<int> chosen(ids.begin(), ids.end());
  std::erase_if(chosen, [](int e) { return e < 0; });
  if (chosen.size() < 2)
    return;
  ++out.rows;
  out.rising += std::ranges::is_sorted(chosen, std::less_equal<>());
}

bool rows_rise(const TraceSource& trace) {
  Rising seen;
  const std::uint64_t n = std::min(rows_looked_at, trace.tokens());
  if (n == 0)
    return false;
  const TraceRows rows = trace.read(0, n, no_fields);
  for (const LayerRows& layer : rows.layer) {
    for (Index t = 0; t < layer.expert.rows(); ++t) {
      if (rows.valid(std::size_t(t)))
        count_row(layer.expert.row(t), seen);
    }
  }
  return seen.rows >= enough && double(seen.rising) >= nearly_all * double(seen.rows);
}

}  // namespace

ChoiceOrder choice_order(const TraceSource& trace) {
  const TraceHeader& header = trace.header();
  const std::string& order = header.order;
  // the first choice of a made-up token is the one that its pattern drew first
  const bool drawn = header.engine == "synthetic";
  if (drawn || order == "key_desc" || order == "weight_desc" || one_choice(header))
    return ChoiceOrder::ranked;
  if (order == "id_asc" || rows_rise(trace))
    return ChoiceOrder::by_id;
  return ChoiceOrder::listed;
}

std::string remark_on(ChoiceOrder order) {
  switch (order) {
    case ChoiceOrder::ranked:
      return "";
    case ChoiceOrder::listed:
      return "the trace does not promise an order of choices: \"first choice\" is the one listed "
             "first, which need not have had the largest score";
    case ChoiceOrder::by_id:
      return "choices are listed by expert id, so that no token's first choice is known: figures "
             "of first choices are left out";
  }
  return "";
}

}  // namespace moe
