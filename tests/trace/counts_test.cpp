// /counts/per_step: written, read a few steps at a time, recovered and continued; counts that do
// not fit the model are refused, and those that no router gives are told from those that one can.
#include <catch2/catch.hpp>

#include "lib/core/error.h"
#include "lib/trace/step_counts.h"
#include "tests/skip.h"
#include "tests/trace/sample.h"

using namespace moe;

namespace {

// Two layers of 4 and 3 experts, top 2; `steps` steps of 5, 6, .. tokens.
TraceHeader counted(int steps) {
  TraceHeader h;
  for (const int experts : {4, 3}) {
    TraceLayer l;
    l.index = int(h.layers.size());
    l.experts = experts;
    l.top_k = 2;
    h.layers.push_back(l);
  }
  h.counts = Matrix<std::uint32_t>(steps, 8);
  for (int s = 0; s < steps; ++s) {
    const std::uint32_t tokens = std::uint32_t(5 + s);
    h.counts(s, 0) = tokens;  // in every token
    h.counts(s, 3) = tokens;
    h.counts(s, 4) = tokens - 1;
    h.counts(s, 5) = 2;
    h.counts(s, 6) = tokens - 1;
  }
  return h;
}

void write(const std::filesystem::path& path, const TraceHeader& h, bool append = false,
           int first_step = 0) {
  TraceWriterOptions o;
  o.append = append;
  o.fields = {false, false, false, false, false, false, false, false, false, false, false};
  TraceWriter writer(path, h, o);
  for (int s = 0; s < int(h.counts.rows()); ++s)
    writer.step({.step = first_step + s});
  writer.finish();
}

CountSurvey survey(const TraceHeader& h, std::span<const TraceStep> steps = {}) {
  return {h, steps, std::uint64_t(h.counts.rows()), [&](std::uint64_t first, std::uint64_t count) {
            StepCounts w{first, Matrix<std::uint32_t>(Index(count), h.counts.cols()), 4};
            for (Index s = 0; s < Index(count); ++s)
              std::ranges::copy(h.counts.row(Index(first) + s), w.cells.row(s).begin());
            return w;
          }};
}

bool changed_by_python(const std::filesystem::path& path, const std::string& statement) {
  const std::string script =
      "import h5py\nwith h5py.File('" + path.string() + "', 'r+') as f:\n  " + statement + "\n";
  return std::system(("/usr/bin/python3 -c \"" + script + "\" 2>/dev/null").c_str()) == 0;
}

}  // namespace

TEST_CASE("counts come back, some steps at a time") {
  const sample::Folder folder;
  const TraceHeader h = counted(9);
  write(folder / "c.h5", h);
  const TraceReader r(folder / "c.h5");
  CHECK(r.tokens() == 0);
  REQUIRE(r.count_steps() == 9);
  CHECK(r.steps().size() == 9);
  CHECK(r.counts(0, 9) == h.counts);
  const Matrix<std::uint32_t> two = r.counts(7, 2);
  CHECK(two.rows() == 2);
  CHECK(two(1, 0) == h.counts(8, 0));
  CHECK(r.counts(4, 0).empty());
  CHECK(verify_trace(folder / "c.h5").empty());
  sample::write(folder / "t.h5", {}, 10);
  CHECK(TraceReader(folder / "t.h5").count_steps() == 0);
}

TEST_CASE("a trace of counts is recovered and continued with its counts") {
  const sample::Folder folder;
  const TraceHeader h = counted(5);
  write(folder / "c.h5", h);
  recover_trace(folder / "c.h5", folder / "r.h5", false);
  CHECK(TraceReader(folder / "r.h5").counts(0, 5) == h.counts);
  CHECK(TraceReader(folder / "r.h5").steps().size() == 5);
  write(folder / "c.h5", counted(3), true, 5);
  const TraceReader r(folder / "c.h5");
  REQUIRE(r.count_steps() == 8);
  CHECK(r.counts(0, 5) == h.counts);
  CHECK(r.counts(5, 3) == counted(3).counts);
  CHECK(r.steps()[7].step == 7);
  CHECK(verify_trace(folder / "c.h5").empty());
  TraceHeader rows = counted(1);
  rows.counts = {};
  CHECK_THROWS_WITH(write(folder / "c.h5", rows, true),
                    Catch::Contains("it holds counts only, and what comes is tokens"));
  CHECK(TraceReader(folder / "c.h5").count_steps() == 8);
}

