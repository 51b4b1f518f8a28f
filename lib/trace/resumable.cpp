#include "lib/trace/resumable.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/core/error.h"
#include "lib/trace/columns.h"

namespace moe {

// Refuses to replace what is there, or to continue what is not.
void check_target(const std::filesystem::path& path, const std::filesystem::path& part,
                  const TraceWriterOptions& options) {
  const bool interrupted = std::filesystem::exists(part);
  if (std::filesystem::exists(path) && !options.force && !options.append) {
    throw Error(Exit::usage, fmt::format("{} exists", path.string()))
        .hint("another name, or --force to replace it");
  }
  if (options.resume_rows < 0 && interrupted && !options.force) {
    throw Error(
        Exit::usage,
        fmt::format("{} exists: a recording that was interrupted, or still runs", part.string()))
        .hint(fmt::format("moe recover {} -o {}, or --force to replace it", part.string(),
                          path.string()));
  }
  if (options.resume_rows > 0 && !interrupted) {
    throw Error(Exit::input,
                fmt::format("{} does not exist: there is no recording to continue at row {}",
                            part.string(), options.resume_rows))
        .hint("another name for the trace, which then begins here");
  }
}

// Refuses to continue a recording that has fewer rows, or that is of another model.
void check_resumable(const TraceReader& old, const std::filesystem::path& part,
                     const TraceHeader& header, std::uint64_t rows) {
  if (rows > old.tokens()) {
    throw Error(Exit::input, fmt::format("{} has {} valid rows; row {} was expected next",
                                         part.string(), old.tokens(), rows));
  }
  if (old.header().layers.size() != header.layers.size() ||
      old.header().max_experts() != header.max_experts() ||
      old.header().max_choices() != header.max_choices()) {
    throw Error(Exit::input,
                fmt::format("{} was recorded from a model of {} MoE layers, {} experts, top {}; "
                            "this one has {}, {}, {}",
                            part.string(), old.header().layers.size(), old.header().max_experts(),
                            old.header().max_choices(), header.layers.size(), header.max_experts(),
                            header.max_choices()));
  }
  if (old.header().expert_ranks != header.expert_ranks) {
    throw Error(Exit::input,
                fmt::format("{} was recorded with the experts of a layer on {} ranks, and here "
                            "they are on {}",
                            part.string(), old.header().expert_ranks, header.expert_ranks))
        .hint(fmt::format("--ep {} and the same --move; or --trace FILE, another file, for the "
                          "steps from here on",
                          old.header().expert_ranks));
  }
}

void refuse_signals(const TraceRows& rows, const TraceSequence& sequence) {
  const auto is_text = [](std::uint8_t m) {
    return m == modality::text;
  };
  if (sequence.grid != SignalGrid{} || !std::ranges::all_of(rows.modality, is_text)) {
    throw Error(Exit::bug,
                "rows of pictures or sounds for a trace that was begun without modalities");
  }
}

// Refuses to continue a finished trace that holds other datasets.
void check_appendable(const TraceReader& old, const std::filesystem::path& path,
                      const TraceHeader& header, const TraceFields& fields) {
  check_resumable(old, path, header, old.tokens());
  const auto has = columns_of(old.header(), old.fields());
  const auto wants = columns_of(header, fields);
  const auto name = [](const TraceColumn& c) {
    return c.path;
  };
  bool same = std::ranges::equal(has, wants, {}, name, name) && old.header().order == header.order;
  if (fields.modality)
    same = same && (header.modalities.empty() ? modality_names() : header.modalities) ==
                       old.header().modalities;
  for (std::size_t l = 0; same && l < header.layers.size(); ++l)
    same = old.header().layers[l].index == header.layers[l].index;
  if (!same || !old.state().complete) {
    throw Error(
        Exit::input,
        fmt::format("{} cannot be continued: it is unfinished, or has other layers, datasets "
                    "or another order of choices",
                    path.string()))
        .hint("another name for the trace");
  }
}

}  // namespace moe
