// Rows of a pass until its layers begin again: see pass_gather.h.
#include "lib/import/pass_gather.h"

#include <algorithm>
#include <cmath>

#include "lib/core/text.h"
#include "lib/import/inputs.h"

namespace moe {
namespace {

const char* const as_written = "one recording a file, as its engine wrote it";

}  // namespace

void PassGather::add(GatheredRow&& row) {
  if (row.layer < layer_)
    flush();
  layer_ = row.layer;
  Layer& layer = layers_[row.layer];
  if (layers_.size() == 1 && !layer.rows.count(row.token))
    order_.push_back(row.token);
  const std::int64_t token = row.token;
  const std::string where = row.where;
  if (!layer.rows.try_emplace(token, std::move(row)).second)
    refuse_import(where, concat("has token ", token, " a second time in layer ", layer_),
                  as_written);
}

// Every token in every layer, and as many choices each.
void PassGather::check() const {
  const int last = layers_.rbegin()->first;
  for (const auto& [number, layer] : layers_) {
    const std::string& where = layer.rows.begin()->second.where;
    for (const std::int64_t token : order_) {
      if (!layer.rows.count(token) && !(last_may_lack_ && number == last)) {
        refuse_import(where,
                      concat("and the lines behind it have no token ", token, " in layer ", number,
                             ", which other layers have"),
                      as_written);
      }
    }
    for (const auto& [token, row] : layer.rows) {
      if (!layers_.begin()->second.rows.count(token)) {
        refuse_import(row.where,
                      concat("has token ", token, " in layer ", number, ", which layer ",
                             layers_.begin()->first, " does not have"),
                      as_written);
      }
    }
  }
}

void PassGather::fill(LayerRows& out, const Layer& layer, Index choices) const {
  const auto rows = Index(order_.size());
  const GatheredRow& first = layer.rows.begin()->second;
  out.expert = Matrix<int>(rows, choices, -1);
  const bool weighed = std::all_of(layer.rows.begin(), layer.rows.end(),
                                   [](const auto& row) { return !row.second.weights.empty(); });
  if (weighed)
    out.weight = Matrix<float>(rows, choices, std::nanf(""));
  if (!first.dropped.empty())
    out.dropped = Matrix<std::uint8_t>(rows, choices);
  for (Index t = 0; t < rows; ++t) {
    const auto at = layer.rows.find(order_[t]);
    if (at == layer.rows.end())
      continue;
    const GatheredRow& row = at->second;
    std::copy(row.ids.begin(), row.ids.end(), out.expert.row(t).begin());
    if (!out.weight.empty() && row.weights.size() == row.ids.size())
      std::copy(row.weights.begin(), row.weights.end(), out.weight.row(t).begin());
    if (!out.dropped.empty() && row.dropped.size() == row.ids.size())
      std::copy(row.dropped.begin(), row.dropped.end(), out.dropped.row(t).begin());
  }
}

void PassGather::flush() {
  if (layers_.empty())
    return;
  check();
  std::size_t choices = 0;
  for (const auto& [number, layer] : layers_) {
    for (const auto& [token, row] : layer.rows)
      choices = std::max(choices, row.ids.size());
  }
  ImportBlock b;
  b.where = layers_.begin()->second.rows.at(order_.front()).where;
  for (const auto& [number, layer] : layers_) {
    b.layers.push_back(number);
    fill(b.rows.layer.emplace_back(), layer, Index(choices));
    if (layer.rows.size() < order_.size())
      sink_.say("the last layer of a prompt has rows only for tokens whose logits were asked for");
  }
  for (const std::int64_t token : order_) {
    b.rows.position.push_back(std::uint32_t(token));
    b.rows.flags.push_back(layers_.begin()->second.rows.at(token).flags);
  }
  sink_.rows(std::move(b));
  layers_.clear();
  order_.clear();
  layer_ = -1;
}

}  // namespace moe
