// Study files: what is read, what is refused and with which line, and the command lines that come
// of it.
#include <catch2/catch.hpp>

#include "lib/core/error.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"
#include "lib/study/builtin.h"
#include "lib/study/study.h"
#include "lib/study/units.h"

using namespace moe;

namespace {

const std::string plain = R"(about = "a"
question = "b?"
seeds = 2
measures = ["loss"]
commands = ["train --data {data} --steps {steps} {options}"]
[set]
data = "zipf"
steps = 10
[quick]
steps = 2
seeds = 1
[[arm]]
name = "one"
options = "--balance none"
[[arm]]
name = "two"
set = { steps = 20 }
)";

std::string error_of(const std::string& text, const StudyChanges& changes = {}) {
  try {
    parse_study(text, "s", changes);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

std::string line_of(const Words& words) {
  return join(words, " ");
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  REQUIRE(at != text.npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("a study becomes command lines, seed by seed") {
  const Study s = parse_study(plain, "s", {});
  const std::vector<Unit> units = units_of(s, "d");
  REQUIRE(units.size() == 4);
  CHECK(line_of(units[0].commands[0]) ==
        "train --data zipf --steps 10 --balance none --seed 1 -o d/arms/one/seed-1/run");
  CHECK(line_of(units[1].commands[0]) ==
        "train --data zipf --steps 20 --seed 1 -o d/arms/two/seed-1/run");
  CHECK(units[2].seed == 2);
  CHECK(s.baseline == "one");
}

TEST_CASE("quick values, --set and --seeds stand over the file's") {
  CHECK(line_of(units_of(parse_study(plain, "s", {.quick = true}), "d")[0].commands[0])
            .find("--steps 2 ") != std::string::npos);
  CHECK(units_of(parse_study(plain, "s", {.quick = true}), "d").size() == 2);
  const Study s = parse_study(plain, "s", {.set = {{"data", "clusters"}}, .seeds = 5});
  CHECK(units_of(s, "d").size() == 10);
  CHECK(line_of(units_of(s, "d")[0].commands[0]).starts_with("train --data clusters"));
  CHECK(error_of(plain, {.set = {{"dta", "x"}}}).find("dta") != std::string::npos);
}

TEST_CASE("what is no study is refused with its line") {
  CHECK(error_of(replaced(plain, "seeds = 2", "seds = 2")).find("line 3") != std::string::npos);
  CHECK(error_of(replaced(plain, "seeds = 2", "seds = 2")).find("'seeds' is near") !=
        std::string::npos);
  CHECK(error_of(replaced(plain, "seeds = 2", "seeds = \"2\"")).find("line 3") !=
        std::string::npos);
  CHECK(error_of(replaced(plain, "seeds = 2", "seeds = 2 2")).find("line 3") != std::string::npos);
  CHECK(error_of(replaced(plain, "set = { steps = 20 }", "sets = 1")).find("line 17") !=
        std::string::npos);
  CHECK(error_of(replaced(plain, "name = \"two\"", "name = \"one\"")).find("two arms") !=
        std::string::npos);
  CHECK(error_of(replaced(plain, "{steps}", "{stepps}")) == "");  // said when lines are filled
  CHECK_THROWS_AS(units_of(parse_study(replaced(plain, "{steps}", "{stepps}"), "s", {}), "d"),
                  Error);
  CHECK(error_of(replaced(plain, "[\"loss\"]", "[\"lossy\"]")).find("lossy") != std::string::npos);
  CHECK(error_of(replaced(plain, "[\"loss\"]", "[\"step_time\"]")).find("[timing]") !=
        std::string::npos);
  CHECK(error_of(replaced(plain, "[quick]\nsteps", "[quick]\nspets")).find("spets") !=
        std::string::npos);
  CHECK(error_of(plain + "[[claim]]\nsays = \"x\"\nholds = \"loss[three] > 0\"\n").find("three") !=
        std::string::npos);
}

TEST_CASE("a grid is every combination, and an option where no line names the factor") {
  const Study s = study_of_line("train --data zipf --steps {steps}",
                                {"router=softmax:k=1|softmax:k=2", "steps=3|4"}, {"loss"}, 1);
  const std::vector<Unit> units = units_of(s, "d");
  REQUIRE(units.size() == 4);
  CHECK(s.arms[1].name == "router=softmax:k=1, steps=4");
  CHECK(line_of(units[3].commands[0]) ==
        "train --data zipf --steps 4 --router softmax:k=2 --seed 1 -o "
        "d/arms/router=softmax_k=2_steps=4/seed-1/run");
  CHECK_THROWS_AS(study_of_line("train", {"router"}, {"loss"}, 1), Error);
}

TEST_CASE("a metric of a report adds a trace of unseen text and its report") {
  const Study s = study_of_line("train --data zipf --data 'clusters:seed=3'",
                                {"balance=none|switch"}, {"loss", "load_cv"}, 1);
  const Unit u = units_of(s, "d")[0];
  REQUIRE(u.commands.size() == 3);
  CHECK(line_of(u.commands[1]) ==
        "trace d/arms/none/seed-1/run --data zipf:split=valid --data "
        "clusters:seed=3,split=valid --tokens 4096 -o d/arms/none/seed-1/trace.moetrace.h5");
  CHECK(line_of(u.commands[2]) ==
        "report d/arms/none/seed-1/trace.moetrace.h5 -o d/arms/none/seed-1/report.json --metric "
        "load");
}

TEST_CASE("a run of a task is traced with its task") {
  const Study s = study_of_line("train --data zipf --task denoise:span=4", {"balance=none|switch"},
                                {"loss", "load_cv"}, 1);
  CHECK(line_of(units_of(s, "d")[0].commands[1])
            .find("--data zipf:split=valid,task={denoise:span=4} --tokens") != std::string::npos);
}

TEST_CASE("rounds of timing turn the order of the arms and cut the steps") {
  Study s = parse_study(plain + "[timing]\nrounds = 3\nsteps = 6\n", "s", {});
  const auto first = timing_units(s, "d", 1);
  const auto second = timing_units(s, "d", 2);
  REQUIRE(first.size() == 2);
  CHECK(first[0].arm == "one");
  CHECK(second[0].arm == "two");
  CHECK(option_of(second[0].commands[0], "--steps") == "6");
  CHECK(option_of(second[0].commands[0], "-o") == "d/timing/round-2/two/run");
}

TEST_CASE("words are parted as a shell parts them") {
  CHECK(shell_words("a 'b c' \"d \\\" e\" f\\ g ''") ==
        std::vector<std::string>{"a", "b c", "d \" e", "f g", ""});
  CHECK(shell_words("x='a'b") == std::vector<std::string>{"x=ab"});
  CHECK_THROWS_AS(shell_words("'open"), Error);
  for (const std::string word : {"plain", "two words", "it's", "a\\b", "{x}"})
    CHECK(shell_words(shell_quoted(word)) == std::vector<std::string>{word});
}

TEST_CASE("every built-in study can be read, and says what its size can show") {
  REQUIRE(!built_in_studies().empty());
  for (const BuiltInStudy& b : built_in_studies()) {
    INFO(b.name);
    for (const bool quick : {false, true}) {
      const Study s = parse_study(b.text, std::string(b.name), {.quick = quick});
      CHECK(s.question.ends_with("?"));
      CHECK(!s.toy.empty());
      CHECK(!s.literature.empty());
      CHECK(!units_of(s, "d").empty());
      CHECK(!s.claims.empty());
      CHECK((quick || s.seeds.size() >= 3));
    }
  }
}
