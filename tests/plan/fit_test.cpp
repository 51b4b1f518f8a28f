// The model of clusters against what others published, each row judged by a fit that has not seen
// it.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <iostream>

#include "lib/plan/fit.h"

using namespace moe;
using namespace moe::plan;

TEST_CASE("published throughputs are predicted within a band by fits that have not seen them") {
  const std::vector<FitRow> rows = fit_rows();
  const std::vector<Judged> by = leave_one_out(rows);
  REQUIRE(rows.size() >= 35);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    CAPTURE(std::string(rows[i].run->model), rows[i].device, std::string(rows[i].run->layout));
    CHECK(by[i].alone > 0.3);
    CHECK(by[i].alone < 2.2);
    if (std::getenv("MOE_SHOW_FIT")) {
      std::cout << rows[i].run->model << ' ' << rows[i].device << ' ' << rows[i].run->layout << ' '
                << rows[i].run->tokens << "  " << by[i].alone << ' ' << by[i].strange << '\n';
    }
  }
  const Calibration& c = calibration();
  if (std::getenv("MOE_SHOW_FIT")) {
    for (std::size_t t = 0; t < term_count; ++t)
      std::cout << name_of(Term(t)) << ' ' << c.factors[t] << '\n';
    std::cout << c.alone.half << ' ' << c.alone.most << ' ' << c.alone.worst << "  "
              << c.strange.half << ' ' << c.strange.most << ' ' << c.strange.worst << '\n';
  }
  // a model of four numbers reaches 19 % and 32 % on 23 of these rows
  CHECK(c.alone.half < 0.19);
  CHECK(c.alone.most < 0.32);
}

TEST_CASE("which of two runs of a model is faster is mostly foretold") {
  const std::vector<FitRow> rows = fit_rows();
  const std::vector<Judged> by = leave_one_out(rows);
  int right = 0;
  int clear = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const double published = rows[i].run->tokens / rows[j].run->tokens;
      if (rows[i].run->model != rows[j].run->model || std::abs(std::log(published)) < 0.25)
        continue;
      const double predicted = published * by[i].alone / by[j].alone;
      ++clear;
      right += (predicted > 1) == (published > 1);
      if (std::getenv("MOE_SHOW_FIT") && (predicted > 1) != (published > 1)) {
        std::cout << rows[i].run->model << ' ' << rows[i].device << ' ' << rows[i].run->layout
                  << " / " << rows[j].device << ' ' << rows[j].run->layout << ' ' << published
                  << ' ' << predicted << '\n';
      }
    }
  }
  INFO(right << " of " << clear);
  if (std::getenv("MOE_SHOW_FIT"))
    std::cout << right << " of " << clear << '\n';
  CHECK(clear > 80);
  CHECK(right >= 0.9 * clear);
}

TEST_CASE("exchanges of 16 to 64 ranks are predicted within 15 % by the others") {
  int seen = 0;
  for (const PublishedExchange& e : published_exchanges()) {
    if (e.shape.ranks < 16)
      continue;
    INFO(e.shape.ranks << " ranks, rows of " << e.row);
    CHECK(predicted_seconds(e, exchange_factors(&e)) == Approx(e.seconds()).epsilon(0.15));
    ++seen;
  }
  CHECK(seen == 6);
}

TEST_CASE("copies of tokens are those that were drawn and worked out elsewhere") {
  const ExchangeShape v3{.experts = 256, .k = 8, .ranks = 64, .gpus = 8, .limit_nodes = 0};
  CHECK(expected_copies(v3).nodes == Approx(5.29).epsilon(2e-3));
  CHECK(expected_copies(v3).remote_nodes == Approx(4.633).epsilon(1e-3));
  ExchangeShape limited = v3;
  limited.limit_nodes = 4;
  CHECK(expected_copies(limited).remote_nodes == Approx(3.47).epsilon(0.01));
  limited.limit_nodes = 2;
  CHECK(expected_copies(limited).remote_nodes == Approx(1.75).epsilon(0.01));
  CHECK(rows_sent(v3, Dispatch::flat).net == Approx(7.0));
  CHECK(rows_sent(v3, Dispatch::node).net < rows_sent(v3, Dispatch::device).net);
  CHECK(rows_sent({.experts = 8, .k = 2, .ranks = 1, .gpus = 1}, Dispatch::flat).net == 0);
}
