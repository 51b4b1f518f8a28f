// The writing protocol: rows gather in memory; a commit writes them, then says so in /commits; only
// then are they safe.
#include "lib/trace/writer.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <limits>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/files/file.h"
#include "lib/trace/constants_hash.h"
#include "lib/trace/filter.h"
#include "lib/trace/reader.h"
#include "lib/trace/rebuild.h"
#include "lib/trace/records.h"
#include "lib/trace/resumable.h"
#include "lib/trace/times.h"
#include "lib/trace/writer_file.h"

namespace moe {
namespace {
using h5::Cell;

std::filesystem::path plus(const std::filesystem::path& path, const char* ending) {
  return path.string() + ending;
}

std::string now_utc() {  // SOURCE_DATE_EPOCH makes two recordings of the same run the same file
  const char* fixed = std::getenv("SOURCE_DATE_EPOCH");
  const std::time_t now =
      fixed && *fixed ? std::time_t(std::strtoll(fixed, nullptr, 10)) : std::time(nullptr);
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now));
}

TraceHeader checked(const TraceHeader& given) {
  TraceHeader h = given;
  if (h.layers.empty())
    throw Error(Exit::usage, "a trace needs at least one MoE layer, and this model has none");
  for (const TraceLayer& l : h.layers) {
    const int least = h.counts.empty() ? 1 : 0;  // an engine that counts need not say its top_k
    if (l.experts < 1 || l.top_k < least || l.top_k > 65535) {
      throw Error(Exit::bug, fmt::format("MoE layer {} has {} experts and top_k {}", l.index,
                                         l.experts, l.top_k));
    }
  }
  if (h.created_utc.empty())
    h.created_utc = now_utc();
  return h;
}

// The closing superblock says where the file ends before the file reaches there: a reader in
// between would call it cut.
void grow_to_end(hid_t file, const std::filesystem::path& path) {
  haddr_t end = 0;
  h5::must(H5Fget_eoa(file, &end), "read where the file ends");
  std::error_code failed;
  if (std::filesystem::file_size(path, failed) < end && !failed)
    std::filesystem::resize_file(path, end, failed);
  if (failed)
    throw Error(Exit::io, fmt::format("cannot set the file's size: {}", failed.message()));
}

// Commits on their way before the one that records has to help with them.
constexpr std::size_t most_on_their_way = 2;

}  // namespace

template <class Body>
void TraceWriter::File::guarded(Body body) {
  if (finished)
    throw Error(Exit::bug, fmt::format("{}: the trace is finished", target.string()));
  if (failed) {
    throw Error(Exit::io,
                fmt::format("{}: recording stopped after an earlier failure", building.string()))
        .safe(fmt::format("{} rows", safe));
  }
  try {
    body();
  } catch (const Error& e) {
    // our own complaint, not the disk's
    if (e.code() != Exit::io && e.code() != Exit::input)
      throw;
    failed = true;
    Error out(Exit::io, fmt::format("{}: {}{}", building.string(), e.what(), free_space(building)));
    if (!std::filesystem::exists(building) && std::filesystem::exists(target)) {
      throw std::move(out)
          .safe(fmt::format("{} has its name and all of its {} rows", target.string(), rows))
          .hint(fmt::format("moe verify {}, once the disk is in order", target.string()));
    }
    if (safe == 0)
      throw std::move(out).safe("no row was safe yet").hint("another place, or free space");
    throw std::move(out)
        .safe(fmt::format("{} rows of {} are safe in {}", safe, rows, building.string()))
        .hint(fmt::format("free space, then moe recover {} -o {}", building.string(),
                          target.string()));
  }
}

TraceWriter::File::File(const std::filesystem::path& path, const TraceHeader& given,
                        const TraceFields& asked_for, std::filesystem::path name, int level,
                        bool with_journal)
    : target(path),
      part(plus(path, ".part")),
      building(std::move(name)),
      header(checked(given)),
      fields(asked_for),
      deflate(level) {
  h5::start();
  if (fields.modality && header.modalities.empty())
    header.modalities = modality_names();
  columns = columns_of(header, fields);
  for (const TraceColumn& c : columns) {
    Pending p{std::max(commit_rows, c.chunk), {}, {}};
    p.planes.resize(c.layered ? header.layers.size() : 1);
    p.last_packed.resize(p.planes.size());
    pending.push_back(std::move(p));
  }
  lock.emplace(building);
  try {
    guarded([&] {
      h5 = create_trace(building, header, columns, deflate);
      // libhdf5 dies of a signal where its first writes fail inside the next call
      h5::must(H5Fflush(h5.file, H5F_SCOPE_GLOBAL), "write the beginning");
      if (with_journal)
        journal.emplace(building, h5.file, columns);
      h5::must(H5Fstart_swmr_write(h5.file), "let readers in while it is written");
    });
  } catch (const Error&) {
    discard();
    throw;
  }
}

