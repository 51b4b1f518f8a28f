// Every verb once, for real: what it prints, that JSON is JSON and alone on stdout, that pipes and
// names behave.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/program.h"

namespace moe::cli {
namespace {

using nlohmann::json;

json json_of(const Folder& f, const std::string& words) {
  INFO("moe " << words);
  const Result r = f.run(words);
  INFO(r.err);
  REQUIRE(r.code == 0);
  REQUIRE(r.out.find("NaN") == r.out.npos);
  return json::parse(r.out);  // throws on anything but one JSON value
}

// Everything before the unit, as bytes: "1.5 MiB" -> 1572864.
double bytes_in(const std::string& report, const std::string& row) {
  const auto at = report.find(row);
  REQUIRE(at != report.npos);
  std::istringstream in(report.substr(at + row.size()));
  double value = 0;
  std::string unit;
  in >> value >> unit;
  return value * (unit == "KiB" ? 1024 : unit == "MiB" ? 1024 * 1024 : 1);
}

}  // namespace

TEST_CASE("train, trace, report and the verbs around them") {
  const Folder f;
  const Result dry = f.run(nano + " --steps 6 --dry-run");
  REQUIRE(dry.code == 0);
  CHECK(dry.out.find("Tables") == dry.out.npos);
  const Result train = f.run(nano + " --steps 6 --save-every 2 -o runs/a");
  INFO(train.err);
  REQUIRE(train.code == 0);
  CHECK(train.out.empty());
  CHECK(train.err.find("step 6  validation loss") != train.err.npos);
  double size = 0;
  for (const auto& e : fs::directory_iterator(f / "runs/a/checkpoint-00000006"))
    size += double(e.file_size());
  CHECK(bytes_in(dry.out, "disk: one checkpoint") == Approx(size).epsilon(0.05));
  CHECK(f.run("train --resume runs/a").err.find("is done: step 6 of 6") != std::string::npos);
  CHECK(f.run("train --resume runs/a --lr 1").code == 2);
  CHECK(f.run(nano + " --steps 6 -o runs/a").code == 2);

  REQUIRE(f.run("trace runs/a --data text:path=corpus,split=valid --tokens 800 -o a.moetrace.h5",
                {.environment = {}, .program = "moe"})
              .code == 0);
  CHECK(f.run("trace runs/a --data text:path=corpus --length 4096 -o b.h5")
            .err.find("context of 128") != std::string::npos);
  CHECK(json_of(f, "report a.moetrace.h5 --format json").is_object());
  CHECK(json_of(f, "report a.moetrace.h5 --format json --metric load -o -").is_object());
  CHECK(json_of(f, "eval runs/a --data text:path=corpus,split=valid --tokens 300 --format json")
            .is_object());
  CHECK(json_of(f, "show runs/a --format json").is_object());
  CHECK(json_of(f, "show a.moetrace.h5 --format json").is_object());
  CHECK(json_of(f, "verify runs/a a.moetrace.h5 --format json").is_object());
  CHECK(f.run("verify runs/a a.moetrace.h5").out == "runs/a: whole\na.moetrace.h5: whole\n");
  const Result screen = f.run("report a.moetrace.h5");
  CHECK(screen.code == 0);
  CHECK(screen.out.find('\x1b') == screen.out.npos);  // no terminal, no colours
  for (const char* name : {"r.html", "r.md", "r.csv", "r.json", "r.txt"}) {
    CHECK(f.run(std::string("report a.moetrace.h5 -o ") + name).code == 0);
    CHECK(fs::file_size(f / name) > 500);
  }
  CHECK(json_of(f, "plan runs/a Mixtral-8x7B --format json").is_object());
  CHECK(f.run("plan Mixtral-8x7B --ep 3").code == 2);
  CHECK(f.run("plan mixtral-8x7").err.find("'Mixtral-8x7B'") != std::string::npos);
  CHECK(f.run("plan ./none.json").code == 3);
  CHECK(f.run("report a.moetrace.h5 --metric help").err.find("load") != std::string::npos);
  const Result text =
      f.run("generate runs/a --prompt 'the house' --tokens 5 --trace g.moetrace.h5");
  CHECK(text.code == 0);
  CHECK(text.out.starts_with("the house"));
  CHECK(f.run("verify g.moetrace.h5").code == 0);
}

TEST_CASE("the help of every verb has its examples and fits a terminal") {
  const std::vector<std::pair<std::string, std::string>> verbs = {
#define COMMAND(name, about, examples) {#name, examples},
#include "apps/commands.def"
#undef COMMAND
  };
  const Folder f;
  for (const auto& [verb, examples] : verbs) {
    INFO(verb);
    const Result r = f.run(verb + " --help");
    CHECK(r.code == 0);
    CHECK(r.out.find("examples:") != r.out.npos);
    CHECK(r.out.find("moe " + examples.substr(0, examples.find('|'))) != r.out.npos);
    std::istringstream lines(r.out);
    for (std::string line; std::getline(lines, line);)
      CHECK(line.size() <= 120);
  }
}

TEST_CASE("help, version, list, config files and the other names of the program") {
  const Folder f;
  CHECK(json_of(f, "--version --json").contains("version"));
  CHECK(json_of(f, "list --format json").is_object());
  CHECK(f.run("help train").out == f.run("train --help").out);
  CHECK(f.run("help").code == 0);
  const Result list = f.run("list routers", {.environment = {"COLUMNS=60"}});
  CHECK(list.out.find("softmax:k=2") != list.out.npos);
  CHECK(list.out.find("…") == list.out.npos);
  CHECK(f.run("--dry-run --model nano", {.program = "moe-train"}).out.find("parameters") !=
        std::string::npos);
  CHECK(f.run("none.h5", {.program = "moe-report"}).code == 3);
  put(f / "a.toml",
      "model = \"nano\"\nsteps = 7\nbatch = 3\ndry-run = true\n[train]\nlength = 32\n");
  const Result configured = f.run("train --config a.toml --steps 5");  // the command line wins
  CHECK(configured.out.find("tokens in all                  480") != configured.out.npos);
}

TEST_CASE("the list of devices says whose operations are native") {
  const Folder f;
  const std::string all = json_of(f, "list devices --format json").dump();
  CHECK(all.find("No native operations: all run by the definition.") != all.npos);
  CHECK(all.find("operations are native.") != all.npos);
}

namespace {

// Every row of a bench is an object of its own.
std::vector<json> bench_rows(const Folder& f, const std::string& words) {
  const Result r = f.run(words + " --seconds 0.01 --format json");
  INFO(r.err);
  REQUIRE(r.code == 0);
  std::vector<json> out;
  std::istringstream in(r.out);
  for (std::string line; std::getline(in, line);)
    out.push_back(json::parse(line));
  return out;
}

void check_nothing_left(const Folder& f) {
  for (const auto& entry : fs::directory_iterator(f.path()))
    CHECK(entry.path().string().find("moe-bench") == std::string::npos);
}

}  // namespace

TEST_CASE("bench prints a row for each pass and size") {
  const Folder f;
  const auto layer = bench_rows(
      f, "bench layer --tokens 64 --tokens 96 --hidden 32 --width 16 --experts 4 --threads 1");
  REQUIRE(layer.size() == 4);
  CHECK((layer[0]["pass"] == "forward" && layer[1]["pass"] == "forward+backward" &&
         layer[0]["tokens"] == 64 && layer[3]["tokens"] == 96));
  for (const json& row : layer) {
    const double flops =
        6.0 * row["tokens"].get<double>() * 32 * 16 * 2 * (row["pass"] == "forward" ? 1 : 3);
    CHECK(row["gflops"].get<double>() == Approx(flops / row["median"].get<double>() * 1e-6));
    CHECK(row["ratio"].get<double>() ==
          Approx(row["gflops"].get<double>() / row["ceiling_gflops"].get<double>()));
    CHECK((row["best"] <= row["median"] && row["median"] <= row["p99"]));
  }
  const auto parts = bench_rows(
      f, "bench layer --profile --tokens 64 --hidden 32 --width 16 --experts 4 --threads 1");
  std::map<std::string, double> share;
  for (const json& row : parts) {
    share[row["pass"]] += row["share"].get<double>();
    CHECK(row["ms"].get<double>() >= 0);
  }
  CHECK(share["forward"] == Approx(100));
  CHECK(share["backward"] == Approx(100));
  for (const std::string part : {"scores", "top-k", "plan", "gather rows", "experts", "combine",
                                 "experts backward", "scores backward", "combine backward"}) {
    INFO(part);
    CHECK(std::ranges::any_of(parts, [&](const json& row) { return row["part"] == part; }));
  }
  CHECK(
      bench_rows(f, "bench model --model nano:layers=1 --batch 1 --length 16 --threads 1").size() ==
      3);
  CHECK(bench_rows(f, "bench ops combine --threads 1 --threads 2").size() % 2 == 0);
  CHECK(f.run("bench").err.find("of what? ops, layer") != std::string::npos);
  CHECK(f.run("bench laye").err.find("layer") != std::string::npos);
  CHECK(f.run("bench layer --router dense --top-k 2").code == 2);
  CHECK(f.run("bench ops nothing").code == 2);
}

TEST_CASE("bench of traces and reports cleans up and refuses what is not there") {
  const Folder f;
  const auto trace =
      bench_rows(f, "bench trace --model nano:layers=1,context=16 --batch 2 --folder .");
  REQUIRE(trace.size() == 2);
  CHECK((trace[0]["cost"].is_null() && trace[1]["cost"].is_number()));
  check_nothing_left(f);
  const auto report = bench_rows(
      f, "bench report --tokens 600 --layers 2 --experts 8 --topk 2 --folder . --threads 1");
  REQUIRE((report.size() == 4 || report.size() == 6));  // without h5py, with it
  for (const json& row : report) {
    CHECK(row["assignments_per_s"].get<double>() ==
          Approx(2.4e-3 / row["median"].get<double>() * 1e3).epsilon(1e-3));
    CHECK((row["processor"] >= 0 && row["processor"].is_number()));
  }
  CHECK((report.front()["file"] == "uncompressed" && report.back()["file"] == "deflated" &&
         report[0]["what"] == "load metrics" && report[1]["what"] == "default report"));
  REQUIRE(f.run("synth zipf --tokens 300 --layers 1 --experts 8 --topk 2 -o s.h5").code == 0);
  CHECK(bench_rows(f, "bench report --trace s.h5 --folder . --threads 1")[0]["file"] == "s.h5");
  CHECK(f.run("bench report --trace s.h5 --python /usr/bin/false").code == 7);
  CHECK(f.run("bench report --trace none.h5").code == 3);
  CHECK(f.run("bench report --folder nowhere").code == 4);
  check_nothing_left(f);
}

TEST_CASE("bench of tokenizers has a row for each text and number of threads") {
  const Folder f;
  REQUIRE(f.run("tokenizer train --data text:path=corpus --vocab 300 -o t.json").code == 0);
  const auto rows =
      bench_rows(f,
                 "bench tokenizer t.json --data text:path=corpus,limit=8k --threads 1 "
                 "--threads 2 --document 1000");
  REQUIRE(rows.size() == 8);  // two texts, both together, one word
  CHECK((rows[0]["text"] == "english" && rows[4]["text"] == "all" &&
         rows[6]["text"] == "one word" && rows[6]["bytes"] == 100000));
  CHECK(rows[4]["bytes"] == rows[0]["bytes"].get<int>() + rows[2]["bytes"].get<int>());
  CHECK(rows[4]["documents"] == 16);
  CHECK((rows[0]["hash"] == rows[1]["hash"] && rows[0]["hash"] != rows[2]["hash"]));
  for (const json& row : rows) {
    CHECK(row["rate"].get<double>() ==
          Approx(row["bytes"].get<double>() / row["median"].get<double>() * 1e-3));
  }
  CHECK(f.run("bench tokenizer t.json --data clusters").code == 2);
  CHECK(f.run("bench tokenizer none.json --data text:path=corpus").code == 3);
}

TEST_CASE("weights of step 0 alone, and experts read when used") {
  const Folder f;
  const std::string model =
      "train --model olmoe-toy:layers=2,hidden=64 --steps 0 --save-dtype bf16";
  CHECK(f.run("train --model nano --steps 5 --save-dtype bf16 -o runs/b")
            .err.find("a run of 5 steps must be able to go on where it stopped") !=
        std::string::npos);
  CHECK(f.run("train --model nano --steps 0 --save-dtype f16 -o runs/b").code == 2);
  const Result train = f.run(model + " -o runs/a");
  INFO(train.err);
  REQUIRE(train.code == 0);
  REQUIRE(f.run(model + " --data text:path=corpus -o runs/c").code == 0);
  const Result resumed = f.run("train --resume runs/c --steps 3");
  CHECK(resumed.code == 3);
  CHECK(resumed.err.find("holds weights alone: it can be used, but not resumed") !=
        std::string::npos);
  const std::string trace =
      "trace runs/a --data text:path=corpus,split=valid --tokens 600 --redundancy-tokens 0 -o ";
  REQUIRE(f.run(trace + "all.h5 --expert-memory all").code == 0);
  const Result lazy = f.run(trace + "one.h5 --expert-memory 0");
  REQUIRE(lazy.code == 0);
  CHECK(lazy.err.find("experts are read from the file when they are used") != std::string::npos);
  CHECK(lazy.err.find("their similarity is left out") != std::string::npos);
  const std::string loss =
      "eval runs/a --data text:path=corpus,split=valid --tokens 600 --format csv --expert-memory ";
  const Result all = f.run(loss + "all");
  REQUIRE(all.code == 0);
  // behind the facts, which hold the command
  const auto table = [](const Result& r) {
    return r.out.substr(std::min(r.out.size(), r.out.find("\nloss,")));
  };
  REQUIRE(table(all).size() > 10);
  CHECK(table(all) == table(f.run(loss + "0")));
  CHECK(table(all) == table(f.run(loss + "200kB")));
  CHECK(f.run(loss + "much").code == 2);
  const std::string answer = "generate runs/a --prompt ab --tokens 8 --expert-memory ";
  CHECK(f.run(answer + "all").out == f.run(answer + "1").out);
}

TEST_CASE("a folder from elsewhere is spoken to in ids: its tokenizer is not ours") {
  const Folder f;
  REQUIRE(f.run("train --data text:path=corpus --model nano --steps 2 --batch 2 --length 32 "
                "--eval-tokens 64 -o own")
              .code == 0);
  fs::create_directories(f / "theirs");
  for (const char* name : {"config.json", "model.safetensors"})
    fs::copy_file(fs::path(f / "own/checkpoint-00000002") / name, fs::path(f / "theirs") / name);
  std::string ids;
  for (int n = 0; n < 400; ++n)
    ids += std::to_string(n * 7 % 311) + " ";
  put(f / "ids.txt", ids);
  const Result refused = f.run("generate theirs --prompt hello");
  CHECK(refused.code == 2);
  CHECK(refused.err.find("--ids") != std::string::npos);
  CHECK(
      f.run("generate theirs --ids '1 320'").err.find("'320', which is not an id from 0 to 319") !=
      std::string::npos);
  CHECK(f.run("generate theirs --ids '1 x'").code == 2);
  CHECK(f.run("generate theirs --ids '1' --prompt a").code == 2);
  const Result said =
      f.run("generate theirs --ids '1 5 7' --tokens 4 --temperature 0 --trace g.moetrace.h5");
  CHECK(said.code == 0);
  CHECK(said.out.starts_with("1 5 7 "));
  CHECK(f.run("trace theirs --data text:path=corpus --tokens 64 --length 32 -o text.moetrace.h5")
            .err.find("text goes in as bytes") != std::string::npos);
  const Result traced =
      f.run("trace theirs --data tokens:path=ids.txt --tokens 32 --length 16 -o ids.moetrace.h5");
  CHECK(traced.code == 0);
  CHECK(traced.err.find("bytes") == std::string::npos);
  for (const char* name : {"g", "ids"}) {
    CHECK(f.run("show " + std::string(name) + ".moetrace.h5").out.find("tokenizer        none") !=
          std::string::npos);
  }
  REQUIRE(f.run("train --init theirs --data tokens:path=ids.txt --steps 1 --batch 1 --length 4 "
                "--eval-tokens 4 -o tuned")
              .code == 0);
  CHECK(!fs::exists(f / "tuned/checkpoint-00000001/tokenizer.json"));
  CHECK(f.run("train --data text:path=corpus --model nano:rope={fourier:pairs=5} --steps 2 --batch "
              "2 --length 32 --eval-tokens 64 -o mixed")
            .code == 0);
  // its fixed matrices belong to a group and have no moments
  CHECK(f.run("train --resume mixed --steps 3").code == 0);
  CHECK(f.run("generate tuned --prompt a").code == 2);
  CHECK(f.run("generate own --prompt ab --tokens 2").out.starts_with("ab"));
  CHECK(f.run("verify theirs").out == "theirs: whole\n");
  std::string weights = text_of(f / "theirs/model.safetensors");
  weights.replace(weights.size() - 4, 4, std::string("\0\0\xC0\x7F", 4));  // a NaN
  put(f / "theirs/model.safetensors", weights);
  const Result broken = f.run("verify theirs");
  CHECK(broken.code == 1);
  CHECK(broken.out.find("holds numbers that are not finite") != std::string::npos);
}

TEST_CASE("a model without attention and a hybrid go through every verb") {
  const Folder f;
  for (const std::string pattern : {"short_conv", "short_conv:bias=1;attention"}) {
    INFO(pattern);
    const std::string run = pattern.find(';') == pattern.npos ? "conv" : "hybrid";
    const std::string start =
        "train --data text:path=corpus --batch 2 --length 32 --eval-tokens 64 "
        "--model nano:mixer={" +
        pattern + "} ";
    const Result plan = f.run(start + "--dry-run");
    CHECK(plan.code == 0);
    CHECK(f.run(start + "--steps 4 --save-every 2 -o " + run).code == 0);
    CHECK(f.run(start + "--steps 1 --trace " + run + "-train.h5 -o " + run + "-traced").code == 0);
    const Result shown = f.run("show " + run);
    INFO(shown.out);
    CHECK(shown.out.find("no published class") != std::string::npos);
    CHECK(f.run("eval " + run + " --data text:path=corpus --tokens 64 --length 32").code == 0);
    CHECK(
        f.run("trace " + run + " --data text:path=corpus --tokens 64 --length 32 -o " + run + ".h5")
            .code == 0);
    const Result text = f.run("generate " + run + " --prompt ab --tokens 4 --temperature 0");
    CHECK(text.code == 0);
    CHECK(text.out.starts_with("ab"));
    const fs::path last = f / (run + "/checkpoint-00000004");
    const std::string whole = text_of(last / "model.safetensors");
    fs::remove_all(last);
    CHECK(f.run("train --resume " + run).code == 0);
    CHECK(text_of(last / "model.safetensors") == whole);
  }
  const Result groups = f.run(
      "train --data text:path=corpus --batch 2 --length 32 --steps 1 --eval-tokens 64 --model "
      "nano:mixer={short_conv} --train short_conv --lr-factor short_conv=2 -o part");
  CHECK(groups.code == 0);
  const Result none = f.run(
      "train --data text:path=corpus --batch 2 --length 32 --steps 1 --eval-tokens 64 --model "
      "nano:mixer={short_conv} --train attention -o none");
  CHECK(none.code == 2);
  CHECK(none.err.find("no parameters of the group 'attention'") != std::string::npos);
  CHECK(f.run("list mixers").out.find("short_conv") != std::string::npos);
}

}  // namespace moe::cli
