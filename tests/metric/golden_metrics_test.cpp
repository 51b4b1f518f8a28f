// Every golden file, every id it lists: counts exactly, figures from numbers that a trace stores as
// float to 1e-5, everything else to 1e-10.
#include "analysis/golden/golden_metrics.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "lib/core/error.h"
#include "tests/metric/golden_files.h"
#include "tests/skip.h"

using namespace moe;

TEST_CASE("every golden metric has its expected value") {
  if (!std::filesystem::exists(shared_golden("metrics")))
    return test::skip("no " + shared_golden("metrics").string());
  REQUIRE(has_golden_metrics(shared_golden("metrics")));
  int files = 0;
  int ids = 0;
  for (const GoldenMetricResult& r : verify_golden_metrics(shared_golden("metrics"))) {
    INFO(r.file << ": " << r.where);
    CHECK(r.passed);
    CHECK(r.error <= 1e-10);
    CHECK(r.float_error <= 1e-5);
    CHECK(r.ids > 0);
    ++files;
    ids += r.ids;
  }
  CHECK(files == 22);
  CHECK(ids == 239);
  if (std::filesystem::exists(shared_golden("layers")))
    CHECK_FALSE(has_golden_metrics(shared_golden("layers")));
}

TEST_CASE("every golden figure by modality has its expected value") {
  const auto folder = shared_golden("modal") / "layers";
  if (!std::filesystem::exists(folder))
    return test::skip("no " + folder.string());
  for (const char* name : {"trace_modality.h5", "trace_modality_none.h5"}) {
    REQUIRE(has_golden_metrics(folder / name));
    const GoldenMetricResult r = verify_golden_metric(folder / name);
    INFO(r.file << ": " << r.where);
    CHECK(r.passed);
    CHECK(r.error <= 1e-10);
    CHECK(r.float_error <= 1e-5);
    CHECK(r.ids == 17);
  }
}

TEST_CASE(
    "a file of expected values that is damaged is a failed case, and a folder that is not there an "
    "error") {
  const auto folder = std::filesystem::temp_directory_path() / "moe-golden-metrics-test";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "torn.h5") << "not hdf5";
  CHECK_FALSE(has_golden_metrics(folder));
  const auto all = verify_golden_metrics(folder);
  REQUIRE(all.size() == 1);
  CHECK_FALSE(all[0].passed);
  CHECK(all[0].where.find("torn.h5") != std::string::npos);
  std::filesystem::remove_all(folder);
  CHECK_THROWS_AS(verify_golden_metrics(folder), Error);
}
