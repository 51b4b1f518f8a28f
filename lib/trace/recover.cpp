// Copies the rows that can be trusted into a new file, commit by commit: what comes out is, byte
// for byte, what a recording that ended there would have written.
#include <fmt/format.h>

#include "lib/core/error.h"
#include "lib/trace/reader.h"
#include "lib/trace/rebuild.h"
#include "lib/trace/writer_file.h"

namespace moe {

namespace {
// Begins the records that begin by `row`, at least up to the given ones.
void begin_records(const TraceReader& from, TraceWriter::File& to, std::uint64_t row,
                   std::size_t last_sequence, std::size_t last_step) {
  const auto& sequences = from.sequences();
  const auto& steps = from.steps();
  while (to.sequences.size() < sequences.size() &&
         (sequences[to.sequences.size()].start <= row || to.sequences.size() <= last_sequence)) {
    const TraceSequence& next = sequences[to.sequences.size()];
    to.begin_sequence(next.domain, to.fields.modality ? next.grid : SignalGrid{});
    to.sequences.back().start = next.start;
  }
  while (to.steps.size() < steps.size() &&
         (steps[to.steps.size()].token_start <= row || to.steps.size() <= last_step)) {
    const TraceStep& step = steps[to.steps.size()];
    to.begin(step);
    to.steps.back().token_start = step.token_start;
    if (from.tokens() == 0)
      to.steps.back().num_tokens = step.num_tokens;  // of what was only counted
  }
}
}  // namespace

void replay(const TraceReader& from, std::uint64_t rows, TraceWriter::File& to) {
  const auto commits = from.commits();
  std::size_t next = 0;
  for (std::uint64_t at = 0; at < rows;) {
    while (next < commits.size() && commits[next].rows <= at)
      ++next;
    std::uint64_t end = std::min(rows, at / commit_rows * commit_rows + commit_rows);
    if (next < commits.size())
      end = std::min(end, commits[next].rows);
    const TraceRows window = from.read(at, end - at, to.fields);
    // a run of rows between records at a time would be as right, and no faster
    for (std::uint64_t row = at; row < end; ++row) {
      const auto t = std::size_t(row - at);
      begin_records(from, to, row, window.sequence[t], window.step[t]);
    }
    const bool recorded = next < commits.size() && commits[next].rows == end;
    to.append(window, true, recorded ? commits[next].step : to.steps.back().step);
    if (recorded)
      to.commit(commits[next].step);
    at = end;
  }
  if (rows == from.tokens() && from.state().complete)
    begin_records(from, to, rows, from.sequences().size(), from.steps().size());
  to.commit(to.steps.empty() ? -1 : to.steps.back().step);
}

Error without_copy(const Error& e, const std::filesystem::path& from) {
  if (e.code() != Exit::io)
    return e;
  return Error(e.code(), e.what())
      .safe(fmt::format("{} is as it was", from.string()))
      .hint("free space, or another place, then the same again");
}

namespace {

std::uint64_t copy_rows(const TraceReader& from, const std::filesystem::path& in,
                        const std::filesystem::path& out) {
  const std::filesystem::path building = out.string() + ".recovering";
  TraceHeader header = from.header();
  header.counts = from.counts(0, from.count_steps());
  TraceWriter::File to(out, header, from.fields(), building);
  try {
    replay(from, from.tokens(), to);
    to.finish();
  } catch (const Error& e) {
    to.discard();
    throw without_copy(e, in);
  }
  return from.tokens();
}

}  // namespace

std::uint64_t recover_trace(const std::filesystem::path& in, const std::filesystem::path& out,
                            bool force) {
  std::error_code none;
  if (std::filesystem::equivalent(in, out, none)) {
    throw Error(Exit::usage, fmt::format("{} cannot be recovered onto itself", in.string()))
        .hint("another name after -o");
  }
  MostRows from(in);
  if (std::filesystem::exists(out) && !force) {
    throw Error(Exit::usage, fmt::format("{} exists", out.string()))
        .hint("another name, or --force to replace it");
  }
  try {
    return copy_rows(from.reader(), in, out);
  } catch (const Error& e) {  // an index of rows that nobody has looked at so far
    if (e.code() != Exit::input || !from.read_journal_instead(0))
      throw;
  }
  return copy_rows(from.reader(), in, out);
}

}  // namespace moe
