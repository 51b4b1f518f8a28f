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

}  // namespace moe::cli
