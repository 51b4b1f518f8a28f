// Which rows are kept, and what is in them: see rows.h.
#include "lib/export/rows.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/trace/keep_rows.h"
#include "lib/trace/plausible.h"

namespace moe {
namespace {

constexpr std::uint64_t window_rows = 4096;
constexpr std::string_view phase_names[] = {"prefill", "decode", "train", "eval"};

void keep_rows(TraceRows& r, const std::vector<Index>& keep) {
  if (keep.size() == r.tokens())
    return;
  for (auto* list : {&r.token_id, &r.position, &r.sequence, &r.step})
    keep_only(*list, keep);
  keep_only(r.flags, keep);
  keep_only(r.modality, keep);
  for (LayerRows& l : r.layer) {
    keep_only(l.expert, keep);
    keep_only(l.weight, keep);
    keep_only(l.dropped, keep);
    keep_only(l.kept, keep);
  }
}

TraceFields no_fields() {
  return {.weights = false,
          .dropped = false,
          .kept = false,
          .entropy = false,
          .margin = false,
          .logsumexp = false};
}

bool repeats(const TraceRows& r, Index row) {
  return std::any_of(r.layer.begin(), r.layer.end(),
                     [&](const LayerRows& l) { return names_twice(l.expert.row(row)); });
}

}  // namespace

const char* phase_name(Phase p) {
  return phase_names[std::size_t(p)].data();
}

ExportRows::ExportRows(const TraceReader& reader, const ExportOptions& options,
                       std::function<void(std::uint64_t)> read)
    : reader_(reader), options_(options), read_(std::move(read)) {
  check_options();
  const std::size_t layers = header().layers.size();
  survey_.choices.assign(layers, 0);
  for (std::size_t l = 0; l < layers; ++l)
    survey_.choices[l] = header().layers[l].top_k;
  TraceFields wanted = no_fields();
  wanted.weights = fields().weights;
  wanted.dropped = fields().dropped;
  wanted.kept = fields().kept;
  windows(wanted, [&](const TraceRows& rows) { look(rows); });
  surveying_ = false;
}

void ExportRows::refuse(const std::string& why, const std::string& hint) const {
  throw Error(Exit::input, concat(name_, " ", why)).hint(hint);
}

void ExportRows::say(const std::string& sentence) {
  if (std::find(said_.begin(), said_.end(), sentence) == said_.end())
    said_.push_back(sentence);
}

std::string ExportRows::label(std::uint16_t domain) const {
  return domain < header().domains.size() ? header().domains[domain] : "";
}

std::string ExportRows::modality(const TraceRows& rows, std::size_t row) const {
  const bool known = row < rows.modality.size();
  const std::size_t m = known ? rows.modality[row] : std::size_t(modality::unknown);
  return m < header().modalities.size() ? header().modalities[m] : "";
}

void ExportRows::check_options() const {
  const std::size_t sequences = reader_.sequences().size();
  if (options_.sequence >= 0 && std::uint64_t(options_.sequence) >= sequences) {
    throw Error(Exit::usage, concat("there is no sequence ", options_.sequence, ": the trace has ",
                                    sequences, ", counted from 0"))
        .hint("moe show TRACE says how many there are");
  }
  const auto& labels = header().domains;
  if (!options_.domain.empty() &&
      std::find(labels.begin(), labels.end(), options_.domain) == labels.end())
    no_such("domain", options_.domain, labels);
}

// What a row was: its own mark, or the step that it belongs to.
Phase ExportRows::phase(const TraceRows& rows, std::size_t row) const {
  const std::uint8_t flags = rows.flags.empty() ? 0 : rows.flags[row];
  if (flags & token_flag::prompt)
    return Phase::prefill;
  if (flags & token_flag::decode)
    return Phase::decode;
  if (flags & token_flag::train)
    return Phase::train;
  const auto& steps = reader_.steps();
  return !rows.step.empty() && rows.step[row] < steps.size() ? steps[rows.step[row]].phase
                                                             : Phase::eval;
}

std::vector<Index> ExportRows::kept_rows(const TraceRows& rows) {
  const auto& sequences = reader_.sequences();
  std::vector<Index> keep;
  for (std::size_t t = 0; t < rows.tokens(); ++t) {
    const std::uint32_t s = rows.sequence.empty() ? 0 : rows.sequence[t];
    if (options_.sequence >= 0 && s != std::uint64_t(options_.sequence))
      continue;
    if (!options_.domain.empty() &&
        (s >= sequences.size() || label(sequences[s].domain) != options_.domain))
      continue;
    if (!options_.phase.empty() && options_.phase != phase_name(phase(rows, t)))
      continue;
    const bool valid = rows.valid(t);
    const bool repeated = valid && repeats(rows, Index(t));
    if (valid && !repeated)
      keep.push_back(Index(t));
    survey_.padding += surveying_ && !valid;
    survey_.repeated += surveying_ && repeated;
  }
  return keep;
}

void ExportRows::windows(const TraceFields& wanted,
                         const std::function<void(const TraceRows&)>& take) {
  const std::uint64_t all = reader_.tokens();
  for (std::uint64_t at = 0; at < all; at += window_rows) {
    const std::uint64_t count = std::min(window_rows, all - at);
    TraceRows rows = reader_.read(at, count, wanted);
    keep_rows(rows, kept_rows(rows));
    if (rows.tokens() > 0)
      take(rows);
    done_ += count;
    if (read_)
      read_(done_);
  }
}

void ExportRows::each(bool weights, bool dropped,
                      const std::function<void(const TraceRows&)>& take) {
  TraceFields wanted = no_fields();
  wanted.weights = weights;
  wanted.dropped = dropped;
  wanted.modality = fields().modality;
  windows(wanted, take);
}

namespace {

void look_at_layer(const LayerRows& l, Index& choices, ExportSurvey& s) {
  for (Index t = 0; t < l.expert.rows(); ++t) {
    for (Index k = 0; k < l.expert.cols(); ++k) {
      const int id = l.expert(t, k);
      if (id < 0)
        continue;
      choices = std::max(choices, k + 1);
      s.unweighed = s.unweighed || (!l.weight.empty() && !std::isfinite(l.weight(t, k)));
      s.dropped = s.dropped || (!l.dropped.empty() && l.dropped(t, k));
      s.rerouted = s.rerouted || (!l.kept.empty() && l.kept(t, k) >= 0 && l.kept(t, k) != id);
    }
    for (Index k = 0; k < choices; ++k)
      s.gaps = s.gaps || l.expert(t, k) < 0;
  }
}

}  // namespace

void ExportRows::look(const TraceRows& kept) {
  ExportSurvey& s = survey_;
  for (std::size_t l = 0; l < kept.layer.size(); ++l)
    look_at_layer(kept.layer[l], s.choices[l], s);
  const auto& sequences = reader_.sequences();
  for (std::size_t t = 0; t < kept.tokens(); ++t) {
    const std::uint32_t number = kept.sequence.empty() ? 0 : kept.sequence[t];
    if (number != last_sequence_) {
      last_sequence_ = number;
      next_position_ = 0;
      s.lengths.push_back(0);
      const TraceSequence whole = number < sequences.size() ? sequences[number] : TraceSequence{};
      s.domains.push_back(whole.domain);
      s.grids = s.grids || whole.grid != SignalGrid{};
    }
    ++s.lengths.back();
    s.positions = s.positions || (!kept.position.empty() && kept.position[t] != next_position_);
    ++next_position_;
    s.token_ids = s.token_ids || kept.token_id[t] != withheld_token;
    s.flags = s.flags || (!kept.flags.empty() && kept.flags[t] != 0);
    s.phases = s.phases || phase(kept, t) != Phase::eval;
  }
  s.tokens += kept.tokens();
}

}  // namespace moe
