// The worked numbers of joint.h and chance.h.
#include <catch2/catch.hpp>
#include <cmath>

#include "analysis/metric/chance.h"
#include "analysis/metric/joint.h"
#include "lib/core/load.h"
#include "lib/trace/golden.h"
#include "tests/metric/golden_files.h"
#include "tests/skip.h"

using namespace moe;

namespace {
Counts counts(std::vector<std::vector<std::int64_t>> rows) {
  Counts out(Index(rows.size()), Index(rows[0].size()));
  for (std::size_t r = 0; r < rows.size(); ++r)
    std::copy(rows[r].begin(), rows[r].end(), out.row(Index(r)).begin());
  return out;
}
}  // namespace

TEST_CASE("formulas on joint counts give the worked numbers of their header") {
  const Counts j = counts({{3, 1}, {0, 4}});
  CHECK(column_sums(j) == std::vector<std::int64_t>{3, 5});
  CHECK(row_sums(j) == std::vector<std::int64_t>{4, 4});
  CHECK(entropy_bits(row_sums(j)) == Approx(1));
  CHECK(mutual_information_bits(j) ==
        Approx(3 / 8. * std::log2(2.) + 1 / 8. * std::log2(.4) + 4 / 8. * std::log2(1.6))
            .epsilon(1e-12));
  CHECK(mutual_information_bits(j) == Approx(0.5488).epsilon(1e-3));
  CHECK(mutual_information_bits(counts({{2, 4}, {1, 2}})) == Approx(0).margin(1e-12));
  CHECK(best_guess_share(j) == 0.875);
  CHECK(max_lift(j) == Approx(2));
  CHECK(total_variation(j)(0, 1) == Approx(0.75));
  CHECK(std::isnan(total_variation(counts({{1, 0}, {0, 0}}))(0, 1)));
  const Counts pairs = counts({{5, 2}, {2, 4}});
  CHECK(coactivation_conditional(pairs)(0, 1) == Approx(0.4));
  CHECK(coactivation_npmi(pairs, 8)(0, 1) == Approx(std::log(16. / 20) / -std::log(2. / 8)));
  CHECK(coactivation_npmi(pairs, 8)(0, 1) == Approx(-0.1610).epsilon(1e-3));
  CHECK(coactivation_npmi(counts({{3, 0}, {0, 2}}), 8)(0, 1) == -1);
  CHECK(coactivation_npmi(counts({{8, 8}, {8, 8}}), 8)(0, 1) == 0);
  CHECK(coactivation_max_lift(pairs, 8) == Approx(0.8));
  CHECK(std::isnan(best_guess_share(Counts(2, 2))));
  CHECK(std::isnan(max_lift(Counts(2, 2))));
  CHECK(std::isnan(mutual_information_bits(Counts(2, 2))));
}

TEST_CASE("a capacity that rounding puts a hair above a whole number is that number") {
  // mean 100: 100 * 1.1 is 110.00000000000001, and 110 slots an expert hold all but two of 112
  std::vector<std::int64_t> uneven(10, 100);
  uneven[0] = 112;
  uneven[1] = 88;
  CHECK(100 * 1.1 > 110);
  CHECK(capacity_drop_rate(uneven, 1.1) == Approx(0.002));
  // what is above by more than rounding gets the next slot
  CHECK(capacity_drop_rate(uneven, 1.100001) == Approx(0.001));
  CHECK(capacity_drop_rate(uneven, 1.12) == 0);
}

TEST_CASE("adjusted mutual information by hand") {
  const auto ami = [](std::vector<std::vector<std::int64_t>> rows) {
    return adjusted_mutual_information(counts(std::move(rows)));
  };
  CHECK(ami({{2, 0}, {0, 2}}) == Approx(1));
  CHECK(ami({{0, 5, 0}, {5, 0, 0}, {0, 0, 5}}) == Approx(1));
  // Two and two of four: both cells of a row hold one token in 4 of 6 shufflings, which is 0 bits,
  // else the information is 1 bit: 1/3 at random.
  CHECK(ami({{1, 1}, {1, 1}}) == Approx((0 - 1 / 3.) / (1 - 1 / 3.)));
  // {{3,1},{0,4}}: 3 of 8 in the first column, x of them in the first row: 4, 24, 24, 4 of 56
  // shufflings for x = 0..3. x = 0 and x = 3
  const double one_sided =
      3 / 8. * std::log2(2.) + 1 / 8. * std::log2(.4) + 4 / 8. * std::log2(1.6);
  const double mixed = 2 / 8. * std::log2(4 / 3.) + 2 / 8. * std::log2(.8) +
                       1 / 8. * std::log2(2 / 3.) + 3 / 8. * std::log2(1.2);
  const double lot = (8 * one_sided + 48 * mixed) / 56;
  const double h = (1 + entropy_bits(std::vector<std::int64_t>{3, 5})) / 2;
  CHECK(ami({{3, 1}, {0, 4}}) == Approx((one_sided - lot) / (h - lot)));
  CHECK(ami({{3, 4}, {0, 0}}) == 0);
  CHECK(ami({{3, 0}, {4, 0}}) == 0);
  CHECK(ami({{0, 0}, {0, 0}}) == 0);
  CHECK(ami({{1, 0}, {0, 1}}) == 1);
  CHECK(ami({{250000, 250000}, {250000, 250000}}) == Approx(0).margin(1e-5));
}

