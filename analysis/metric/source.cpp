// Rows in memory, handed out in slices.
#include "analysis/metric/source.h"

namespace moe {
namespace {

template <class T>
std::vector<T> cut(const std::vector<T>& all, std::size_t first, std::size_t count) {
  if (all.empty())
    return {};
  return {all.begin() + std::ptrdiff_t(first), all.begin() + std::ptrdiff_t(first + count)};
}

template <class T>
Matrix<T> cut(const Matrix<T>& all, std::size_t first, std::size_t count) {
  if (all.empty())
    return {};
  Matrix<T> out(Index(count), all.cols());
  const auto from =
      all.flat().subspan(first * std::size_t(all.cols()), count * std::size_t(all.cols()));
  std::copy(from.begin(), from.end(), out.data());
  return out;
}

LayerRows cut(const LayerRows& all, std::size_t first, std::size_t count,
              const TraceFields& wanted) {
  LayerRows out;
  out.expert = cut(all.expert, first, count);
  if (wanted.weights)
    out.weight = cut(all.weight, first, count);
  if (wanted.dropped)
    out.dropped = cut(all.dropped, first, count);
  if (wanted.kept)
    out.kept = cut(all.kept, first, count);
  if (wanted.predicted)
    out.predicted = cut(all.predicted, first, count);
  if (wanted.entropy)
    out.entropy = cut(all.entropy, first, count);
  if (wanted.margin)
    out.margin = cut(all.margin, first, count);
  if (wanted.logsumexp)
    out.logsumexp = cut(all.logsumexp, first, count);
  if (wanted.logits)
    out.logits = cut(all.logits, first, count);
  if (wanted.out_norm)
    out.out_norm = cut(all.out_norm, first, count);
  return out;
}

}  // namespace

MemoryTrace::MemoryTrace(TraceHeader header, std::vector<TraceSequence> sequences,
                         std::vector<TraceStep> steps, TraceRows rows)
    : header_(std::move(header)),
      sequences_(std::move(sequences)),
      steps_(std::move(steps)),
      rows_(std::move(rows)) {
  fields_ = {false, false, false, false, false, false, false, false, false, false, false};
  for (const LayerRows& l : rows_.layer) {
    fields_.weights |= !l.weight.empty();
    fields_.dropped |= !l.dropped.empty();
    fields_.kept |= !l.kept.empty();
    fields_.predicted |= !l.predicted.empty();
    fields_.entropy |= !l.entropy.empty();
    fields_.margin |= !l.margin.empty();
    fields_.logsumexp |= !l.logsumexp.empty();
    fields_.logits |= !l.logits.empty();
    fields_.out_norm |= !l.out_norm.empty();
  }
  fields_.rank = !rows_.rank.empty();
  fields_.prediction = !rows_.predicted_id.empty();
  fields_.modality = !rows_.modality.empty();
  if (fields_.modality && header_.modalities.empty())
    header_.modalities = modality_names();
}

TraceRows MemoryTrace::read(std::uint64_t first, std::uint64_t count,
                            const TraceFields& wanted) const {
  const std::size_t from = std::min<std::uint64_t>(first, tokens());
  const std::size_t n = std::min<std::uint64_t>(count, tokens() - from);
  TraceRows out;
  out.first = from;
  out.token_id = cut(rows_.token_id, from, n);
  out.position = cut(rows_.position, from, n);
  out.sequence = cut(rows_.sequence, from, n);
  out.step = cut(rows_.step, from, n);
  out.flags = cut(rows_.flags, from, n);
  if (wanted.rank)
    out.rank = cut(rows_.rank, from, n);
  if (wanted.modality)
    out.modality = cut(rows_.modality, from, n);
  if (wanted.prediction) {
    out.predicted_id = cut(rows_.predicted_id, from, n);
    out.target_id = cut(rows_.target_id, from, n);
    out.logprob = cut(rows_.logprob, from, n);
  }
  for (const LayerRows& l : rows_.layer)
    out.layer.push_back(cut(l, from, n, wanted));
  return out;
}

Matrix<std::uint32_t> MemoryTrace::counts(std::uint64_t first, std::uint64_t count) const {
  return cut(header_.counts, first, count);
}

}  // namespace moe
