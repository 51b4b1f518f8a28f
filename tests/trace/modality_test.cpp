// The modality of each row and the grids of pictures: names, what verify says of them, and traces
// that have none.
#include <catch2/catch.hpp>

#include "lib/core/error.h"
#include "lib/trace/journal.h"
#include "lib/trace/rebuild.h"
#include "tests/trace/sample.h"

using namespace moe;

namespace {

sample::Shape shape_of(bool modality) {
  sample::Shape s;
  s.fields.modality = modality;
  return s;
}

// Two sequences of 6 rows each, of modalities that are repeated for each.
void write(const std::filesystem::path& path, const TraceHeader& h, const TraceFields& fields,
           std::vector<std::uint8_t> modality, SignalGrid grid) {
  TraceWriter w(path, h, {.force = true, .fields = fields});
  w.step({});
  for (const int q : {0, 1}) {
    TraceRows rows = sample::rows({.fields = fields}, std::uint64_t(6 * q), 6);
    rows.modality = modality;
    w.sequence(no_domain, grid);
    w.append(rows);
  }
  w.finish();
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

TEST_CASE("a trace of text alone is of the format that it always was") {
  const sample::Folder folder;
  sample::write(folder / "text.h5", shape_of(false), 300);
  const TraceReader text(folder / "text.h5");
  CHECK(text.header().format_version == "1.3");
  CHECK(text.header().modalities.empty());
  CHECK_FALSE(text.fields().modality);
  TraceFields asked;
  asked.modality = true;
  CHECK(text.read(0, 10, asked).modality.empty());
  CHECK(text.sequences()[1].grid == SignalGrid{});
  sample::write(folder / "mixed.h5", shape_of(true), 300);
  const TraceReader mixed(folder / "mixed.h5");
  CHECK(mixed.header().format_version == "1.5");
  CHECK(mixed.header().modalities == modality_names());
  CHECK(mixed.fields().modality);
  CHECK(mixed.state().warnings.empty());
  CHECK(mixed.read(32, 10, {}).modality.empty());
  CHECK(mixed.sequences()[1].grid == SignalGrid{2, 2});
}

TEST_CASE("modalities have the names that the trace gives them") {
  const sample::Folder folder;
  const sample::Shape s = shape_of(true);
  TraceHeader h = sample::header(s);
  h.modalities = {"depth", "text"};
  write(folder / "a.h5", h, s.fields, {0, 0, 0, 0, 1, 255}, {2, 2});
  const TraceReader r(folder / "a.h5");
  CHECK(r.header().modalities == h.modalities);
  CHECK(verify_trace(folder / "a.h5").empty());
  // an appended recording must mean the same by the same numbers
  TraceWriterOptions options{.fields = s.fields};
  options.append = true;
  TraceHeader other = h;
  other.modalities.clear();
  CHECK_THAT(refusal([&] { TraceWriter(folder / "a.h5", other, options); }),
             Catch::Contains("cannot be continued"));
  {
    TraceWriter w(folder / "a.h5", h, options);
    TraceRows rows = sample::rows(s, 12, 2);
    rows.modality = {1, 0};
    w.sequence(no_domain, {1, 1});
    w.append(rows);
    w.finish();
  }
  const TraceReader longer(folder / "a.h5");
  CHECK(longer.read(12, 2, s.fields).modality == std::vector<std::uint8_t>{1, 0});
  CHECK(longer.sequences()[1].grid == SignalGrid{2, 2});
  CHECK(longer.sequences()[2].grid == SignalGrid{1, 1});
}

TEST_CASE("verify names modalities without a name and pictures of another size than their grid") {
  const sample::Folder folder;
  const sample::Shape s = shape_of(true);
  const auto findings = [&](std::vector<std::uint8_t> modality, SignalGrid grid) {
    write(folder / "a.h5", sample::header(s), s.fields, std::move(modality), grid);
    std::string out;
    for (const std::string& f : verify_trace(folder / "a.h5"))
      out += f + "\n";
    return out;
  };
  CHECK(findings({1, 1, 1, 1, 0, 0}, {2, 2}) == "");
  CHECK(findings({1, 1, 1, 1, 0, 0}, {1, 2}) == "");  // two pictures
  CHECK(findings({1, 1, 1, 1, 0, 0}, {}) == "");
  // of the last sequence nobody knows whether the recording stopped in its picture
  CHECK(findings({1, 1, 1, 0, 0, 0}, {2, 2}) ==
        "1 sequences have another number of rows that are no text than their grid has places "
        "(first: row 0)\n");
  CHECK(findings({0, 0, 0, 0, 0, 0}, {2, 2}) ==
        "1 sequences have another number of rows that are no text than their grid has places "
        "(first: row 0)\n");
  CHECK(findings({1, 1, 1, 1, 9, 0}, {2, 2}) ==
        "2 rows are of a modality that the trace does not name (first: row 4)\n");
}

TEST_CASE("pictures are refused by a trace that was begun as one of text") {
  const sample::Folder folder;
  const sample::Shape s = shape_of(false);
  const TraceHeader h = sample::header(s);
  const std::string why =
      "rows of pictures or sounds for a trace that was begun without modalities";
  CHECK(refusal([&] { write(folder / "a.h5", h, s.fields, {1, 0, 0, 0, 0, 0}, {}); }) == why);
  CHECK(refusal([&] { write(folder / "b.h5", h, s.fields, {0, 0, 0, 0, 0, 0}, {1, 1}); }) == why);
  CHECK(refusal([&] { write(folder / "c.h5", h, s.fields, {0, 0, 0, 0, 0, 0}, {}); }) == "");
}

TEST_CASE("a journal keeps the grids of pictures, and is as it was where there are none") {
  const sample::Folder folder;
  for (const bool modality : {false, true}) {
    const sample::Shape s = shape_of(modality);
    const auto path = folder / (modality ? "mixed.h5" : "text.h5");
    {
      TraceWriter w(path, sample::header(s), {.fields = s.fields});
      sample::append(w, s, 0, 192);
      w.commit(0);
      sample::append(w, s, 192, 400);
      w.commit(1);
    }
    const std::filesystem::path part = path.string() + ".part";
    const JournalContent journal = read_journal(part);
    REQUIRE(journal.commits.size() == 2);
    CHECK(journal.commits[0].sequences.at(1).grid == (modality ? SignalGrid{2, 2} : SignalGrid{}));
    rebuild_from_journal(part, folder / "again.h5.part");
    const TraceReader again(folder / "again.h5.part");
    CHECK(again.tokens() == 400);
    CHECK(sample::difference(again, s, 0, 400) == "");
    std::filesystem::remove(folder / "again.h5.part");
  }
}
