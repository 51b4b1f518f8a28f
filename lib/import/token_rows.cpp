// Blocks of tokens: see token_rows.h.
#include "lib/import/token_rows.h"

#include <algorithm>
#include <cmath>

#include "lib/core/text.h"
#include "lib/import/inputs.h"

namespace moe {
namespace {

constexpr std::size_t rows_at_once = 4096;
const char* const as_exported = "the file as moe export wrote it";

bool same_layers(const TokenRow& a, const TokenRow& b) {
  return std::equal(a.layers.begin(), a.layers.end(), b.layers.begin(), b.layers.end(),
                    [](const auto& x, const auto& y) { return x.first == y.first; });
}

void check(const TokenRow& row) {
  const auto within = [&](const char* what, std::int64_t v, std::int64_t least) {
    if (v < least || v > std::int64_t(UINT32_MAX))
      refuse_import(row.where, concat("has the ", what, " ", v), as_exported);
  };
  within("sequence", row.sequence, 0);
  within("position", row.position, 0);
  within("token id", row.token_id, -1);
  if (row.layers.empty())
    refuse_import(row.where, "has no layer with experts", as_exported);
  for (const auto& [layer, slots] : row.layers) {
    const bool fits = (slots.weights.empty() || slots.weights.size() == slots.ids.size()) &&
                      (slots.dropped.empty() || slots.dropped.size() == slots.ids.size());
    if (!fits || slots.ids.empty()) {
      refuse_import(
          row.where,
          concat("has ", slots.ids.size(), " experts in layer ", layer, ", ", slots.weights.size(),
                 " weights and ", slots.dropped.size(), " marks of what was dropped"),
          as_exported);
    }
  }
}

}  // namespace

int flags_of_phase(std::string_view phase) {
  if (phase == "prefill")
    return token_flag::prompt;
  if (phase == "decode")
    return token_flag::decode;
  if (phase == "train")
    return token_flag::train;
  return phase == "eval" || phase.empty() ? 0 : -1;
}

void TokenRows::begin(const TokenRow& row) {
  if (row.sequence < sequence_) {
    refuse_import(row.where,
                  concat("goes on with sequence ", row.sequence, " behind sequence ", sequence_),
                  "rows in the order of their sequences");
  }
  flush();
  begun_ = true;
  sequence_ = row.sequence;
  domain_ = row.domain;
  sink_.sequence(row.domain);
}

// Weights of all choices or of none: a trace has no place for a choice without one among others.
void TokenRows::check_weights(const TokenRow& row) {
  for (const auto& [layer, slots] : row.layers) {
    const bool weighed = !slots.weights.empty();
    if (known_ && weighed != weighed_) {
      refuse_import(row.where,
                    concat("has ", weighed ? "" : "no ", "weights in layer ", layer,
                           ", unlike the choices before it"),
                    "weights of all choices, or of none");
    }
    known_ = true;
    weighed_ = weighed;
  }
}

void TokenRows::add(TokenRow&& row) {
  check(row);
  check_weights(row);
  if (!begun_ || row.sequence != sequence_)
    begin(row);
  if (row.domain != domain_) {
    refuse_import(row.where,
                  concat("is of domain ", in_quotes(row.domain), ", and its sequence began in ",
                         in_quotes(domain_)),
                  "one domain a sequence");
  }
  if (rows_.size() == rows_at_once || (!rows_.empty() && !same_layers(rows_.front(), row)))
    flush();
  rows_.push_back(std::move(row));
}

void TokenRows::fill(LayerRows& out, int layer) const {
  std::size_t choices = 0;
  bool dropped = false;
  for (const TokenRow& row : rows_) {
    const TokenRow::Slots& s = row.layers.at(layer);
    choices = std::max(choices, s.ids.size());
    dropped = dropped || !s.dropped.empty();
  }
  const auto n = Index(rows_.size());
  const auto k = Index(choices);
  out.expert = Matrix<int>(n, k, -1);
  if (weighed_)
    out.weight = Matrix<float>(n, k, std::nanf(""));
  if (dropped)
    out.dropped = Matrix<std::uint8_t>(n, k);
  for (Index t = 0; t < n; ++t) {
    const TokenRow::Slots& s = rows_[t].layers.at(layer);
    std::copy(s.ids.begin(), s.ids.end(), out.expert.row(t).begin());
    if (weighed_)
      std::copy(s.weights.begin(), s.weights.end(), out.weight.row(t).begin());
    if (dropped)
      std::copy(s.dropped.begin(), s.dropped.end(), out.dropped.row(t).begin());
  }
}

void TokenRows::flush() {
  if (rows_.empty())
    return;
  ImportBlock b;
  b.where = rows_.front().where;
  bool known = false;
  for (const TokenRow& row : rows_) {
    b.rows.position.push_back(std::uint32_t(row.position));
    b.rows.flags.push_back(row.flags);
    b.rows.token_id.push_back(row.token_id < 0 ? withheld_token : std::uint32_t(row.token_id));
    b.rows.modality.push_back(sink_.modality(row.modality));
    known = known || row.token_id >= 0;
  }
  if (std::ranges::all_of(b.rows.modality, [](auto m) { return m == modality::unknown; }))
    b.rows.modality.clear();
  if (!known)
    b.rows.token_id.clear();
  for (const auto& [layer, slots] : rows_.front().layers) {
    b.layers.push_back(layer);
    fill(b.rows.layer.emplace_back(), layer);
  }
  sink_.rows(std::move(b));
  rows_.clear();
}

}  // namespace moe