TraceWriter::File::~File() {
  try {
    if (!failed && !finished)
      settle(true);  // what fell due is kept where it can be
  } catch (const Error&) {
  }
  if (!failed || finished)
    return;  // handles close themselves
  // What failed once would be tried again on closing. The file as it lies there is the one that
  // readers are known to survive.
  h5.file.abandon();
  h5.token.abandon();
  for (auto& d : h5.columns)
    d.abandon();
  for (auto& [path, d] : h5.records)
    d.abandon();
  for (auto& [name, d] : h5.pairs)
    d.abandon();
}

void TraceWriter::File::discard() {
  std::error_code ignored;
  if (journal)
    journal->remove();
  std::filesystem::remove(building, ignored);
}

void TraceWriter::File::begin(const TraceStep& step) {
  steps.push_back(step);
  steps.back().token_start = rows;
  steps.back().num_tokens = 0;
}
void TraceWriter::File::begin_sequence(std::uint16_t domain, SignalGrid grid) {
  sequences.push_back({rows, 0, domain, grid});
}

// Fills in which step and sequence rows belong to, or (copying) counts what they say themselves.
void TraceWriter::File::count_records(const TraceRows& given, Index first, Index count,
                                      bool keep_records, TraceRows& own) {
  if (sequences.empty())
    begin_sequence(no_domain);
  steps_safe = std::min(steps_safe, steps.size() - 1);
  sequences_safe = std::min(sequences_safe, sequences.size() - 1);
  if (!keep_records) {
    steps.back().num_tokens += std::uint32_t(count);
    sequences.back().length += std::uint32_t(count);
    own.step.assign(std::size_t(count), std::uint32_t(steps.size() - 1));
    own.sequence.assign(std::size_t(count), std::uint32_t(sequences.size() - 1));
    return;
  }
  for (auto t = std::size_t(first); t < std::size_t(first + count); ++t) {
    ++steps[given.step[t]].num_tokens;
    ++sequences[given.sequence[t]].length;
    steps_safe = std::min<std::size_t>(steps_safe, given.step[t]);
    sequences_safe = std::min<std::size_t>(sequences_safe, given.sequence[t]);
  }
}

// Rows into the pending chunks; they all lie in one commit.
void TraceWriter::File::take(const TraceRows& given, Index first, Index count, bool keep_records) {
  TraceRows own;
  own.token_id.resize(std::size_t(count));
  count_records(given, first, count, keep_records, own);
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const TraceColumn& c = columns[i];
    Pending& p = pending[i];
    const bool filled_in = !keep_records && (c.field == Field::step || c.field == Field::sequence);
    const Index row = Index(rows) % p.span;
    const Index whole_chunks = (row + count + c.chunk - 1) / c.chunk * c.chunk;
    const auto at = std::size_t(row) * c.row_bytes();
    for (std::size_t l = 0; l < p.planes.size(); ++l) {
      if (row == 0)
        p.planes[l].clear();
      p.planes[l].resize(std::size_t(whole_chunks) * c.row_bytes());  // zeros behind the rows
      filled_in
          ? encode(own, 0, count, c, header.layers[l], Index(l), p.planes[l].data() + at)
          : encode(given, first, count, c, header.layers[l], Index(l), p.planes[l].data() + at);
    }
  }
  corpus.update({reinterpret_cast<const std::uint8_t*>(given.token_id.data() + first),
                 std::size_t(count) * 4});
  rows += std::uint64_t(count);
}

namespace {

// No choice in any row: of a layer of the other stack of an encoder-decoder.
LayerRows unrouted(const TraceLayer& layer, Index rows, const TraceFields& f) {
  constexpr float none = std::numeric_limits<float>::quiet_NaN();
  const auto figures = [&](bool wanted) {
    return std::vector<float>(wanted ? std::size_t(rows) : 0, none);
  };
  LayerRows out;
  out.expert = Matrix<int>(rows, layer.top_k, -1);
  if (f.weights)
    out.weight = Matrix<float>(rows, layer.top_k);
  if (f.dropped)
    out.dropped = Matrix<std::uint8_t>(rows, layer.top_k);
  if (f.kept)
    out.kept = out.expert;
  if (f.out_norm)
    out.out_norm = Matrix<float>(rows, layer.top_k);
  if (f.logits)
    out.logits = Matrix<float>(rows, layer.experts, none);
  out.entropy = figures(f.entropy);
  out.margin = figures(f.margin);
  out.logsumexp = figures(f.logsumexp);
  return out;
}

}  // namespace

