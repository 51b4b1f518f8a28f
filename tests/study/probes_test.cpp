// What studies and reports read of profiled runs and of those whose gradient noise was estimated.
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>

#include "analysis/curves/curves.h"
#include "lib/core/text.h"
#include "lib/study/measure.h"
#include "tests/files/scratch.h"

using namespace moe;

namespace {

// A unit's folder with a run of four logged steps, as moe train writes them.
void put_run(const test::Scratch& scratch) {
  std::filesystem::create_directories(scratch / "run");
  scratch.put("run/run.json", R"({"model":"m","seed":1,"options":{}})");
  std::string lines;
  // traces 100 200 300 400, squares 1 -1 3 1; expert 1 of layer 1 never got a token
  const double square[] = {1, -1, 3, 1};
  const double seconds[] = {9, 1, 3, 2};
  for (int i = 0; i < 4; ++i) {
    const double trace = 100 * (i + 1);
    lines += concat(R"({"step":)", i + 1, R"(,"loss":2,"noise_trace":)", trace,
                    R"(,"noise_square":)", square[i], R"(,"profile":{"steps":)", i == 1 ? 1 : 2,
                    R"(,"seconds":)", seconds[i], R"(,"routing":)", seconds[i] / 4, R"(,"rest":)",
                    seconds[i] * 3 / 4, R"(},"layers":[{"layer":0,"noise_trace":[)", trace, ",",
                    2 * trace, R"(],"noise_square":[2,1]},{"layer":1,"noise_trace":[)", trace,
                    R"(,0],"noise_square":[5,0]}]})", "\n");
  }
  scratch.put("run/metrics.jsonl", lines);
}

double measured(const test::Scratch& scratch, const std::string& spec) {
  return Measure(spec).value(scratch / "");
}

}  // namespace

TEST_CASE("the noise scale of a run is a ratio of sums over its logged steps") {
  const test::Scratch scratch;
  put_run(scratch);
  CHECK(measured(scratch, "noise_scale") == Approx(1000.0 / 4));
  CHECK(measured(scratch, "noise_scale:last=2") == Approx(700.0 / 4));
  CHECK(measured(scratch, "noise_scale:last=1") == Approx(400));
  CHECK(measured(scratch, "noise_scale:last=9") == Approx(250));
  // layer 0: 1000 / 8 and 2000 / 4; layer 1: 1000 / 20, and an expert without any gradient
  CHECK(measured(scratch, "noise_scale:of=experts,experts=most,layers=first") == Approx(500));
  CHECK(measured(scratch, "noise_scale:of=experts,experts=mean,layers=first") == Approx(312.5));
  CHECK(measured(scratch, "noise_scale:of=experts,experts=most,layers=last") == Approx(50));
  CHECK(noise_scale(5, 0) == INFINITY);  // no signal is left
  CHECK(noise_scale(-5, 2) == 0);        // no noise is
  CHECK(std::isnan(noise_scale(0, 0)));
  CHECK_THROWS_WITH(Measure("noise_scale:of=layers"), "noise_scale: of=layers is not known");
}

TEST_CASE("shares of a step's time are those of its seconds, without the first line") {
  const test::Scratch scratch;
  put_run(scratch);
  const TrainingLog log = read_training_log(scratch / "run");
  REQUIRE(log.step_times.size() == 11);
  CHECK(log.step_times[0].first == "seconds");
  CHECK(log.step_times[0].second == Approx((1 * 1 + 2 * 3 + 2 * 2) / 5.0));
  CHECK(measured(scratch, "time_share:part=routing") == Approx(0.25));
  CHECK_THROWS_WITH(measured(scratch, "time_share:part=rooting"),
                    "no part of a step is called 'rooting'");
  CHECK_THROWS_WITH(Measure("time_share"), "time_share does not say of which part");
  const Report r = training_curves({log});
  const auto table = std::ranges::find(r.tables, "training_time", &Table::id);
  REQUIRE(table != r.tables.end());
  const auto& parts = std::get<std::vector<std::string>>(table->columns[0].cells);
  CHECK(parts.front() == "step");
  CHECK(parts[1] == "routing");
  CHECK(parts.back() == "rest");
  CHECK(std::get<std::vector<double>>(table->columns[2].cells)[1] == Approx(25));
  const auto curve = std::ranges::find(r.tables, "training_noise_scale", &Table::id);
  REQUIRE(curve != r.tables.end());
  const auto& points = std::get<std::vector<double>>(curve->columns[1].cells);
  CHECK(points.front() == Approx(100));
  CHECK(points.back() == Approx(250));
}

TEST_CASE("a run without the probes says which option was missing") {
  const test::Scratch scratch;
  std::filesystem::create_directories(scratch / "run");
  scratch.put("run/run.json", R"({"model":"m","seed":1,"options":{}})");
  scratch.put("run/metrics.jsonl", R"({"step":1,"loss":2,"layers":[]})"
                                   "\n");
  CHECK(test::refusal([&] { measured(scratch, "noise_scale"); }).starts_with("2: no line of "));
  CHECK(test::refusal([&] {
          measured(scratch, "time_share:part=plan");
        }).ends_with("was not profiled"));
  CHECK(training_curves({read_training_log(scratch / "run")}).tables.size() == 2);
}
