// A disk that tears pages into sectors: every sector of a recording's structure is made unreadable,
// one at a time, and its journal gives all rows that were acknowledged.
#include <catch2/catch.hpp>
#include <cstring>

#include "lib/core/error.h"
#include "lib/trace/journal.h"
#include "lib/trace/rebuild.h"
#include "tests/trace/sample.h"

using namespace moe;

namespace {

constexpr std::uint64_t sector = 512, rows = 5000;

sample::Shape shape_of() {
  sample::Shape s{.layers = 2, .experts = 8, .k = 2, .fields = sample::every_field()};
  return s;
}

// An unfinished recording with commits that end within chunks, and labels that are large constants.
void record(const std::filesystem::path& path) {
  const sample::Shape shape = shape_of();
  TraceHeader h = sample::header(shape);
  for (int id = 0; id < 1000; ++id)
    h.pieces.push_back("piece " + std::to_string(id));
  TraceWriterOptions options;
  options.fields = shape.fields;
  TraceWriter writer(path, h, options);
  std::uint64_t from = 0;
  for (const std::uint64_t to : {std::uint64_t(480), std::uint64_t(960), rows}) {
    sample::append(writer, shape, from, to);
    writer.commit(std::int64_t(to));
    from = to;
  }
}

bool meet(const FileRange& a, const FileRange& b) {
  return a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}

// What is written once and never again: chunks, and large constants.
std::vector<FileRange> written_once(const std::filesystem::path& part) {
  const JournalContent journal = read_journal(part);
  std::vector<FileRange> out = journal.start.holes;
  for (const JournalCommit& c : journal.commits) {
    for (const JournalChunk& k : c.chunks)
      out.push_back(k.place);
  }
  return out;
}

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a recording with any sector of its structure torn is recovered from its journal") {
  const sample::Folder folder;
  const auto part = folder / "a.h5.part";
  record(folder / "a.h5");
  REQUIRE(std::filesystem::exists(journal_of(part)));
  const std::string whole = sample::bytes(part);
  const auto once = written_once(part);
  REQUIRE(once.size() > 20);
  CHECK(std::filesystem::file_size(journal_of(part)) < whole.size() / 4);
  const int step = sample::env("MOE_SECTORS", 8);  // of so many one; 1 = all
  int torn = 0;
  int lost_without = 0;
  for (std::uint64_t at = 0; at < whole.size(); at += sector * std::uint64_t(step)) {
    const FileRange range{at, sector};
    if (std::ranges::any_of(once, [&](const FileRange& r) { return meet(r, range); }))
      continue;
    INFO("sector at " << at << " of " << whole.size());
    std::string bytes = whole;
    std::memset(bytes.data() + at, 0xA5, std::min<std::size_t>(sector, bytes.size() - at));
    sample::put_bytes(part, bytes);
    ++torn;
    std::uint64_t plain = 0;
    refusal([&] { plain = TraceReader(part).tokens(); });
    lost_without += plain < rows;
    REQUIRE(recover_trace(part, folder / "out.h5", true) == rows);
    CHECK(sample::difference(TraceReader(folder / "out.h5"), shape_of(), 0, rows) == "");
    CHECK(sample::bytes(part) == bytes);
  }
  if (step == 1)
    WARN(torn << " sectors, " << lost_without << " of them lose rows without the journal");
  CHECK(torn > 20);
  CHECK(lost_without > 3);
}

TEST_CASE("a recording goes on from its journal") {
  const sample::Folder folder;
  const auto part = folder / "a.h5.part";
  record(folder / "a.h5");
  std::string bytes = sample::bytes(part);
  std::memset(bytes.data(), 0, sector);  // nothing can be read of it
  bytes.replace(0, 8, "\211HDF\r\n\032\n");
  sample::put_bytes(part, bytes);
  CHECK_FALSE(refusal([&] { TraceReader reader(part); }).empty());
  TraceWriterOptions options;
  options.fields = shape_of().fields;
  options.resume_rows = std::int64_t(rows);
  TraceWriter writer(folder / "a.h5", sample::header(shape_of()), options);
  CHECK(std::filesystem::exists(journal_of(part)));
  CHECK_FALSE(std::filesystem::exists(journal_of(folder / "a.h5.part.resumed")));
  CHECK(read_journal(part).rows() == rows);
  sample::append(writer, shape_of(), rows, rows + 500);
  writer.finish();
  CHECK_FALSE(std::filesystem::exists(journal_of(part)));
  CHECK(verify_trace(folder / "a.h5").empty());
  CHECK(sample::difference(TraceReader(folder / "a.h5"), shape_of(), 0, rows + 500) == "");
}

TEST_CASE("a journal that is damaged, or of another recording, changes nothing") {
  const sample::Folder folder;
  const auto part = folder / "a.h5.part";
  record(folder / "a.h5");
  const std::string journal = sample::bytes(journal_of(part));
  const std::string whole = sample::bytes(part);
  for (std::size_t at = 0; at < journal.size(); at += 1 + journal.size() / 40) {
    INFO("byte " << at << " of " << journal.size());
    std::string bytes = journal;
    bytes[at] = char(bytes[at] ^ 0x55);
    sample::put_bytes(journal_of(part), bytes);
    CHECK(recover_trace(part, folder / "out.h5", true) == rows);
    sample::put_bytes(journal_of(part), journal.substr(0, at));
    CHECK(recover_trace(part, folder / "out.h5", true) == rows);
  }
  // a shorter recording beside the journal of a longer one, and both damaged
  sample::put_bytes(journal_of(part), journal);
  const sample::Shape shape;
  {
    TraceWriterOptions options;
    options.fields = shape.fields;
    TraceWriter writer(folder / "b.h5", sample::header(shape), options);
    sample::append(writer, shape, 0, 96);
    writer.commit(0);
  }
  std::filesystem::rename(folder / "b.h5.part", part);
  CHECK(recover_trace(part, folder / "out.h5", true) == 96);
  sample::put_bytes(part, whole.substr(0, whole.size() / 8));
  sample::put_bytes(journal_of(part), journal.substr(0, 200));
  CHECK_FALSE(refusal([&] { recover_trace(part, folder / "out.h5", true); }).empty());
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator(folder.path))
    ++files;
  CHECK(files == 4);  // both parts' names and journals and out.h5: nothing is left behind
}