TEST_CASE("closed chance values agree with the golden table") {
  const auto path = shared_golden("metrics") / "null_values.h5";
  if (!std::filesystem::exists(path))
    return test::skip("no " + path.string());
  const GoldenFile f(path);
  const auto in = [&](const char* name, std::size_t i) {
    return double(f.integers(std::string("input/") + name).values[i]);
  };
  const auto same = [&](const char* id, std::size_t i, double mine) {
    INFO(id << " row " << i);
    CHECK(mine == Approx(f.reals(std::string("expected/null_") + id).values[i]).epsilon(1e-10));
  };
  for (std::size_t i = 0; i < 4; ++i) {
    const double e = in("num_experts", i);
    const double k = in("top_k", i);
    const double t = in("num_tokens", i);
    same("load_cv", i, chance::load_cv(e, k, t));
    same("load_jain", i, chance::load_jain(e, k, t));
    same("load_dead_fraction", i, chance::load_dead(e, k, t));
    same("repeat_any", i, chance::repeat_any(e, k));
    same("distinct_experts", i, chance::distinct_experts(e, k, in("batch_size", i)));
    same("a2a_distinct_ranks", i, chance::distinct_ranks(int(e), k, int(in("ep_size", i))));
    same("cache_hit_rate_lru", i, chance::lru_hit_rate(e, k, in("cache_size", i)));
    same("domain_expert_mi_bits", i, chance::mi_bits(in("num_domains", i), e, k, t * k));
    same("token_expert_mi_bits", i, chance::mi_bits(in("vocab_size", i), e, k, t * k));
    same("crosslayer_mi_bits", i, chance::crosslayer_mi_bits(e, e, t));
  }
}

TEST_CASE("simulated chance values agree with closed ones, and with the published figure") {
  const auto sim = chance::simulate_load(256, 8, 4096, 2, [](auto c) {
    const LoadFigures f = load_figures(c);
    return std::vector<double>{f.cv, f.maxvio};
  });
  CHECK(sim[0].mean == Approx(0.087).epsilon(0.02));
  CHECK(sim[1].mean == Approx(0.25).epsilon(0.1));
  const auto few = chance::simulate_load(8, 2, 20, 2, [](auto c) {
    const LoadFigures f = load_figures(c);
    return std::vector<double>{f.cv * f.cv, f.dead_fraction};
  });
  CHECK(few[0].mean == Approx(chance::load_cv(8, 2, 20) * chance::load_cv(8, 2, 20)).epsilon(0.05));
  CHECK(few[1].mean == Approx(chance::load_dead(8, 2, 20)).epsilon(0.2));
  chance::Labels pair(8, 2);
  CHECK(pair.share(1).mean == 1);
  CHECK(pair.share(1000000).mean == Approx(0.25).epsilon(0.02));
  CHECK(pair.entropy(1).mean == 1);
  CHECK(pair.entropy(1000000).mean == Approx(3).epsilon(1e-5));
  const std::vector<std::int64_t> frequent{5000, 5000, 5000};
  const std::vector<std::int64_t> once(64, 1);
  CHECK(pair.mi_bits(frequent).mean == Approx(chance::mi_bits(3, 8, 2, 30000)).epsilon(1e-9));
  // 3 bits of experts, 1 bit left by a token's two
  CHECK(pair.mi_bits(once).mean == Approx(2).margin(0.05));
  const auto step = [](int e, std::int64_t n) {
    return chance::simulate_steps(
               e, e, n, 1,
               [](const Counts& c) { return std::vector<double>{best_guess_share(c)}; })[0]
        .mean;
  };
  CHECK(step(8, 1000000) == Approx(0.125).epsilon(0.03));
  CHECK(step(1, 10) == 1);
  CHECK(std::isnan(chance::closest_pairs(8, 1, 100, 1, 10).max_lift.mean));
  CHECK(chance::closest_pairs(2, 2, 1000, 1, 10).listed[0].lift.mean == 1);
  CHECK(chance::largest_cosine(1, 64) == Approx(0).margin(1e-9));
  CHECK(chance::largest_cosine(100, 1e6) == Approx(2.5076e-3).epsilon(1e-3));  // of normal numbers
  CHECK(chance::mean_root(4) == Approx(0.93999).epsilon(1e-4));
  CHECK(std::isnan(
      chance::simulate_load(2, 3, 10, 1, [](auto) { return std::vector<double>{0}; })[0].mean));
}

TEST_CASE("the fullest of many equal cells") {
  for (const auto& [cells, tokens] : {std::pair{25, 1536}, {256, 4096}, {4096, 512}, {8, 20000}}) {
    std::vector<double> sum(3, 0);
    constexpr int runs = 300;
    for (std::uint64_t run = 0; run < runs; ++run) {
      Rng rng(9, run);
      std::vector<int> held(std::size_t(cells), 0);
      for (int t = 0; t < tokens; ++t)
        ++held[std::size_t(rng.below(cells))];
      std::sort(held.rbegin(), held.rend());
      for (std::size_t i = 0; i < 3; ++i)
        sum[i] += held[i] / double(runs);
    }
    const auto mine = chance::fullest_cells(cells, tokens, 3);
    INFO(cells << " cells, " << tokens << " tokens");
    for (std::size_t i = 0; i < 3; ++i)
      CHECK(mine[i] == Approx(sum[i]).epsilon(0.02));
  }
  CHECK(chance::fullest_cells(1e150, 65536, 2) == std::vector<double>{1, 1});
}
