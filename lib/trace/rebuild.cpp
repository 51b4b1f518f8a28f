#include "lib/trace/rebuild.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/trace/child.h"
#include "lib/trace/journal.h"
#include "lib/trace/records.h"
#include "lib/trace/unmarked_copy.h"

namespace moe {
namespace {

constexpr std::size_t superblock_bytes = 48;
constexpr std::uint64_t most_steps = 1 << 30;

// What is to be written: the newest place of every chunk, and the records, after the last commit
// that is all there.
struct Content {
  using Key = std::tuple<std::uint32_t, std::uint32_t, std::uint64_t>;  // column, plane, first row
  std::map<Key, FileRange> chunks;
  std::vector<TraceStep> steps;
  std::vector<TraceSequence> sequences;
  std::vector<CommitRow> commits;
};

class Part {
 public:
  explicit Part(const std::filesystem::path& path)
      : path_(path), file_(path), bytes_(file_.map()), size_(std::uint64_t(file_.size())) {}

  bool holds(const FileRange& r) const {
    return r.bytes <= size_ && r.offset <= size_ - r.bytes;
  }
  std::span<const std::byte> at(const FileRange& r) const {
    if (!holds(r)) {
      throw Error(Exit::input, fmt::format("{} ends at {} bytes, and its journal speaks of {}",
                                           in_quotes(path_), size_, r.offset + r.bytes));
    }
    return {bytes_.get() + r.offset, std::size_t(r.bytes)};
  }

 private:
  std::filesystem::path path_;
  InputFile file_;
  std::shared_ptr<const std::byte> bytes_;
  std::uint64_t size_;
};

template <class Record>
void replace_tail(std::vector<Record>& all, std::size_t from, const std::vector<Record>& tail) {
  if (from > all.size() || from + tail.size() > most_steps)
    throw Error(Exit::input, "the journal skips records");
  all.resize(from);
  all.insert(all.end(), tail.begin(), tail.end());
}

bool same_step(const TraceStep& a, const TraceStep& b) {
  return a.step == b.step && a.token_start == b.token_start && a.num_tokens == b.num_tokens &&
         a.phase == b.phase;
}
bool same_sequence(const TraceSequence& a, const TraceSequence& b) {
  return a.start == b.start && a.length == b.length && a.domain == b.domain && a.grid == b.grid;
}

// Whether the records of so many rows, which nothing else covers before the end, are those that the
// journal has.
bool records_fit(const TraceReader& reader, const JournalContent& journal) {
  std::vector<TraceStep> steps;
  std::vector<TraceSequence> sequences;
  for (const JournalCommit& c : journal.commits) {
    replace_tail(steps, c.steps_from, c.steps);
    replace_tail(sequences, c.sequences_from, c.sequences);
    if (c.row.rows == reader.tokens())
      break;
  }
  std::erase_if(steps, [&](const TraceStep& s) { return s.token_start >= reader.tokens(); });
  std::erase_if(sequences, [&](const TraceSequence& s) { return s.start >= reader.tokens(); });
  return std::ranges::equal(steps, reader.steps(), same_step) &&
         std::ranges::equal(sequences, reader.sequences(), same_sequence);
}

Content content_of(const JournalContent& journal, const Part& part) {
  Content out;
  std::uint64_t before = 0;
  for (const JournalCommit& c : journal.commits) {
    const auto is_there = [&](const JournalChunk& k) {
      return part.holds(k.place) && hash_bytes(part.at(k.place)) == k.xxh3;
    };
    if (c.row.prev_xxh3 != before || !std::ranges::all_of(c.chunks, is_there))
      break;
    for (const JournalChunk& k : c.chunks)
      out.chunks[{k.column, k.plane, k.row}] = k.place;
    replace_tail(out.steps, c.steps_from, c.steps);
    replace_tail(out.sequences, c.sequences_from, c.sequences);
    out.commits.push_back(c.row);
    before = hash_bytes(std::as_bytes(std::span(&c.row, 1)));
  }
  return out;
}

// The file as it was before its first row, as nobody has it open.
void write_start(JournalStart start, const Part& part, const std::filesystem::path& to) {
  const bool whole = start.holes.empty() || start.holes[0].offset >= superblock_bytes;
  if (start.bytes.size() < superblock_bytes || !whole)
    throw Error(Exit::input, "the journal holds no beginning of a file");
  unmark({start.bytes.data(), superblock_bytes});
  OutputFile out(to);
  std::uint64_t at = 0;
  std::span<const std::uint8_t> left = start.bytes;
  const auto keep_to = [&](std::uint64_t end) {
    out.write(std::as_bytes(left.first(end - at)));
    left = left.subspan(end - at);
  };
  for (const FileRange& hole : start.holes) {
    keep_to(hole.offset);
    out.write(part.at(hole));
    at = hole.offset + hole.bytes;
  }
  keep_to(start.end);
  out.commit();
}

class Growth {
 public:
  Growth(const std::filesystem::path& path, const JournalStart& start, const Content& content)
      : content_(content),
        file_(H5Fopen(path.c_str(), H5F_ACC_RDWR, h5::file_access(true)), "open its beginning"),
        rows_(content.commits.empty() ? 0 : content.commits.back().rows) {
    for (const std::string& name : start.columns)
      columns_.push_back(open(name));
    for (const char* name :
         {"/sequences/start", "/sequences/length", "/sequences/domain", "/steps/step",
          "/steps/token_start", "/steps/num_tokens", "/steps/phase", "/commits"}) {
      records_[name] = open(name);
    }
    for (const char* name : {"/sequences/grid_rows", "/sequences/grid_columns"}) {
      if (H5Lexists(file_, name, H5P_DEFAULT) > 0)
        records_[name] = open(name);
    }
  }

