// What a resumed run takes from its state.json: the device it was on, and no number that the
// command line would refuse.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "lib/files/file.h"
#include "lib/files/json.h"
#include "tests/cli/interposed.h"

namespace moe::cli {
namespace {

std::string weights(const Folder& f, const std::string& run) {
  return text_of(f / (run + "/checkpoint-00000008/model.safetensors"));
}

// Replaces a value of a checkpoint's state.json, in whichever of its objects has the key, and mends
// the manifest.
void tamper(const fs::path& checkpoint, const std::string& key, const std::string& value) {
  Json state = read_json(checkpoint / "state.json");
  for (Json* at : {&state, &state["train"], &state["trace"], &state["run"]}) {
    if (at->contains(key))
      (*at)[key] = Json::parse(value);
  }
  const std::string text = state.dump();
  put(checkpoint / "state.json", text);
  Json manifest = read_json(checkpoint / "MANIFEST.json");
  Json& entry = manifest["files"]["state.json"];
  entry["bytes"] = text.size();
  char hash[17];
  std::snprintf(hash, sizeof hash, "%016llx",
                static_cast<unsigned long long>(hash_file(checkpoint / "state.json")));
  entry["xxh3"] = hash;
  put(checkpoint / "MANIFEST.json", manifest.dump());
}

}  // namespace

TEST_CASE("a resumed run stays on the device that it was on") {
  const Folder f;
  const std::string words =
      nano + " --steps 8 --save-every 4 --eval-every 0 --device cpu:dtype=bf16 -o ";
  REQUIRE(f.run(words + "whole").code == 0);
  for (const char* run : {"stays", "moves"}) {
    REQUIRE(f.run(words + run,
                  interposed(f / (std::string(run) + "/.tmp-checkpoint-00000008"), "kill", 0))
                .code == 128 + 9);
  }
  const Result stays = f.run("train --resume stays");
  INFO(stays.err);
  CHECK(stays.code == 0);
  CHECK(weights(f, "stays") == weights(f, "whole"));
  CHECK(stays.err.find("was on device") == stays.err.npos);
  const Result moves = f.run("train --resume moves --device cpu");
  INFO(moves.err);
  CHECK(moves.code == 0);
  CHECK(moves.err.find("the run was on device cpu:dtype=bf16 and goes on with cpu") !=
        moves.err.npos);
  CHECK(weights(f, "moves") != weights(f, "whole"));
}

TEST_CASE("a state that no run can have is refused in a sentence") {
  const Folder f;
  REQUIRE(f.run(nano + " --steps 8 --save-every 4 --eval-every 0 -o run",
                interposed(f / "run/.tmp-checkpoint-00000008", "kill", 0))
              .code == 128 + 9);
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, std::string>>{{"log_every", "0"},
                                                        {"length", "0"},
                                                        {"length", "2147483648"},
                                                        {"length", "300000"},
                                                        {"sequences", "-1"},
                                                        {"sequences", "0"},
                                                        {"sequences", "18446744073709551615"},
                                                        {"accumulate", "0"},
                                                        {"accumulate", "1000000000"},
                                                        {"beta1", "2"},
                                                        {"eps", "-1"},
                                                        {"clip", "-1"},
                                                        {"lr", "-1"},
                                                        {"keep", "0"},
                                                        {"every", "0"},
                                                        {"rows", "-1"},
                                                        {"step", "9"},
                                                        {"step", "1.5"},
                                                        {"schedule", "\"sometimes\""},
                                                        {"trained", "\"nothing\""},
                                                        {"steps_with_gradient", "[]"},
                                                        {"steps_with_gradient", "[[1],[2]]"}}) {
    INFO(key << " = " << value);
    fs::remove_all(f / "copy");
    fs::copy(f / "run", f / "copy", fs::copy_options::recursive);
    tamper(f / "copy/checkpoint-00000004", key, value);
    const Result r = f.run("train --resume copy");
    INFO(r.err);
    CHECK((r.code == 3 || (key == "trained" && r.code == 2)));
    CHECK(!fs::exists(f / "copy/checkpoint-00000008"));
  }
  const Result line = f.run(nano + " --accumulate 2000000 -o big");
  CHECK(line.code == 2);
  CHECK(line.err.find("the micro-batches of a step: 2000000 is more than 1048576") !=
        line.err.npos);
}

}  // namespace moe::cli