void TraceWriter::File::append(const TraceRows& given) {
  if (steps.empty())
    begin({});
  if (!header.has_encoder())
    return append(given, false, steps.back().step);
  TraceRows whole = given;
  whole.layer.resize(header.layers.size());
  for (std::size_t l = 0; l < whole.layer.size(); ++l) {
    if (whole.layer[l].expert.empty())
      whole.layer[l] = unrouted(header.layers[l], Index(given.tokens()), fields);
  }
  append(whole, false, steps.back().step);
}

void TraceWriter::File::append(const TraceRows& given, bool keep_records, std::int64_t step) {
  const auto n = Index(given.tokens());
  if (given.layer.size() != header.layers.size()) {
    throw Error(Exit::bug, fmt::format("rows of {} MoE layers for a trace of {}",
                                       given.layer.size(), header.layers.size()));
  }
  if (!fields.modality)
    refuse_signals(given, sequences.empty() ? TraceSequence{} : sequences.back());
  for (Index done = 0; done < n;) {
    const Index room = commit_rows - Index(rows % commit_rows);
    const Index count = std::min(n - done, room);
    guarded([&] { take(given, done, count, keep_records); });
    done += count;
    if (rows % commit_rows == 0)
      fall_due(step);
    settle(false);
  }
}

// What the next commit is made of: chunks as they lie now (rows keep coming into the buffers),
// records as they are now.
void TraceWriter::File::fall_due(std::int64_t step) {
  auto job = std::make_shared<CommitJob>(columns, deflate);
  job->first = due;
  job->rows = rows;
  job->step = step;
  for (std::size_t i = 0; i < columns.size() && due < rows; ++i) {
    const TraceColumn& c = columns[i];
    const std::uint64_t row = due / std::uint64_t(c.chunk) * std::uint64_t(c.chunk);
    const std::uint64_t chunks = (rows - row + std::uint64_t(c.chunk) - 1) / std::uint64_t(c.chunk);
    const std::size_t at = std::size_t(row % std::uint64_t(pending[i].span)) * c.row_bytes();
    const std::size_t bytes = chunks * std::size_t(c.chunk) * c.row_bytes();
    for (std::size_t l = 0; l < pending[i].planes.size(); ++l) {
      const auto from = pending[i].planes[l].begin() + std::ptrdiff_t(at);
      job->add({i,
                l,
                row,
                row < due ? pending[i].last_packed[l] : 0,
                {from, from + std::ptrdiff_t(bytes)}});
    }
  }
  job->steps_from = steps_safe;
  job->steps.assign(steps.begin() + std::ptrdiff_t(steps_safe), steps.end());
  job->sequences_from = sequences_safe;
  job->sequences.assign(sequences.begin() + std::ptrdiff_t(sequences_safe), sequences.end());
  steps_safe = steps.size();
  sequences_safe = sequences.size();
  due = rows;
  jobs.push_back(job);
  if (!worker_)
    worker_.emplace();
  worker_->give([job] { job->work(); });
}

// Packs with all threads. They are no threads of OpenMP, which spin where they have no work and
// take the time of those that have.
void TraceWriter::File::help(const std::shared_ptr<CommitJob>& job) {
  for (int i = 2; i < threads(); ++i) {
    if (int(helpers_.size()) < i - 1)
      helpers_.push_back(std::make_unique<Worker>());
    helpers_[std::size_t(i - 2)]->give([job] { job->work(); });
  }
  job->work();
}

void TraceWriter::File::settle(bool all) {
  guarded([&] {
    while (!jobs.empty()) {
      const std::shared_ptr<CommitJob> job = jobs.front();
      if (!job->done()) {
        if (!all && jobs.size() <= most_on_their_way)
          return;
        help(job);
      }
      job->wait();
      write(*job);
      jobs.pop_front();
      safe = job->rows;
      if (acknowledged)
        acknowledged(safe);
    }
  });
}

void TraceWriter::File::write(const CommitJob& job) {
  write_columns(job);
  write_records(h5.records, job.steps_from, job.steps, job.sequences_from, job.sequences);
  if (power)
    sync();
  write_commit(job);
  if (power)
    sync();
}

