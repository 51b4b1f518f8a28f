#include "apps/balance_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lib/balance/conventions.h"
#include "lib/core/error.h"
#include "lib/core/rng.h"
#include "lib/core/text.h"
#include "lib/trace/reader.h"

namespace moe {
namespace {

// Normal logits of size 1; expert e of layer l leans by -skew ln(rank), the ranks turned on from
// layer to layer.
RoutedBatch drawn(const BalanceValues& o) {
  if (o.sequences > o.tokens) {
    throw Error(Exit::usage,
                concat("--sequences ", o.sequences, " is more than --tokens ", o.tokens));
  }
  RoutedBatch b;
  b.k = o.k;
  for (int q = 0; q <= o.sequences; ++q)
    b.start.push_back(Index(o.tokens) * q / o.sequences);
  for (int l = 0; l < o.layers; ++l) {
    Rng rng = Rng(o.seed).stream(std::uint64_t(l));
    Matrix<double>& z = b.logits.emplace_back(o.tokens, o.experts);
    for (Index t = 0; t < z.rows(); ++t) {
      for (int e = 0; e < o.experts; ++e) {
        z(t, e) = rng.normal() -
                  o.skew * std::log(1.0 + (e + l * std::max(1, o.experts / o.layers)) % o.experts);
      }
    }
  }
  return b;
}

// Rows of the trace that are no padding, and where the sequences among them begin.
struct ValidRows {
  std::vector<Index> row;
  std::vector<Index> start = {0};
};

ValidRows valid_rows(const TraceReader& trace, const TraceRows& rows, std::uint64_t count) {
  ValidRows out;
  for (const TraceSequence& q : trace.sequences()) {
    for (std::uint64_t t = q.start; t < std::min(q.start + q.length, count); ++t) {
      if (!(rows.flags[t] & token_flag::padding))
        out.row.push_back(Index(t));
    }
    if (Index(out.row.size()) > out.start.back())
      out.start.push_back(Index(out.row.size()));
  }
  return out;
}

Matrix<double> logits_of(const std::string& file, const LayerRows& layer, Index experts,
                         const std::vector<Index>& rows) {
  Matrix<double> z(Index(rows.size()), experts);
  for (Index t = 0; t < z.rows(); ++t) {
    for (Index e = 0; e < z.cols(); ++e) {
      z(t, e) = double(layer.logits(rows[t], e));
      if (!std::isfinite(z(t, e))) {
        throw Error(Exit::input, concat("'", file, "': a logit of row ", rows[t], " is not finite"))
            .hint(
                "moe trace --logits records every row; a file with the logits of some rows only "
                "cannot be used here");
      }
    }
  }
  return z;
}

RoutedBatch read(const BalanceValues& o) {
  const TraceReader trace(o.trace);
  if (!trace.fields().logits) {
    throw Error(Exit::input,
                concat("'", o.trace, "' has no logits, which balance losses are computed from"))
        .hint("moe trace ... --logits records them");
  }
  const auto count = std::min<std::uint64_t>(trace.tokens(), std::uint64_t(o.tokens));
  const TraceRows rows = trace.read(0, count,
                                    {.weights = false,
                                     .dropped = false,
                                     .entropy = false,
                                     .margin = false,
                                     .logsumexp = false,
                                     .logits = true});
  const ValidRows valid = valid_rows(trace, rows, count);
  RoutedBatch b;
  b.k = trace.header().max_choices();
  b.start = valid.start;
  for (std::size_t l = 0; l < rows.layer.size(); ++l) {
    b.logits.push_back(
        logits_of(o.trace, rows.layer[l], trace.header().layers[l].experts, valid.row));
  }
  return b;
}

Table values_table(const std::vector<Convention>& all) {
  std::vector<std::string> name, systems, formula;
  std::vector<double> value, at_balance, factor, coefficient;
  for (const Convention& c : all) {
    name.push_back(c.name);
    systems.push_back(c.systems);
    formula.push_back(c.formula);
    value.push_back(c.value);
    at_balance.push_back(c.at_balance);
    factor.push_back(c.value / all[0].value);
    coefficient.push_back(0.01 * all[0].at_balance / c.at_balance);
  }
  Table t{.id = "balance_values", .title = "What each system reports for the same choices"};
  t.reading =
      "n: choices of an expert, n1: first choices, T tokens, L layers, P mean probability (softmax "
      "over all experts where nothing else is said). Values are without coefficient; DeepSpeed, "
      "Tutel, SonicMoE and st-moe return one a layer, added here. Read from their sources; none of "
      "them was run.";
  t.columns = {{.name = "convention", .cells = name},
               {.name = "value", .meaning = "of this batch", .cells = value, .digits = 4},
               {.name = "factor",
                .unit = "x",
                .meaning = "value / the first row",
                .cells = factor,
                .digits = 4},
               {.name = "at balance",
                .meaning = "where every expert gets the same",
                .cells = at_balance,
                .digits = 4},
               {.name = "coefficient",
                .meaning = "equivalent to 0.01 of the first row: equal at balance",
                .cells = coefficient,
                .digits = 5},
               {.name = "systems", .cells = systems},
               {.name = "formula", .cells = formula}};
  return t;
}

}  // namespace

Report balance_values(const BalanceValues& o) {
  const RoutedBatch batch = o.trace.empty() ? drawn(o) : read(o);
  const auto all = balance_conventions(batch);
  const auto [least, most] = std::ranges::minmax_element(all, {}, &Convention::value);
  Report report{.title = fmt::format("One batch, {} balance losses: from {:.4g} to {:.4g}",
                                     all.size(), least->value, most->value)};
  report.facts = {
      {"batch", o.trace.empty() ? fmt::format("drawn, skew {}, seed {}", o.skew, o.seed) : o.trace},
      {"size", fmt::format("{} tokens in {} sequences, {} layers, {} experts, k = {}",
                           batch.logits[0].rows(), batch.start.size() - 1, batch.logits.size(),
                           batch.logits[0].cols(), batch.k)}};
  report.tables.push_back(values_table(all));
  return report;
}

}  // namespace moe
