// From a trace to a file: which rows, what the format has no place for, and the sentences about it.
#include "lib/export/export.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/export/rows.h"
#include "lib/files/file.h"

namespace moe {

#define EXPORTER(id, name, about, endings) std::unique_ptr<Exporter> make_##id##_exporter();
#include "lib/export/exporters.def"
#undef EXPORTER

const Registry<MakeExporter>& exporters() {
  static const Registry<MakeExporter> all("export format", {
#define EXPORTER(id, name, about, endings) {name, about, endings, make_##id##_exporter},
#include "lib/export/exporters.def"
#undef EXPORTER
                                                           });
  return all;
}

namespace {

bool numbered_from_zero(const TraceHeader& h) {
  for (std::size_t l = 0; l < h.layers.size(); ++l) {
    if (h.layers[l].index != int(l))
      return false;
  }
  return true;
}

bool has_labels(const ExportRows& rows) {
  const auto& domains = rows.survey().domains;
  return std::any_of(domains.begin(), domains.end(),
                     [&](std::uint16_t d) { return !rows.label(d).empty(); });
}

// What the kept rows hold and the format has no place for.
std::vector<std::string> left_out(const ExportRows& rows, const ExportCarries& c) {
  const ExportSurvey& s = rows.survey();
  const TraceFields& f = rows.fields();
  std::vector<std::string> out;
  const auto note = [&](bool there, const char* what) {
    if (there)
      out.emplace_back(what);
  };
  note(f.weights && !c.weights, "combine weights");
  note(rows.header().order != "unknown" && !c.order, "the order of the choices");
  note(s.dropped && !c.dropped, "which choices were dropped");
  note(s.rerouted, "the experts that choices were rerouted to");
  note(s.token_ids && !c.token_ids, "token ids");
  note(s.lengths.size() > 1 && !c.sequences, "bounds of sequences");
  note(s.positions && !c.positions, "positions");
  note(has_labels(rows) && !c.domains, "domains");
  note(s.phases && !c.phases, "phases");
  note(!numbered_from_zero(rows.header()) && !c.layer_numbers, "numbers of the MoE layers");
  note(!c.experts, "the number of experts");
  note(f.logits || f.entropy || f.margin || f.logsumexp || f.out_norm || f.predicted,
       "figures of the router beside the choices");
  note(f.rank, "ranks");
  note(f.modality && !c.modalities, "modalities");
  note(s.grids, "grids of pictures");
  return out;
}

void say_what_is_lost(ExportRows& rows, const ExportCarries& c, std::string_view format) {
  const ExportSurvey& s = rows.survey();
  if (s.padding > 0)
    rows.say(concat(s.padding, " padding rows are left out"));
  if (s.repeated > 0) {
    rows.say(concat(s.repeated, " tokens that have one expert in several slots of a layer are ",
                    "left out: no router made them"));
  }
  if (rows.fields().weights && !rows.has_weights() && c.weights)
    rows.say("combine weights are left out: some choices have none");
  if (rows.header().capture_point != "logical") {
    rows.say(concat("the trace was captured as ", rows.header().capture_point,
                    ", not as logical ids before capacity; the file does not say so"));
  }
  if (!c.rows) {
    rows.say(concat(format, " holds counts alone: everything else of the trace is left out"));
    return;
  }
  const auto lost = left_out(rows, c);
  if (!lost.empty())
    rows.say(concat(format, " has no place for ", join(lost), ": left out"));
}

void check_target(const std::filesystem::path& trace, const std::filesystem::path& target,
                  bool force) {
  if (target == "-") {
    throw Error(Exit::usage, "an export is a file that is whole or absent, and cannot go to stdout")
        .hint("-o FILE");
  }
  refuse_existing(target.string(), force);
  std::error_code missing;
  if (std::filesystem::equivalent(trace, target, missing)) {
    throw Error(Exit::usage, concat(in_quotes(trace), " is read and cannot be the output too"))
        .hint("another name for the output");
  }
}

void check_rows(const TraceReader& reader, const ExportRows& rows, const ExportOptions& o,
                const ExportCarries& c) {
  const bool counts = reader.tokens() == 0 && reader.count_steps() > 0;
  if (counts && c.rows) {
    rows.refuse("holds counts of tokens per expert and no tokens",
                "moe export TRACE --to eplb-json");
  }
  const bool chosen = o.sequence >= 0 || !o.domain.empty() || !o.phase.empty();
  if (counts && chosen)
    rows.refuse("holds counts alone: no sequence, domain or phase can be taken out of them",
                "the export without --sequence, --domain and --phase");
  if (!counts && rows.survey().tokens == 0) {
    rows.refuse(reader.tokens() == 0 ? "holds no tokens" : "has no token of that choice",
                "moe show TRACE says what it holds");
  }
}

}  // namespace

ExportResult export_trace(const std::filesystem::path& trace, const ExportOptions& options,
                          const std::filesystem::path& target, bool force,
                          const std::function<void(std::uint64_t)>& wrote) {
  const auto& entry = exporters().at(options.to);
  check_target(trace, target, force);
  const TraceReader reader(trace);
  ExportRows rows(reader, options, wrote);
  rows.name(in_quotes(trace));
  const auto exporter = entry.make();
  check_rows(reader, rows, options, exporter->carries());
  for (const std::string& warning : reader.state().warnings)
    rows.say(warning);
  if (rows.survey().tokens > 0)
    say_what_is_lost(rows, exporter->carries(), entry.name);
  OutputFile file(target);
  exporter->write(rows, file);
  file.commit();
  return {rows.said(), rows.survey().tokens, rows.survey().lengths.size(),
          rows.header().layers.size()};
}

}  // namespace moe