void TraceWriter::File::write_columns(const CommitJob& job) {
  places.clear();
  for (std::size_t i = 0, j = 0; i < columns.size(); ++i) {
    const TraceColumn& c = columns[i];
    std::vector<std::uint64_t> dims{job.rows, header.layers.size(), std::uint64_t(c.width)};
    dims.resize(std::size_t(c.rank));
    h5::resize(h5.columns[i], dims, c.path);
    for (; j < job.chunks.size() && job.planes[job.chunks[j].plane].column == i; ++j) {
      const CommitJob::Chunk& k = job.chunks[j];
      const std::size_t plane = job.planes[k.plane].plane;
      const hsize_t at[3] = {k.row, plane, 0};
      if (journal)
        places.push_back(
            chunk_places.write(h5.file, building, h5.columns[i], at, k.packed, c.path));
      else
        write_chunk(h5.columns[i], at, k.packed, c.path);
      pending[i].last_packed[plane] = k.packed.size();
    }
  }
  // A chunk that is written again lies at another place. Were the index on disk and the chunk not,
  // rows that were safe would be gone.
  if (power)
    sync();
  for (std::size_t i = 0; i < columns.size(); ++i)
    h5::must(H5Dflush(h5.columns[i]), fmt::format("flush {}", columns[i].path));
  h5::resize(h5.token, {job.rows}, "/token");
  h5::must(H5Dflush(h5.token), "flush /token");
}

void TraceWriter::File::write_commit(const CommitJob& job) {
  const CommitRow row{job.rows, job.step, job.data_xxh3, last_xxh3};
  const hid_t d = h5.records.at("/commits");
  h5::resize(d, {commits + 1}, "/commits");
  h5::write_rows(d, commit_type(), commits, 1, &row, "/commits");
  h5::must(H5Dflush(d), "flush /commits");
  last_xxh3 = hash_bytes(std::as_bytes(std::span(&row, 1)));
  ++commits;
  if (journal)
    journal->add(row, job, places);
}

void TraceWriter::File::commit(std::int64_t step) {
  if (rows > due && (deflate > 0 || rows % commit_rows == 0 || finishing))
    fall_due(step);
  settle(true);
}

void TraceWriter::File::sync() {
  guarded([&] {
    sync_file(building);
    if (journal)
      journal->sync();
    if (!named)
      sync_folder_of(building);
    named = true;
  });
}

void TraceWriter::File::set_pairs(const std::vector<PairMatrix>& pairs) {
  for (const PairMatrix& pair : pairs) {
    const auto at = h5.pairs.find(pair.name);
    if (at == h5.pairs.end()) {
      throw Error(Exit::bug,
                  fmt::format("pair matrix {} was not declared when the trace began", pair.name));
    }
    guarded([&] {
      write_pair(at->second, pair, header);
      h5::must(H5Dflush(at->second), "flush /experts/" + pair.name);
    });
  }
}

// Sets what only the whole trace knows, in the place that create_trace left for it. Readers are
// let in all the while: a file that HDF5 opens again to change it could not be read if we died
// then.
void TraceWriter::File::write_end() {
  std::vector<std::uint32_t> lengths;
  for (const TraceSequence& s : sequences)
    lengths.push_back(s.length);
  corpus.update({reinterpret_cast<const std::uint8_t*>(lengths.data()), lengths.size() * 4});
  const std::uint8_t yes = 1;
  h5::set(h5.file, "constants_xxh3", constants_text(h5.file));
  h5::set(h5.file, "corpus_sha256", corpus.hex());
  h5::set(h5.file, "num_tokens", Cell::u64, &rows);
  h5::set(h5.file, "complete", Cell::u8, &yes);
  h5::must(H5Fflush(h5.file, H5F_SCOPE_GLOBAL), "flush the file");
}

// Closes the file, and looks at it once more: a close has reported success on a full disk.
void TraceWriter::File::seal() {
  for (auto& d : h5.columns)
    d.close("close a dataset");
  for (auto& [path, d] : h5.records)
    d.close("close " + path);
  for (auto& [name, d] : h5.pairs)
    d.close("close /experts/" + name);
  h5.token.close("close /token");
  write_end();
  grow_to_end(h5.file, building);
  sync_file(building);
  h5.file.close("close the file");
  forget_times(building);
  sync_file(building);
  h5::Handle again{H5Fopen(building.c_str(), H5F_ACC_RDONLY, h5::file_access(false)),
                   "open the finished file"};
  again.close("close the finished file");
}

