// The reader of golden files: against a file made here, and the shared ones where they are.
#include <catch2/catch.hpp>
#include <fstream>

#include "lib/core/error.h"
#include "lib/trace/golden.h"
#include "tests/metric/golden_files.h"
#include "tests/skip.h"

using namespace moe;

TEST_CASE("a golden file that is missing or is no HDF5 is one sentence") {
  CHECK_THROWS_WITH(GoldenFile("/nowhere/x.h5"), "cannot open '/nowhere/x.h5' as HDF5");
  const auto path = std::filesystem::temp_directory_path() / "moe-golden-test.h5";
  std::ofstream(path) << "not hdf5";
  CHECK_THROWS_AS(GoldenFile(path), Error);
  std::filesystem::remove(path);
}

TEST_CASE("attributes and datasets of a golden file are read whatever their stored type") {
  const auto path = shared_golden("metrics") / "load_even.h5";
  if (!std::filesystem::exists(path))
    return test::skip("no " + path.string());
  const GoldenFile f(path);
  CHECK(f.text("case") == "load_even");
  CHECK(f.integer("num_experts") == 8);
  CHECK(f.real("num_experts") == 8.0);
  CHECK(f.real_list("param_capacity_factors") == std::vector<double>{0.5, 1, 1.25, 2});
  CHECK(f.integer_list("param_topn") == std::vector<std::int64_t>{1, 2, 4, 64});
  CHECK(f.is_text("case"));
  CHECK_FALSE(f.is_text("seed"));
  CHECK(f.is_real("param_capacity_factors"));
  const auto ids = f.integers("trace/expert_ids");
  CHECK(ids.dims == std::vector<Index>{48, 2, 2});
  CHECK(ids.size() == 192);
  CHECK(f.integers("expected/load_counts").dims == std::vector<Index>{2, 8});
  CHECK(f.reals("expected/ep_balancedness_sum_ratio").dims.empty());
  CHECK(f.integers("trace/valid").values.size() == 48);
  CHECK_FALSE(f.has("trace/logits"));
  CHECK_FALSE(f.has("nothing/at/all"));
  CHECK(f.has_attribute("seed"));
  CHECK_THROWS_AS(f.integers("expected/load_cv"), Error);
  CHECK_THROWS_AS(f.reals("expected/none"), Error);
  CHECK_THROWS_AS(f.integer("param_topn"), Error);
  CHECK_THROWS_AS(f.integer("case"), Error);
  const auto all = f.datasets();
  CHECK(std::find(all.begin(), all.end(), "expected/load_gini") != all.end());
}
