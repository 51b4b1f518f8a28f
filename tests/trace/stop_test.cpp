// A recording stopped at every single call that changes its file: see writes.h.
#include <catch2/catch.hpp>

#include <cstring>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/trace/times.h"
#include "tests/trace/sample.h"
#include "tests/trace/writes.h"

using namespace moe;

namespace {

constexpr std::uint64_t rows = 6000;

// Records 6,000 rows with two commits on the way; `acknowledged` hears what is safe.
void record(const std::filesystem::path& path, const sample::Shape& shape,
            std::uint64_t& acknowledged) {
  set_threads(1);
  TraceWriterOptions options;
  options.fields = shape.fields;
  options.acknowledged = [&](std::uint64_t n) {
    acknowledged = n;
  };
  TraceWriter writer(path, sample::header(shape), options);
  sample::append(writer, shape, 0, 1000);
  writer.commit(10);
  sample::append(writer, shape, 1000, rows);
  writer.finish();
}

// What is there after a stop: every acknowledged row, as it was recorded, or nothing where there
// was none.
void check_what_is_left(const sample::Folder& folder, const sample::Shape& shape,
                        std::uint64_t acknowledged, const std::string& whole) {
  const auto path = folder / "a.h5";
  const auto part = folder / "a.h5.part";
  if (std::filesystem::exists(path)) {
    CHECK(sample::bytes(path) == whole);
    return;
  }
  if (acknowledged == 0 && std::filesystem::exists(part)) {
    std::string refused;
    try {
      const TraceReader r(part);
    } catch (const Error& e) {
      refused = e.what();
    }
    CAPTURE(refused);
    CHECK((refused.empty() || refused.find("before its first row") != refused.npos));
  }
  if (acknowledged > 0) {
    const TraceReader r(part);
    CHECK(r.tokens() >= acknowledged);
    CHECK_FALSE(r.state().complete);
    CHECK(sample::difference(r, shape, 0, r.tokens()) == "");
    CHECK(recover_trace(part, folder / "out.h5", false) == r.tokens());
    CHECK(verify_trace(folder / "out.h5") == std::vector<std::string>{});
  }
}

// The recording goes on, or begins anew where nothing was acknowledged, to the same rows.
void check_that_it_goes_on(const sample::Folder& folder, const sample::Shape& shape,
                           std::uint64_t acknowledged) {
  const auto path = folder / "a.h5";
  if (std::filesystem::exists(path))
    return;
  TraceWriterOptions options;
  options.fields = shape.fields;
  if (acknowledged > 0)
    options.resume_rows = std::int64_t(acknowledged);
  options.force = acknowledged == 0;
  TraceWriter writer(path, sample::header(shape), options);
  sample::append(writer, shape, acknowledged, rows);
  writer.finish();
  CHECK(sample::difference(TraceReader(path), shape, 0, rows) == "");
}

}  // namespace

TEST_CASE("a recording stopped at any of its writes keeps what it acknowledged") {
  sample::Shape shape;
  shape.fields.kept = true;
  const sample::Folder first;
  std::uint64_t ignored = 0;
  const int writes = test::writes_of([&] { record(first / "a.h5", shape, ignored); });
  const std::string whole = sample::bytes(first / "a.h5");
  REQUIRE(writes > 100);
  int after_acknowledgement = 0;
  for (int n = 0; n < writes; ++n) {
    INFO("stopped before write " << n << " of " << writes);
    const sample::Folder folder;
    const test::Shared<std::uint64_t> acknowledged;
    REQUIRE(test::stopped_at(n, [&] { record(folder / "a.h5", shape, *acknowledged); }));
    check_what_is_left(folder, shape, *acknowledged, whole);
    if (n % 8 == 0 || n + 12 > writes)
      check_that_it_goes_on(folder, shape, *acknowledged);
    after_acknowledgement += *acknowledged > 0;
  }
  CHECK(after_acknowledgement > 50);
}

TEST_CASE("a file that HDF5 marks as being changed is read, and not touched") {
  const sample::Folder folder;
  const sample::Shape shape;
  sample::write(folder / "a.h5", shape, 500);
  std::string bytes = sample::bytes(folder / "a.h5");
  bytes[11] = 1;  // of the superblock: open for writing, by a writer that lets no reader in
  const std::uint32_t sum =
      metadata_checksum({reinterpret_cast<const std::uint8_t*>(bytes.data()), 44});
  std::memcpy(bytes.data() + 44, &sum, sizeof sum);
  sample::put_bytes(folder / "b.h5.part", bytes);
  CHECK(sample::difference(TraceReader(folder / "b.h5.part"), shape, 0, 500) == "");
  CHECK(sample::bytes(folder / "b.h5.part") == bytes);
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& e : std::filesystem::directory_iterator(folder.path))
    ++files;
  CHECK(files == 2);
  sample::put_bytes(folder / "c.h5.part", bytes.substr(0, bytes.size() - 8192));
  CHECK_THROWS_WITH(TraceReader(folder / "c.h5.part"),
                    Catch::Contains("truncated") && !Catch::Contains("first row"));
}
