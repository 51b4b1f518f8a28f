// Load figures on counts small enough to work by hand.
#include <catch2/catch.hpp>
#include <cmath>

#include "lib/core/load.h"

using namespace moe;

TEST_CASE("load figures of {6,2,0,0} are those worked in the header") {
  const std::int64_t counts[] = {6, 2, 0, 0};
  const LoadFigures f = load_figures(counts);
  CHECK(f.assignments == 8);
  CHECK(f.dead == 2);
  CHECK(f.cv == Approx(std::sqrt(6.0) / 2).epsilon(1e-14));
  CHECK(f.cv_sample == Approx(std::sqrt(8.0) / 2).epsilon(1e-14));
  CHECK(f.max_over_mean == 3);
  CHECK(f.maxvio == 2);
  CHECK(f.avgvio == 1);
  CHECK(f.minvio == 1);
  CHECK(std::isinf(f.max_over_min));
  CHECK(f.entropy == Approx(0.5623351446188083).epsilon(1e-14));
  CHECK(f.entropy_norm == Approx(0.5623351446188083 / std::log(4)).epsilon(1e-14));
  CHECK(f.effective == Approx(std::exp(0.5623351446188083) / 4).epsilon(1e-14));
  CHECK(f.jain == Approx(0.4).epsilon(1e-14));
  CHECK(f.gini == Approx(0.625).epsilon(1e-14));
  CHECK(f.dead_fraction == 0.5);
  CHECK(load_topn_coverage(counts, 1) == 0.75);
  CHECK(load_topn_coverage(counts, 99) == 1);
  CHECK(capacity_drop_rate(counts, 1) == 0.5);
  CHECK(capacity_drop_rate(counts, 3) == 0);
  CHECK(tile_padding_waste(counts, 4) == Approx(1 - 8.0 / 12));
}

TEST_CASE("even load is zero imbalance, one expert is even, nothing at all has no figures") {
  const std::int64_t even[] = {5, 5, 5};
  const LoadFigures f = load_figures(even);
  CHECK(f.cv == 0);
  CHECK(f.maxvio == 0);
  CHECK(f.max_over_min == 1);
  CHECK(f.entropy_norm == Approx(1));
  CHECK(f.gini == 0);
  const std::int64_t one[] = {7};
  const std::int64_t none[] = {0, 0};
  CHECK(load_figures(one).entropy_norm == 1);
  CHECK(load_figures(one).cv == 0);
  CHECK(load_figures(none).dead_fraction == 1);
  CHECK(std::isnan(load_figures(none).cv));
  CHECK(std::isnan(load_figures({}).maxvio));
}
