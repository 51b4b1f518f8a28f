#include "analysis/metric/stack_trace.h"

#include <algorithm>

#include "lib/core/text.h"

namespace moe {
namespace {

constexpr std::uint64_t rows_at_once = 1 << 16;
constexpr std::uint32_t elsewhere = 0xFFFFFFFFu;  // a sequence of the other stack

TraceFields no_fields() {
  return {
      .weights = false, .dropped = false, .entropy = false, .margin = false, .logsumexp = false};
}

template <class T>
void add(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}
template <class T>
void add(Matrix<T>& to, const Matrix<T>& from) {
  if (from.empty())
    return;
  Matrix<T> both(to.rows() + from.rows(), from.cols());
  std::ranges::copy(to.flat(), both.data());
  std::ranges::copy(from.flat(), both.data() + to.size());
  to = std::move(both);
}
void add(LayerRows& to, const LayerRows& from) {
  add(to.expert, from.expert);
  add(to.weight, from.weight);
  add(to.dropped, from.dropped);
  add(to.kept, from.kept);
  add(to.predicted, from.predicted);
  add(to.entropy, from.entropy);
  add(to.margin, from.margin);
  add(to.logsumexp, from.logsumexp);
  add(to.logits, from.logits);
  add(to.out_norm, from.out_norm);
}

// Those of the layers that are kept, one a layer or none at all.
template <class T>
std::vector<T> chosen(const std::vector<T>& all, const std::vector<std::size_t>& layers) {
  std::vector<T> out;
  for (const std::size_t l : layers) {
    if (l < all.size())
      out.push_back(all[l]);
  }
  return out;
}

}  // namespace

StackTrace::StackTrace(const TraceSource& trace, bool encoder)
    : trace_(trace), encoder_(encoder), header_(trace.header()) {
  const TraceHeader& whole = trace.header();
  for (std::size_t l = 0; l < whole.layers.size(); ++l) {
    if (whole.layers[l].encoder == encoder)
      layers_.push_back(l);
  }
  header_.layers = chosen(whole.layers, layers_);
  header_.router_weight = chosen(whole.router_weight, layers_);
  header_.router_bias = chosen(whole.router_bias, layers_);
  for (PairMatrix& pairs : header_.pairs)
    pairs.layer = chosen(pairs.layer, layers_);
  find_rows();
}

void StackTrace::find_rows() {
  number_.assign(trace_.sequences().size(), elsewhere);
  steps_ = trace_.steps();
  for (TraceStep& s : steps_)
    s.num_tokens = 0;
  for (std::uint64_t first = 0; first < trace_.tokens(); first += rows_at_once) {
    const std::uint64_t count = std::min(rows_at_once, trace_.tokens() - first);
    const TraceRows rows = trace_.read(first, count, no_fields());
    for (std::size_t t = 0; t < rows.tokens(); ++t) {
      const bool source = (rows.flags[t] & token_flag::source) != 0;
      if (source != encoder_)
        continue;
      const std::uint64_t row = rows.first + t;
      if (stretches_.empty() || stretches_.back().from + stretches_.back().count != row)
        stretches_.push_back({row, 0, tokens_});
      ++stretches_.back().count;
      std::uint32_t& number = number_[rows.sequence[t]];
      if (number == elsewhere) {
        number = std::uint32_t(sequences_.size());
        const TraceSequence& whole = trace_.sequences()[rows.sequence[t]];
        sequences_.push_back({tokens_, 0, whole.domain, whole.grid});
      }
      ++sequences_[number].length;
      TraceStep& step = steps_[rows.step[t]];
      if (step.num_tokens++ == 0)
        step.token_start = tokens_;
      ++tokens_;
    }
  }
}

TraceRows StackTrace::read(std::uint64_t first, std::uint64_t count,
                           const TraceFields& wanted) const {
  TraceRows out;
  out.first = std::min(first, tokens_);
  out.layer.resize(layers_.size());
  const std::uint64_t end = std::min(tokens_, out.first + std::min(count, tokens_ - out.first));
  auto at = std::ranges::upper_bound(stretches_, out.first, {}, &Stretch::to);
  for (at = at == stretches_.begin() ? at : at - 1; at != stretches_.end() && at->to < end; ++at) {
    const std::uint64_t skip = out.first > at->to ? out.first - at->to : 0;
    const std::uint64_t n = std::min(at->to + at->count, end) - (at->to + skip);
    TraceRows part = trace_.read(at->from + skip, n, wanted);
    for (std::uint32_t& q : part.sequence)
      q = number_[q];
    add(out.token_id, part.token_id);
    add(out.position, part.position);
    add(out.sequence, part.sequence);
    add(out.step, part.step);
    add(out.flags, part.flags);
    add(out.modality, part.modality);
    add(out.rank, part.rank);
    add(out.predicted_id, part.predicted_id);
    add(out.target_id, part.target_id);
    add(out.logprob, part.logprob);
    for (std::size_t l = 0; l < layers_.size(); ++l)
      add(out.layer[l], part.layer[layers_[l]]);
  }
  return out;
}

std::vector<std::string> StackTrace::warnings() const {
  std::vector<std::string> out = trace_.warnings();
  const std::size_t others = trace_.header().layers.size() - layers_.size();
  out.push_back(concat("the trace is of an encoder-decoder: these are the ", layers_.size(),
                       " MoE layers of its ", encoder_ ? "encoder" : "decoder", " and the ",
                       tokens_, " tokens that they routed; --stack ",
                       encoder_ ? "decoder" : "encoder", " shows the other ", others));
  return out;
}

}  // namespace moe
