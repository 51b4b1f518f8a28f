// What a writer refuses before it touches a file: names that are taken, and traces that another
// model or other datasets were recorded into. Each throws Error.
#pragma once
#include <filesystem>

#include "lib/trace/reader.h"
#include "lib/trace/writer.h"

namespace moe {

// To replace what is there, or to continue what is not.
void check_target(const std::filesystem::path& path, const std::filesystem::path& part,
                  const TraceWriterOptions&);
// To continue a recording that has fewer rows, or that is of another model.
void check_resumable(const TraceReader& old, const std::filesystem::path& part, const TraceHeader&,
                     std::uint64_t rows);
// To continue a finished trace that holds other datasets.
void check_appendable(const TraceReader& old, const std::filesystem::path& path, const TraceHeader&,
                      const TraceFields&);

// A trace that was begun as one of text has no place for what is no text. Throws Error(bug).
void refuse_signals(const TraceRows&, const TraceSequence& of_the_last_of_them);

}  // namespace moe