  void write(const Part& part) {
    for (const h5::Handle& d : columns_)
      grow(d);
    grow(open("/token"));
    for (const auto& [key, place] : content_.chunks)
      write_chunk(key, part.at(place));
    write_records(records_, 0, content_.steps, 0, content_.sequences);
    const hid_t commits = records_.at("/commits");
    h5::resize(commits, {content_.commits.size()}, "/commits");
    h5::write_rows(commits, commit_type(), 0, content_.commits.size(), content_.commits.data(),
                   "/commits");
    columns_.clear();
    records_.clear();
    file_.close("close the file");
  }

 private:
  h5::Handle open(const std::string& name) const {
    return {H5Dopen2(file_, name.c_str(), H5P_DEFAULT), "open " + name};
  }
  void grow(const h5::Handle& dataset) const {
    std::vector<std::uint64_t> dims = h5::dims_of(dataset);
    dims.at(0) = rows_;
    h5::resize(dataset, dims, "rows");
  }
  void write_chunk(const Content::Key& key, std::span<const std::byte> bytes) const {
    const auto [column, plane, row] = key;
    const hsize_t at[3] = {row, plane, 0};
    const bool fits =
        column < columns_.size() && row < rows_ &&
        plane < (h5::dims_of(columns_[column]).size() > 1 ? h5::dims_of(columns_[column])[1]
                                                          : std::uint64_t(1));
    if (!fits)
      throw Error(Exit::input, "the journal names a chunk that the file has no place for");
    h5::must(H5Dwrite_chunk(columns_[column], H5P_DEFAULT, 0, at, bytes.size(), bytes.data()),
             "write a chunk");
  }

  const Content& content_;
  h5::Handle file_;
  std::vector<h5::Handle> columns_;
  std::map<std::string, h5::Handle> records_;
  std::uint64_t rows_;
};

}  // namespace

void rebuild_from_journal(const std::filesystem::path& part, const std::filesystem::path& to) {
  run_apart(part, [&]() -> std::string {
    const JournalContent journal = read_journal(part);
    const Part bytes(part);
    const Content content = content_of(journal, bytes);
    write_start(journal.start, bytes, to);
    h5::start();
    Growth(to, journal.start, content).write(bytes);
    return "";
  });
}

Rebuilt::Rebuilt(const std::filesystem::path& part) : name_(file_beside(part)) {
  try {
    rebuild_from_journal(part, name_);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(name_, ignored);
    throw;
  }
}

Rebuilt::~Rebuilt() {
  std::error_code ignored;
  std::filesystem::remove(name_, ignored);
}

MostRows::MostRows(const std::filesystem::path& in) : in_(in) {
  try {
    reader_ = std::make_unique<TraceReader>(in);
  } catch (const Error&) {
    if (!read_journal_instead(0))
      throw;
    return;
  }
  if (!reader_->state().complete)
    read_journal_instead(reader_->tokens());
}

bool MostRows::read_journal_instead(std::uint64_t had) {
  if (rebuilt_ || !std::filesystem::exists(journal_of(in_)))
    return false;
  try {
    const JournalContent journal = read_journal(in_);
    const bool torn = had > 0 && journal.rows() == had && !records_fit(*reader_, journal);
    if (journal.rows() <= had && !torn)
      return false;
    auto rebuilt = std::make_unique<Rebuilt>(in_);
    auto reader = std::make_unique<TraceReader>(rebuilt->name());
    if (reader->tokens() < had + (torn ? 0 : 1))
      return false;
    reader_ = std::move(reader);
    rebuilt_ = std::move(rebuilt);
    return true;
  } catch (const Error&) {
    return false;  // what the file itself says stands
  }
}

}  // namespace moe