TEST_CASE("counts that do not fit the model are refused, fewer steps are said") {
  const sample::Folder folder;
  const auto path = folder / "c.h5";
  write(path, counted(4));
  if (!changed_by_python(path, "f['counts/per_step'][2, 1, 3] = 7"))
    return test::skip("no python3 with h5py");
  CHECK_THROWS_WITH(TraceReader(path), Catch::Contains("step 2 counts 7 tokens for expert 3 of MoE "
                                                       "layer 1, which has 3"));
  CHECK(verify_trace(path).size() == 1);
  std::filesystem::remove(path);
  write(path, counted(4));
  REQUIRE(changed_by_python(path,
                            "d = f['counts/per_step'][:, :, :3]; del f['counts/per_step']; "
                            "f['counts/per_step'] = d"));
  CHECK_THROWS_WITH(TraceReader(path), Catch::Contains("/counts/per_step has shape [4,2,3]"));
  std::filesystem::remove(path);
  write(path, counted(4));
  REQUIRE(changed_by_python(path, "[f['steps/' + n].resize(3, 0) for n in f['steps']]"));
  const TraceReader fewer(path);
  CHECK(fewer.count_steps() == 3);
  REQUIRE_FALSE(fewer.state().warnings.empty());
  CHECK(fewer.state().warnings[0].find("counts of 4 steps and /steps has 3") != std::string::npos);
  std::filesystem::remove(path);
  write(path, counted(4));
  REQUIRE(changed_by_python(path, "del f['steps']"));
  CHECK(TraceReader(path).steps().size() == 4);
}

TEST_CASE("top-k is believed where it divides every step") {
  TraceHeader h = counted(4);
  CHECK(survey(h).layers()[0].choices == 2);
  CHECK(survey(h).layers()[0].assignments == 2 * (5 + 6 + 7 + 8));
  CHECK(survey(h).tokens(12, 1, 0) == 6);
  CHECK(survey(h).findings().empty());
  ++h.counts(3, 1);
  const CountSurvey odd = survey(h);
  CHECK(odd.layers()[0].choices == 0);
  CHECK(odd.layers()[0].broken == 1);
  CHECK(odd.layers()[1].choices == 2);
  CHECK(odd.tokens(12, 1, 0) == -1);
  CHECK(odd.findings().empty());  // fewer choices than top-k are no mistake
  CHECK(
      odd.undivided().starts_with("top_k does not divide the assignments of MoE layer 0 (1 time)"));
  std::vector<TraceStep> steps(4);
  for (TraceStep& s : steps)
    s.num_tokens = 20;
  CHECK(survey(h, steps).tokens(12, 1, 0) == 20);
  h.capture_point = "post_capacity";
  CHECK(survey(h).layers()[1].choices == 0);
  CHECK(survey(h).undivided().empty());  // of what capacity took
}

TEST_CASE("verify remarks on counts that top-k does not divide, and calls the file whole") {
  const sample::Folder folder;
  TraceHeader h = counted(4);
  write(folder / "c.h5", h);
  CHECK(check_trace(folder / "c.h5").remarks.empty());
  ++h.counts(3, 1);
  write(folder / "odd.h5", h);
  const TraceCheck odd = check_trace(folder / "odd.h5");
  CHECK(odd.findings.empty());
  REQUIRE(odd.remarks.size() == 1);
  CHECK(odd.remarks[0] == survey(h).undivided());
}

TEST_CASE("counts that no router gives are found") {
  TraceHeader h = counted(4);
  h.counts(1, 0) += 2;  // 14 assignments of 7 tokens, 8 of them to one expert
  CHECK(survey(h).crowded().cells == 1);
  CHECK(survey(h).crowded().first_step == 1);
  CHECK(survey(h).findings().size() == 1);
  CHECK(survey(h).layers()[0].steps == 3);
  h.counts(2, 6) = 0xFFFFFFFFu;
  CHECK(survey(h).negative().cells == 1);
  CHECK(survey(h).layers()[1].choices == 2);  // the rest divides
  for (Index s = 0; s < 4; ++s)
    std::ranges::fill(h.counts.row(s).subspan(4), 0);
  CHECK(survey(h).findings().back() == "MoE layer 1 has no count in any step");
  std::ranges::fill(h.counts.flat(), 0);
  CHECK(survey(h).possible_cells() == 0);
  const std::vector<TraceStep> steps(4, {0, 0, 3, Phase::eval});
  CHECK(survey(counted(4), steps).crowded().cells == 8);  // more than three tokens an expert
}