void TraceWriter::File::finish() {
  if (finished)
    return;
  finishing = true;
  commit(steps.empty() ? -1 : steps.back().step);
  guarded([&] {
    {  // records that no row has followed
      CommitJob rest(columns, deflate);
      rest.steps_from = steps_safe;
      rest.steps.assign(steps.begin() + std::ptrdiff_t(steps_safe), steps.end());
      rest.sequences_from = sequences_safe;
      rest.sequences.assign(sequences.begin() + std::ptrdiff_t(sequences_safe), sequences.end());
      write_records(h5.records, rest.steps_from, rest.steps, rest.sequences_from, rest.sequences);
    }
    seal();
    if (journal)
      journal->remove();  // nothing is written any more
    rename_durably(building, target);
  });
  mark_own(target);
  finished = true;
  lock.reset();
}

namespace {

// The steps of a trace of counts, and behind them those that come.
Matrix<std::uint32_t> continued_counts(const TraceReader& old, const Matrix<std::uint32_t>& more,
                                       const std::filesystem::path& path) {
  const bool was_counted = old.tokens() == 0 && old.count_steps() > 0;
  if (was_counted == more.empty() && (was_counted || old.tokens() > 0)) {
    throw Error(
        Exit::input,
        fmt::format("{} cannot be continued: it holds {}, and what comes is {}", path.string(),
                    was_counted ? "counts only" : "tokens", was_counted ? "tokens" : "counts only"))
        .hint("another name for the trace");
  }
  const Matrix<std::uint32_t> before = old.counts(0, old.count_steps());
  if (before.empty())
    return more;
  Matrix<std::uint32_t> out(before.rows() + more.rows(), before.cols());
  std::ranges::copy(before.flat(), out.data());
  std::ranges::copy(more.flat(), out.data() + before.size());
  return out;
}

}  // namespace

TraceWriter::TraceWriter(const std::filesystem::path& path, const TraceHeader& header,
                         const TraceWriterOptions& options) {
  const auto part = plus(path, ".part");
  const auto copy = plus(path, ".part.resumed");
  check_target(path, part, options);
  if (options.resume_rows >= 0 && std::filesystem::exists(part)) {
    const MostRows most(part);
    const TraceReader& old = most.reader();
    const auto rows = std::uint64_t(options.resume_rows);
    check_resumable(old, part, header, rows);
    const WriteLock alone(part);  // nobody else may be writing what is about to be replaced
    file_ = std::make_unique<File>(path, old.header(), options.fields, copy, options.deflate, true);
    try {
      replay(old, rows, *file_);
      sync_file(copy);
      file_->journal->sync();
      rename_durably(copy, part);
      file_->journal->follow(part);
    } catch (const Error& e) {
      file_->discard();
      throw without_copy(e, part);
    }
    file_->building = part;
  } else if (options.append && std::filesystem::exists(path)) {
    const TraceReader old(path);
    check_appendable(old, path, header, options.fields);
    TraceHeader both = old.header();
    both.domains = header.domains;
    both.counts = continued_counts(old, header.counts, path);
    file_ = std::make_unique<File>(path, both, options.fields, part, options.deflate, true);
    try {
      replay(old, old.tokens(), *file_);
    } catch (const Error& e) {
      file_->discard();
      throw without_copy(e, path);
    }
  } else {
    file_ = std::make_unique<File>(path, header, options.fields, part, options.deflate, true);
  }
  file_->power = options.power;
  file_->acknowledged = options.acknowledged;
}

TraceWriter::~TraceWriter() = default;
void TraceWriter::step(const TraceStep& s) {
  file_->begin(s);
}
void TraceWriter::sequence(std::uint16_t domain, SignalGrid grid) {
  file_->begin_sequence(domain, grid);
}
void TraceWriter::append(const TraceRows& rows) {
  file_->append(rows);
}
void TraceWriter::commit(std::int64_t step) {
  file_->commit(step);
}
void TraceWriter::sync() {
  file_->sync();
}
void TraceWriter::pairs(const std::vector<PairMatrix>& pairs) {
  file_->set_pairs(pairs);
}
void TraceWriter::finish() {
  file_->finish();
}
std::uint64_t TraceWriter::rows() const {
  return file_->rows;
}
std::uint64_t TraceWriter::safe_rows() const {
  return file_->safe;
}

}  // namespace moe
