// A folder from elsewhere gets text through its own tokenizer.json, as a run gets it through its
// own.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"
#include "tests/cli/rows.h"

namespace moe::cli {
namespace {

// The files of a checkpoint that other programs read.
void publish(const Folder& f, const std::string& run, const std::string& folder) {
  fs::create_directory(f / folder);
  for (const char* name :
       {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}) {
    fs::copy_file(f / (run + "/checkpoint-00000002/" + name), f / (folder + "/" + name));
  }
}

nlohmann::json converted(const Folder& f, const std::string& words, const std::string& line) {
  put(f / "lines", line + "\n");
  Start s;
  s.input = f / "lines";
  const Result r = f.run("tokenizer " + words, s);
  INFO(words << ": " << r.err);
  REQUIRE(r.code == 0);
  return nlohmann::json::parse(r.out);
}

}  // namespace

TEST_CASE("lines become ids with their places in the text, special tokens as asked") {
  const Folder f;
  REQUIRE(f.run("tokenizer train --vocab 300 --data text:path=corpus -o t.json").code == 0);
  const std::string text = "the \u00e9<|endoftext|>b";  // 5 + 13 + 1 characters, 6 + 13 + 1 bytes
  const std::string line = R"({"text": "the \u00e9<|endoftext|>b", "key": [7]})";
  const auto special = converted(f, "encode t.json --jsonl --special-tokens ids", line);
  const auto plain = converted(f, "encode t.json --jsonl --special-tokens text", line);
  CHECK(converted(f, "encode t.json --jsonl", line) == special);
  const auto ids = special.at("ids").get<std::vector<int>>();
  constexpr int end_of_text = 0;
  CHECK(std::ranges::count(ids, end_of_text) == 1);
  const auto plain_ids = plain.at("ids").get<std::vector<int>>();
  CHECK(std::ranges::count(plain_ids, end_of_text) == 0);
  CHECK(plain_ids.size() > ids.size());
  const auto at = special.at("at").get<std::vector<int>>();
  REQUIRE(at.size() == 2 * ids.size());
  const auto token = std::size_t(std::ranges::find(ids, end_of_text) - ids.begin());
  CHECK(at[2 * token] == 6);
  CHECK(at[2 * token + 1] == 19);
  CHECK(at.front() == 0);
  CHECK(at.back() == 20);
  for (const auto& all : {special, plain}) {
    CHECK(all.at("text") == text);
    CHECK(all.at("key") == nlohmann::json::array({7}));
    CHECK(all.at("full").size() >= all.at("ids").size());
  }
  const std::string back = "decode t.json --jsonl";
  CHECK(converted(f, back, special.dump()).at("text") == text);
  CHECK(converted(f, back + " --skip-special", special.dump()).at("text") == "the \u00e9b");
}

TEST_CASE("text goes into a published folder by its own tokenizer") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 2 -o run").code == 0);
  publish(f, "run", "theirs");
  const std::string data = " --data text:path=corpus,split=valid --tokens 256 --length 32 -o ";
  REQUIRE(f.run("trace run" + data + "ours.h5").code == 0);
  const Result traced = f.run("trace theirs" + data + "theirs.h5");
  INFO(traced.err);
  REQUIRE(traced.code == 0);
  CHECK(traced.err.find("as bytes") == traced.err.npos);
  CHECK(same_rows(f / "ours.h5", f / "theirs.h5", true));
  const std::string prompt = " --prompt 'the house' --temperature 0 --tokens 8";
  const Result ours = f.run("generate run" + prompt);
  const Result answer = f.run("generate theirs" + prompt);
  INFO(ours.err << answer.err);
  CHECK(answer.code == 0);
  CHECK(answer.out.starts_with("the house"));
}

TEST_CASE("without a tokenizer text goes in as bytes with a warning, and there is no prompt") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 2 -o run").code == 0);
  publish(f, "run", "bare");
  fs::remove(f / "bare/tokenizer.json");
  const Result eval =
      f.run("eval bare --data text:path=corpus,split=valid --tokens 64 --length 32");
  CHECK(eval.code == 0);
  CHECK(eval.err.find("comes without a tokenizer") != eval.err.npos);
  const Result generate = f.run("generate bare --prompt x");
  CHECK(generate.code == 2);
  CHECK(generate.err.find("--ids") != generate.err.npos);
}

TEST_CASE("each id that a config.json names ends an answer") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 2 -o run").code == 0);
  publish(f, "run", "theirs");
  const std::string command = "generate theirs --ids '116 104 101' --temperature 0 --tokens 6";
  const auto ids_of = [](const std::string& out) {
    std::istringstream words(out);
    std::vector<std::string> ids;
    for (std::string word; words >> word;)
      ids.push_back(word);
    return ids;
  };
  const Result whole = f.run(command);
  INFO(whole.err << whole.out);
  const std::vector<std::string> ids = ids_of(whole.out);
  REQUIRE(ids.size() == 9);  // the prompt and six more
  put(f / "theirs/generation_config.json", "{\"eos_token_id\": [319, " + ids[3] + "]}");
  CHECK(ids_of(f.run(command).out).size() == 3);
}

}  // namespace moe::cli
