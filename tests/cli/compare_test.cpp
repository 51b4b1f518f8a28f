// moe report of several traces, in other tools' words, and as a check: on made-up traces.
#include <catch2/catch.hpp>

#include "tests/cli/program.h"

namespace moe::cli {
namespace {

void good(const Folder& f, const std::string& words, int code = 0) {
  const Result r = f.run(words);
  INFO("moe " << words << "\n" << r.out << r.err);
  CHECK(r.code == code);
}
std::string said(const Folder& f, const std::string& words, int code) {
  const Result r = f.run(words);
  INFO("moe " << words << "\n" << r.err);
  CHECK(r.code == code);
  return r.out + r.err;
}

}  // namespace

TEST_CASE(
    "report compares traces, refuses other text, speaks other tools' words, and fails on red where "
    "asked") {
  const Folder f;
  const std::string shape = " --tokens 2048 --layers 2 --experts 8 --topk 2 --sequence 64 ";
  good(f, "synth uniform -o even.h5" + shape);
  good(f, "synth hot:experts=2,share=0.9 -o hot.h5" + shape);
  good(f, "synth uniform -o other.h5 --seed 9 --vocab 77" + shape);
  good(f, "synth uniform -o short.h5 --tokens 64 --layers 2 --experts 8 --topk 2");
  CHECK(said(f, "report even.h5 --against even.h5", 0).find("differ in 0.0 %") !=
        std::string::npos);
  CHECK(said(f, "report even.h5 --against short.h5", 3)
            .find("one trace has 2048 tokens, the other 64") != std::string::npos);
  CHECK(said(f, "report even.h5 --against other.h5", 3).find("different text") !=
        std::string::npos);
  CHECK(said(f, "report even.h5 hot.h5 short.h5 --format csv", 0).find("\ndifferences,0,hot.h5,") !=
        std::string::npos);
  good(f, "report even.h5 hot.h5 --against other.h5", 2);
  good(f, "report even.h5 hot.h5 --metric load", 2);
  good(f, "report even.h5 hot.h5 --fail-on red", 2);
  good(f, "report even.h5 --fail-on red");
  good(f, "report hot.h5");
  good(f, "report hot.h5 --fail-on red", 1);
  good(f,
       "report hot.h5 --metric load --fail-on red --threshold load_cv=5,6 --threshold "
       "load_maxvio_global=5,6");
  CHECK(said(f, "report hot.h5 --threshold load=1,2", 2).find("load_cv") != std::string::npos);
  CHECK(said(f, "report hot.h5 --convention vllm", 0).find("balancedness (log)") !=
        std::string::npos);
  CHECK(said(f, "report hot.h5 --convention vlm", 2).find("'vllm'") != std::string::npos);
  CHECK(said(f, "report hot.h5 --values hot.values.h5 --metric load", 0)
            .find("wrote hot.values.h5") != std::string::npos);
  CHECK(said(f, "report hot.h5 --values hot.values.h5", 2).find("exists") != std::string::npos);
  CHECK(said(f, "report hot.h5 --convention vllm --values b.h5", 2)
            .find("by the definitions of this program") != std::string::npos);
  CHECK(said(f, "list conventions", 0).find("megatron") != std::string::npos);
  const std::string with = said(f, "report even.h5 --metric load", 0);
  const std::string without = said(f, "report even.h5 --metric load --bootstrap 0", 0);
  CHECK(with.find("[0.0") != std::string::npos);
  CHECK(without.find("[0.0") == std::string::npos);
}

TEST_CASE("experts of two trainings are matched, those of one training keep their ids") {
  const Folder f;
  const std::string train = nano + " --steps 3 ";
  good(f, train + "-o a --seed 1");
  good(f, train + "-o b --seed 2");
  good(
      f,
      "train --data text:path=corpus --batch 2 --length 32 --eval-tokens 128 --threads 1 --steps 3 "
      "-o child --init a --seed 3");
  const std::string trace = " --data text:path=corpus,split=valid --tokens 600 --length 32";
  for (const std::string run : {"a", "b", "child"})
    good(f, "trace " + run + " -o " + run + ".h5" + trace);
  const std::string strangers = said(f, "report b.h5 --against a.h5 --format md", 0);
  CHECK(strangers.find("different trainings") != std::string::npos);
  CHECK(strangers.find("matched one to one") < strangers.find("differ in"));
  CHECK(strangers.find("Which expert is which") != std::string::npos);
  const std::string json = said(f, "report b.h5 --against a.h5 --format json", 0);
  CHECK(json.find("router_saturation_matched") != std::string::npos);
  CHECK(json.find("\"router_saturation\"") == std::string::npos);
  const std::string kin = said(f, "report child.h5 --against a.h5 --format json", 0);
  CHECK(kin.find("Expert ids mean the same in both") != std::string::npos);
  CHECK(kin.find("router_saturation_matched") == std::string::npos);
  const std::string by_id = said(f, "report b.h5 --against a.h5 --by-id", 0);
  CHECK(by_id.find("compared by their ids, as asked") != std::string::npos);
  CHECK(said(f, "report a.h5 --by-id", 2).find("there is none") != std::string::npos);
  CHECK(said(f, "show a.h5", 0).find("weights xxh3") != std::string::npos);
}

TEST_CASE("twelve tokens turn no light on, in any format") {
  const Folder f;
  good(f, "synth uniform -o few.h5 --tokens 12 --layers 4 --experts 8 --topk 2");
  for (const std::string format : {"text", "md", "html", "json", "csv"}) {
    const std::string report = said(f, "report few.h5 --format " + format, 0);
    INFO(format);
    CHECK(report.find("grey") != std::string::npos);
    CHECK(report.find("tokens needed") != std::string::npos);
    if (format != "csv")
      CHECK(report.find("12 tokens of this trace are too few to judge") != std::string::npos);
    CHECK(report.find("experts are dead:") == std::string::npos);
    CHECK(report.find("Routing is badly") == std::string::npos);
  }
  good(f, "report few.h5 --fail-on yellow");
}

}  // namespace moe::cli
