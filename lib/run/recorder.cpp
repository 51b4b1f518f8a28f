#include "lib/run/recorder.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/layer/router_product.h"
#include "lib/model/config.h"
#include "lib/router/capacity.h"
#include "lib/router/router.h"
#include "lib/router/token_table.h"

namespace moe {
namespace {

constexpr float unlimited = std::numeric_limits<float>::quiet_NaN();

constexpr int not_stated = 255;

ScoreFn score_fn(ScoreFunction f) {
  switch (f) {
    case ScoreFunction::softmax:
      return ScoreFn::softmax;
    case ScoreFunction::sigmoid:
      return ScoreFn::sigmoid;
    case ScoreFunction::sqrt_softplus:
    case ScoreFunction::other:
      break;
  }
  return ScoreFn::other;
}

TraceLayer describe(Decoder<float>& model, int n) {
  MoeLayer<float>& layer = *model.moe_layers()[std::size_t(n)];
  const LayerConfig& c = layer.config();
  const RouterFacts router = layer.router().facts();
  TraceLayer l;
  l.index = model.layer_of(n);
  l.encoder = model.config().in_encoder(l.index);
  l.experts = c.experts;
  l.top_k = router.k;
  l.shared = c.shared_width > 0 ? 1 : 0;
  l.attention = layer.attention() != nullptr;
  l.by_table = capability<TokenTable>(layer.router()) != nullptr;
  l.n_group = router.groups;
  l.topk_group = router.topk_groups;
  l.score_fn = score_fn(router.score);
  l.norm_topk = router.norm_is_option ? int(router.normalised) : not_stated;
  l.routed_scale = float(router.scale);
  l.capacity_factor = layer.capacity().factor() > 0 ? float(layer.capacity().factor()) : unlimited;
  Index numbers = 0;
  const auto& b = layer.expert_parameters();
  for (const auto* p : {&b.gate, &b.up, &b.down, &b.gate_bias, &b.up_bias, &b.down_bias})
    numbers += p->size();
  l.expert_bytes = std::uint64_t(numbers / c.experts) * sizeof(float);
  return l;
}

Matrix<float> as_float(const Matrix<double>& m) {
  Matrix<float> out(m.rows(), m.cols());
  for (Index i = 0; i < m.size(); ++i)
    out.data()[i] = float(m.data()[i]);
  return out;
}

}  // namespace

Matrix<float> output_norms(const MoeTape<float>& tape) {
  const Matrix<float> out = tape.slots.out.to_host();
  const Matrix<int> place = tape.slots.plan.place.to_host();
  Matrix<float> norm(place.rows(), place.cols());
  for (Index i = 0; i < place.size(); ++i) {
    if (place.data()[i] < 0)
      continue;
    double sum = 0;
    for (const float v : out.row(place.data()[i]))
      sum += double(v) * v;
    norm.data()[i] = float(std::sqrt(sum));
  }
  return norm;
}

TraceHeader trace_header(Decoder<float>& model) {
  TraceHeader h;
  h.vocab_size = std::uint32_t(model.config().vocabulary);
  const auto layers = model.moe_layers();
  for (int n = 0; n < int(layers.size()); ++n) {
    h.layers.push_back(describe(model, n));
    // a row of the hidden size for each expert, or nothing to show
    auto& products = layers[std::size_t(n)]->products();
    if (products.empty())
      continue;
    const Parameter<float>& w = products[0].weight();
    if (w.value().rows == layers[std::size_t(n)]->config().experts &&
        w.value().cols == layers[std::size_t(n)]->config().hidden) {
      h.router_weight.push_back(w.to_host());
    }
  }
  if (h.router_weight.size() != layers.size())
    h.router_weight.clear();
  for (auto* layer : layers) {  // what moves the order of keys away from that of the weights
    const auto beta = layer->router().correction_bias();
    if (!beta.empty())
      h.router_bias.emplace_back(beta.begin(), beta.end());
  }
  if (h.router_bias.size() != layers.size())
    h.router_bias.clear();
  h.weight_normalized = !h.layers.empty() && h.layers[0].norm_topk == 1;
  return h;
}

TraceFields trace_fields(Decoder<float>& model) {
  TraceFields f{.weights = true, .dropped = false, .kept = false, .prediction = true};
  for (auto* layer : model.moe_layers()) {
    f.dropped = f.dropped || layer->capacity().limits() || layer->router().facts().may_drop;
    const bool scores = !layer->products().empty();
    f.entropy = f.entropy && scores;
    f.margin = f.margin && scores;
    f.logsumexp = f.logsumexp && scores;
  }
  return f;
}

BatchRows::BatchRows(const Batch& batch, std::uint8_t flags, int boundary) : batch_(batch) {
  const Index tokens = batch.tokens();
  rows_.token_id.assign(batch.token.begin(), batch.token.end());
  rows_.flags.assign(std::size_t(tokens), flags);
  rows_.modality = batch.modality;
  if (rows_.modality.empty())
    rows_.modality.assign(std::size_t(tokens), modality::text);
  rows_.position.resize(std::size_t(tokens));
  for (Index q = 0; q < batch.sequences(); ++q) {
    const Index past = batch.past.empty() ? 0 : batch.past[std::size_t(q)];
    for (Index t = batch.start[std::size_t(q)]; t < batch.start[std::size_t(q) + 1]; ++t)
      rows_.position[std::size_t(t)] = std::uint32_t(past + t - batch.start[std::size_t(q)]);
  }
  for (Index t = 0; t < tokens; ++t) {
    if (!batch.is_valid(t))
      rows_.flags[std::size_t(t)] |= token_flag::padding;
    if (batch.token[std::size_t(t)] == boundary)
      rows_.flags[std::size_t(t)] |= token_flag::special;
  }
  if (batch.source)
    source_ = std::make_unique<BatchRows>(*batch.source, std::uint8_t(flags | token_flag::source),
                                          boundary);
}

void BatchRows::computed_by(int rank) {
  rows_.rank.assign(rows_.token_id.size(), std::uint16_t(rank));
  if (source_)
    source_->computed_by(rank);
}

namespace {

std::vector<float>& sized(std::vector<float>& v, Index rows) {
  v.resize(std::size_t(rows));
  return v;
}

struct ScoreFigures {
  float entropy, margin, logsumexp;
};

// Entropy of what the router believed, its lead of the last choice over the next best expert, and
// the size of its logits, for one token; `sorted` is room to work in.
ScoreFigures figures_of(std::span<const double> belief, std::span<const double> logits,
                        Index choices, std::vector<double>& sorted) {
  double sum = 0;
  double entropy = 0;
  double top = -std::numeric_limits<double>::infinity();
  double exps = 0;
  for (const double v : belief)
    sum += v;
  for (const double v : belief)
    entropy -= v > 0 ? v / sum * std::log(v / sum) : 0;
  for (const double v : logits)
    top = std::max(top, v);
  for (const double v : logits)
    exps += std::exp(v - top);
  sorted.assign(belief.begin(), belief.end());
  const std::size_t k = std::size_t(std::min<Index>(choices, Index(belief.size())));
  const std::size_t best = std::min(k + 1, sorted.size());
  std::ranges::partial_sort(sorted, sorted.begin() + std::ptrdiff_t(best), std::greater{});
  const double next = k < sorted.size() ? sorted[k] : 0;
  return {.entropy = float(entropy),
          .margin = float((sorted[k - 1] - next) / sum),
          .logsumexp = float(top + std::log(exps))};
}

Matrix<std::uint8_t> dropped_choices(const Routing& r) {
  Matrix<std::uint8_t> out(r.tokens(), r.choices());
  for (Index i = 0; i < r.expert.size(); ++i)
    out.data()[i] = r.expert.data()[i] >= 0 && r.computed().data()[i] < 0;
  return out;
}

}  // namespace

void BatchRows::layer(int moe_layer, const MoeTape<float>& tape, const TraceFields& fields,
                      bool encoder) {
  (encoder ? *source_ : *this).set_layer(moe_layer, tape, fields);
}

void BatchRows::set_layer(int moe_layer, const MoeTape<float>& tape, const TraceFields& fields) {
  if (rows_.layer.size() <= std::size_t(moe_layer))
    rows_.layer.resize(std::size_t(moe_layer) + 1);
  LayerRows& out = rows_.layer[std::size_t(moe_layer)];
  const Routing& r = tape.routing;
  out.expert = r.expert;
  if (fields.weights)
    out.weight = as_float(r.weight);
  if (fields.dropped)
    out.dropped = dropped_choices(r);
  if (fields.kept)
    out.kept = r.computed();
  if (fields.out_norm)
    out.out_norm = output_norms(tape);
  if (fields.logits && r.logits.empty())
    throw Error(Exit::usage, "this router has no logits to record").hint("leave --logits out");
  if (fields.logits)
    out.logits = as_float(r.logits);
  if (!r.score.empty())
    score_figures(tape, out);
}

void BatchRows::score_figures(const MoeTape<float>& tape, LayerRows& out) const {
  const Routing& r = tape.routing;
  const Matrix<double>& belief = tape.probability.empty() ? r.score : tape.probability;
  std::vector<float>& entropy = sized(out.entropy, r.tokens());
  std::vector<float>& margin = sized(out.margin, r.tokens());
  std::vector<float>& logsumexp = sized(out.logsumexp, r.tokens());
  parallel_for(r.tokens(), 256, [&](Index first, Index last) {
    std::vector<double> sorted;
    for (Index t = first; t < last; ++t) {
      if (!batch_.is_valid(t))
        continue;
      const ScoreFigures f = figures_of(belief.row(t), r.logits.row(t), r.choices(), sorted);
      entropy[std::size_t(t)] = f.entropy;
      margin[std::size_t(t)] = f.margin;
      logsumexp[std::size_t(t)] = f.logsumexp;
    }
  });
}

void BatchRows::predictions(const Decoder<float>::Tape& tape) {
  const std::size_t tokens = rows_.token_id.size();
  if (source_) {  // nothing is predicted of a source
    const std::size_t rows = source_->rows_.token_id.size();
    source_->rows_.predicted_id.assign(rows, withheld_token);
    source_->rows_.target_id.assign(rows, withheld_token);
    source_->rows_.logprob.assign(rows, 0.0f);
  }
  rows_.predicted_id.resize(tokens);
  rows_.target_id.resize(tokens);
  rows_.logprob.resize(tokens);
  for (std::size_t t = 0; t < tokens; ++t) {
    const int want = batch_.target.empty() ? -1 : batch_.target[t];
    rows_.predicted_id[t] =
        tape.predicted.empty() ? withheld_token : std::uint32_t(tape.predicted(0, Index(t)));
    rows_.target_id[t] = want < 0 ? withheld_token : std::uint32_t(want);
    rows_.logprob[t] = want < 0 ? 0.0f : -tape.token_loss(0, Index(t));
  }
}

namespace {

// Rows [first, first + n) of what may be empty.
template <class T>
std::vector<T> slice(const std::vector<T>& v, Index first, Index n) {
  return v.empty() ? v : std::vector<T>(v.begin() + first, v.begin() + first + n);
}
template <class T>
Matrix<T> slice(const Matrix<T>& m, Index first, Index n) {
  Matrix<T> out(m.empty() ? 0 : n, m.cols());
  if (!m.empty())
    std::ranges::copy(m.view().slice(first, n).flat(), out.data());
  return out;
}
LayerRows slice(const LayerRows& l, Index first, Index n) {
  LayerRows out;
  out.expert = slice(l.expert, first, n);
  out.weight = slice(l.weight, first, n);
  out.dropped = slice(l.dropped, first, n);
  out.kept = slice(l.kept, first, n);
  out.out_norm = slice(l.out_norm, first, n);
  out.logits = slice(l.logits, first, n);
  out.entropy = slice(l.entropy, first, n);
  out.margin = slice(l.margin, first, n);
  out.logsumexp = slice(l.logsumexp, first, n);
  return out;
}
TraceRows slice(const TraceRows& rows, Index first, Index n) {
  TraceRows out;
  out.token_id = slice(rows.token_id, first, n);
  out.position = slice(rows.position, first, n);
  out.flags = slice(rows.flags, first, n);
  out.modality = slice(rows.modality, first, n);
  out.rank = slice(rows.rank, first, n);
  out.predicted_id = slice(rows.predicted_id, first, n);
  out.target_id = slice(rows.target_id, first, n);
  out.logprob = slice(rows.logprob, first, n);
  for (const LayerRows& l : rows.layer)
    out.layer.push_back(slice(l, first, n));
  return out;
}

}  // namespace

namespace {
SignalGrid grid_of(const Batch& batch, Index q) {
  return batch.grid.empty() ? SignalGrid{} : batch.grid[std::size_t(q)];
}
}  // namespace

TraceRows BatchRows::sequence_rows(Index q) const {
  const Index first = batch_.start[std::size_t(q)];
  return slice(rows_, first, batch_.start[std::size_t(q) + 1] - first);
}

std::vector<SequenceRows> BatchRows::sequences() const {
  if (batch_.sequences() == 1 && !batch_.past.empty() && batch_.past[0] > 0)
    return {{.goes_on = true, .rows = rows_}};
  std::vector<SequenceRows> out;
  for (Index q = 0; q < batch_.sequences(); ++q) {
    const int domain = batch_.domain.empty() ? -1 : batch_.domain[std::size_t(q)];
    const std::uint16_t label = domain < 0 ? no_domain : std::uint16_t(domain);
    for (const BatchRows* rows : {static_cast<const BatchRows*>(source_.get()), this}) {
      if (rows) {
        out.push_back(
            {.domain = label, .rows = rows->sequence_rows(q), .grid = grid_of(rows->batch_, q)});
      }
    }
  }
  return out;
}

void append(const std::vector<SequenceRows>& sequences, TraceWriter& writer) {
  for (const SequenceRows& s : sequences) {
    if (!s.goes_on)
      writer.sequence(s.domain, s.grid);
    writer.append(s.rows);
  }
}

}  // namespace moe
