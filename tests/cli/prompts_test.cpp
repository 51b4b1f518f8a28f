// Several prompts continued as one batch, and decoding timed from files.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <fstream>
#include <sstream>

#include "tests/cli/program.h"

namespace moe::cli {
namespace {

using nlohmann::json;

std::vector<json> lines_of(const std::string& text) {
  std::vector<json> out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    out.push_back(json::parse(line));
  return out;
}

// As a text that JSON can hold: a young model writes bytes that are no characters.
std::string as_json(const std::string& text) {
  return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace));
}

Result good(const Folder& f, const std::string& words) {
  Result r = f.run(words);
  INFO("moe " << words << "\n" << r.out << r.err);
  REQUIRE(r.code == 0);
  return r;
}

}  // namespace

TEST_CASE("the lines of a file are continued together as each is alone") {
  const Folder f;
  good(f, nano + " --steps 3 -o a");
  const std::vector<std::string> prompts{"To be", "or not to be, that is", "x"};
  std::ofstream(f / "lines.txt") << prompts[0] << "\n"
                                 << prompts[1] << "\r\n"
                                 << prompts[2] << "\n";
  const std::string sampled = "generate a --tokens 9 --temperature 0.7";
  const std::vector<json> found = lines_of(good(f, sampled + " --seed 5 --prompts lines.txt").out);
  REQUIRE(found.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(found[i].at("prompt") == prompts[i]);
    const std::string alone =
        good(f, sampled + " --seed " + std::to_string(5 + i) + " --prompt '" + prompts[i] + "'")
            .out;
    CHECK(prompts[i] + found[i].at("answer").get<std::string>() + "\n" == as_json(alone));
  }
}

TEST_CASE("what prompts of a file cannot be is said") {
  const Folder f;
  good(f, nano + " --steps 3 -o a");
  std::ofstream(f / "empty.txt") << "";
  const auto refused = [&](const std::string& words, int code, const std::string& part) {
    const Result r = f.run(words);
    INFO(r.err);
    CHECK(r.code == code);
    CHECK(r.err.find(part) != r.err.npos);
  };
  refused("generate a --prompts empty.txt", 2, "has no lines");
  refused("generate a --prompts none.txt", 3, "none.txt");
  refused("generate a --prompts empty.txt --prompt x", 2, "--prompt");
  refused("generate a --prompts empty.txt --trace t.h5", 2, "--prompts");
}

TEST_CASE("decoding is timed beside the rate at which memory is read") {
  const Folder f;
  good(f, nano + " --steps 3 -o a");
  const Result r = good(f, "bench decode a --threads 1 --seconds 0.05 --format json");
  const json row = json::parse(r.out.substr(0, r.out.find('\n')));
  CHECK(row.at("model") == "a");
  CHECK(row.at("threads") == 1);
  CHECK(row.at("tokens_per_s").get<double>() > 0);
  CHECK(row.at("weights").get<double>() > 0);
  const double share = row.at("read").get<double>() / row.at("memory").get<double>();
  CHECK(row.at("share").get<double>() == Approx(share).epsilon(1e-6));
}

}  // namespace moe::cli
