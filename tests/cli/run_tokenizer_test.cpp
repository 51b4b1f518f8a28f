// Runs on words: a tokenizer trained on the run's text or taken from a file is kept by the run, and
// everything that opens the run reads text by it.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "lib/trace/reader.h"
#include "tests/cli/program.h"
#include "tests/cli/rows.h"

namespace moe::cli {
namespace {

using Json = nlohmann::json;

const std::string words = nano + " --tokenizer bpe:vocab=300 --steps 2";

Json json_of(const fs::path& path) {
  return Json::parse(text_of(path));
}

const std::string checkpoint = "run/checkpoint-00000002";

}  // namespace

TEST_CASE("a run trains its tokenizer, keeps it, and everything reads text by it") {
  const Folder f;
  const Result trained = f.run(words + " --trace train.h5 -o run");
  INFO(trained.err);
  REQUIRE(trained.code == 0);
  const Json state = json_of(f / checkpoint / "state.json");
  const std::string name = state["tokenizer"];
  CHECK(name.starts_with("tokenizer.json sha256:"));
  CHECK(json_of(f / "run/run.json")["tokenizer"] == name);
  CHECK(json_of(f / checkpoint / "config.json")["vocab_size"] == 300);

  REQUIRE(f.run("trace run --data text:path=corpus --tokens 64 --length 32 -o a.h5").code == 0);
  for (const char* file : {"train.h5", "a.h5"}) {
    const TraceHeader header = TraceReader(f / file).header();
    CHECK(header.tokenizer_id == name);
    CHECK(header.pieces.size() == 300);
    CHECK(header.pieces[0] == "<|endoftext|>");
  }
  const Result report = f.run("report a.h5 --metric vocabulary --format md");
  INFO(report.err);
  CHECK(report.code == 0);
  CHECK(f.run("eval run --data text:path=corpus --tokens 64 --length 32").code == 0);
  const Result answer = f.run("generate run --prompt 'the house' --tokens 4");
  CHECK(answer.code == 0);
  CHECK(answer.out.starts_with("the house"));
}

TEST_CASE("a run on words that was stopped goes on with the same bytes") {
  const Folder f;
  const std::string four = nano + " --tokenizer bpe:vocab=300 --steps 4 --save-every 2 -o ";
  REQUIRE(f.run(four + "whole").code == 0);
  REQUIRE(f.run(four + "halved").code == 0);
  fs::remove_all(f / "halved/checkpoint-00000004");
  const Result resumed = f.run("train --resume halved");
  INFO(resumed.err);
  REQUIRE(resumed.code == 0);
  const std::string last = "/checkpoint-00000004/";
  for (const char* file : {"model.safetensors", "tokenizer.json", "tokenizer_config.json"})
    CHECK(text_of(f / ("whole" + last + file)) == text_of(f / ("halved" + last + file)));
}

TEST_CASE("a tokenizer in a checkpoint that is not the one of the run is refused") {
  const Folder f;
  REQUIRE(f.run(words + " -o run").code == 0);
  fs::copy(f / checkpoint, f / "copied", fs::copy_options::recursive);
  fs::remove(f / "copied/MANIFEST.json");
  const std::string eval = "eval copied --data text:path=corpus --tokens 64 --length 32";
  REQUIRE(f.run(eval).code == 0);
  put(f / "copied/tokenizer.json", text_of(f / "copied/tokenizer.json") + " ");
  const Result refused = f.run(eval);
  CHECK(refused.code == 3);
  CHECK(refused.err.find("the run was trained with tokenizer.json sha256:") != refused.err.npos);
}

TEST_CASE("a tokenizer of a file trains runs, and a run starts others with its own") {
  const Folder f;
  REQUIRE(f.run("tokenizer train --data text:path=corpus --vocab 300 -o mine.json").code == 0);
  const Result named = f.run(nano + " --tokenizer mine.json --steps 2 -o run");
  INFO(named.err);
  REQUIRE(named.code == 0);
  CHECK(text_of(f / checkpoint / "tokenizer.json") == text_of(f / "mine.json"));
  const std::string next =
      "train --init run --data text:path=corpus --batch 2 --length 32 --steps 1 --eval-tokens 64 ";
  REQUIRE(f.run(next + "-o next").code == 0);
  CHECK(json_of(f / "next/checkpoint-00000001/state.json")["tokenizer"] ==
        json_of(f / checkpoint / "state.json")["tokenizer"]);
  CHECK(f.run("edit run --remove 0:1,1:1 -o less").code == 0);
  const Result answer = f.run("generate less --prompt 'the house' --tokens 4");
  INFO(answer.err);
  CHECK(answer.code == 0);
}

TEST_CASE("a run starts from a published folder with that folder's tokenizer") {
  const Folder f;
  REQUIRE(f.run(words + " -o run").code == 0);
  fs::create_directory(f / "theirs");
  for (const char* name :
       {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"})
    fs::copy_file(f / checkpoint / name, f / ("theirs/" + std::string(name)));
  const std::string tune =
      "train --init theirs --data text:path=corpus --batch 2 --length 32 --eval-tokens 64 ";
  const Result tuned = f.run(tune + "--steps 1 -o tuned");
  INFO(tuned.err);
  REQUIRE(tuned.code == 0);
  CHECK(text_of(f / "tuned/checkpoint-00000001/tokenizer.json") ==
        text_of(f / "theirs/tokenizer.json"));
  CHECK(f.run("generate tuned --prompt 'the house' --tokens 4").code == 0);
}

TEST_CASE("names of no tokenizer are refused before anything is made") {
  const Folder f;
  const auto said = [&](const std::string& tokenizer, int code) {
    const Result r = f.run(nano + " --steps 1 -o run --tokenizer " + tokenizer);
    CHECK(r.code == code);
    CHECK_FALSE(fs::exists(f / "run"));
    return r.err;
  };
  CHECK(said("byte", 2).find("no tokenizer named 'byte'") != std::string::npos);
  CHECK(said("bpe:vocab=100", 2).find("at least 257") != std::string::npos);
  CHECK(said("bpe:pattern=gpt5", 2).find("gpt5") != std::string::npos);
  CHECK(said("nowhere/tokenizer.json", 3).find("there is no tokenizer") != std::string::npos);
  CHECK(said("corpus/english.txt", 3).find("tokenizer") != std::string::npos);
  const Result bare = f.run("train --data clusters --tokenizer bpe:vocab=300 --steps 1 -o run");
  CHECK(bare.code == 2);
  CHECK(bare.err.find("the data have none") != bare.err.npos);
}

TEST_CASE("a dry run counts the rows of the tokenizer") {
  const Folder f;
  const Result bytes = f.run("train --model nano --dry-run");
  const Result bpe = f.run("train --model nano --tokenizer bpe:vocab=4096 --dry-run");
  INFO(bpe.err);
  REQUIRE(bpe.code == 0);
  CHECK(bytes.out != bpe.out);
}

TEST_CASE("a trace of prompts has a sequence for each, as the model reads them") {
  const Folder f;
  REQUIRE(f.run(words + " -o run").code == 0);
  const Result traced = f.run("trace run --prompt 'the house' --prompt 'number 12' -o p.h5");
  INFO(traced.err);
  REQUIRE(traced.code == 0);
  REQUIRE(f.run("generate run --prompt 'the house' --tokens 0 --trace g.h5").code == 0);
  const TraceReader prompts(f / "p.h5");
  const TraceReader generated(f / "g.h5");
  CHECK(prompts.header().domains.empty());
  CHECK(prompts.sequences().size() == 2);
  REQUIRE(prompts.tokens() > generated.tokens());
  const auto ids = prompts.read(0, generated.tokens(), {}).token_id;
  CHECK(ids == generated.read(0, generated.tokens(), {}).token_id);
  CHECK(f.run("report p.h5").code == 0);
}

TEST_CASE("prompts that cannot be recorded are refused") {
  const Folder f;
  REQUIRE(f.run(words + " -o run").code == 0);
  const auto refused = [&](const std::string& options) {
    const Result r = f.run("trace run -o p.h5 " + options);
    CHECK(r.code == 2);
    CHECK_FALSE(fs::exists(f / "p.h5"));
    return r.err;
  };
  CHECK(refused("").find("--data is missing") != std::string::npos);
  CHECK(refused("--prompt x --data text:path=corpus").find("both") != std::string::npos);
  CHECK(refused("--prompt ''").find("no text") != std::string::npos);
  const std::string longer(2000, '~');
  CHECK(refused("--prompt " + longer).find("a context of 128") != std::string::npos);
}

}  // namespace moe::cli
