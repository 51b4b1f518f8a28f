// Pictures and sounds from their data to a trace and exact answers: trained, resumed with the same
// bytes, a part of it alone, refused where a model cannot read them.
#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "lib/trace/reader.h"
#include "tests/cli/program.h"

namespace moe::cli {
namespace {

using Json = nlohmann::json;

const std::string data = " --data shapes:valid=24 --data tones:valid=12 ";
std::string small_with(const std::string& fields) {
  return "train --model nano:hidden=32,width=32" + fields + data +
         "--batch 4 --length 64 --eval-tokens 0 ";
}
const std::string small = small_with("");

Result done(const Folder& f, const std::string& words) {
  Result r = f.run(words);
  INFO("moe " << words << "\n" << r.err);
  REQUIRE(r.code == 0);
  return r;
}

std::string weights(const Folder& f, const std::string& run) {
  const std::string bytes = text_of(f / (run + "/checkpoint-00000006/model.safetensors"));
  REQUIRE(!bytes.empty());
  return bytes;
}

const Json& table_of(const Json& report, const std::string& id) {
  for (const Json& t : report.at("tables")) {
    if (t.at("id") == id)
      return t;
  }
  FAIL("no table " << id);
  return report;
}

}  // namespace

TEST_CASE(
    "a model of pictures and sounds is trained, goes on and is evaluated with the same bytes") {
  const Folder f;
  const std::string start = small_with(GENERATE(as<std::string>(), "", ",projector=mlp2x_gelu"));
  done(f, start + "--steps 6 --threads 1 --trace train.h5 -o whole");
  done(f, start + "--steps 6 --save-every 3 --keep 3 --threads 2 -o cut");
  fs::remove_all(f / "cut/checkpoint-00000006");
  done(f, "train --resume cut --threads 1");
  CHECK((weights(f, "whole") == weights(f, "cut")));
  done(f, "verify train.h5");
  const std::string valid = "--data shapes:valid=24,split=valid --data tones:valid=12,split=valid ";
  const Result one = done(f, "eval whole " + valid + "--length 64 --threads 1 --format json");
  const Result two = done(f, "eval whole " + valid + "--length 64 --threads 2 --format json");
  const Json report = Json::parse(one.out);
  CHECK(report.at("tables") == Json::parse(two.out).at("tables"));
  CHECK(report.at("title").get<std::string>().find("% of 36 answers exact") != std::string::npos);
  const Json& answers = table_of(report, "answers");
  CHECK(answers.dump().find("colour, unseen pair") != std::string::npos);
  CHECK(answers.dump().find("slide, unseen pair") != std::string::npos);
  // one set alone is read with the places that the model has for all
  done(f, "eval whole --data tones:valid=12,split=valid --length 64");
  // a line of the log says the same
  std::ifstream log(f / "whole/metrics.jsonl");
  Json last;
  for (std::string line; std::getline(log, line);) {
    if (line.find("valid_loss") != line.npos)
      last = Json::parse(line);
  }
  CHECK(last.at("domains").at("shapes").at("answers").at("form").at("asked") == 4);
}

TEST_CASE("a trace of pictures names their places and keeps ids of text for text") {
  const Folder f;
  done(f, small + "--steps 2 -o run");
  done(f, "trace run --data shapes:valid=24,split=valid --length 64 -o a.h5");
  done(f, "verify a.h5");
  const TraceReader trace(f / "a.h5");
  const auto& pieces = trace.header().pieces;
  REQUIRE(pieces.size() == 320 + 16 + 16);
  CHECK(pieces[320] == "<image 0>");
  CHECK(pieces[320 + 16] == "<audio 0>");
  CHECK(pieces[65] == "A");
  done(f, "report a.h5 -o a.html");
  done(f, "show run");
}

TEST_CASE("the projector trains alone, and a model that has none says what it reads") {
  const Folder f;
  const std::string fields = GENERATE(as<std::string>(), "", ",projector=mlp2x_gelu");
  done(f, small_with(fields) + "--steps 2 -o run");
  done(f, "train --init run" + data +
              "--train projector --batch 4 --length 64 --eval-tokens 0 --steps 2 -o projector");
  // of the two files of weights, as long, only numbers of the projectors differ
  const auto file = [&](const std::string& run) {
    return text_of(f / (run + "/checkpoint-00000002/model.safetensors"));
  };
  const std::string before = file("run");
  const std::string after = file("projector");
  REQUIRE(before.size() == after.size());
  const std::size_t head = 8 + std::size_t(static_cast<unsigned char>(before[0])) +
                           256 * std::size_t(static_cast<unsigned char>(before[1]));
  const Json tensors = Json::parse(before.substr(8, head - 8));
  for (const auto& [name, tensor] : tensors.items()) {
    if (name == "__metadata__")
      continue;
    INFO(name);
    const auto first = head + tensor.at("data_offsets").at(0).get<std::size_t>();
    const auto last = head + tensor.at("data_offsets").at(1).get<std::size_t>();
    const bool differs = before.compare(first, last - first, after, first, last - first) != 0;
    CHECK(differs == (name.find("projector.") != name.npos));
  }
  done(f, nano + " --steps 2 -o text");
  CHECK(f.run("train --data text:path=corpus --model nano --steps 2 --train projector -o x").code ==
        2);
  const Result blind = f.run("eval text --data shapes:split=valid --length 64");
  CHECK(blind.code == 2);
  CHECK(
      blind.err.find("the data bring image:numbers=48,places=16 and the model reads text alone") !=
      blind.err.npos);
  const Result other = f.run("eval run --data shapes:size=24,split=valid --length 128");
  CHECK(other.code == 2);
  CHECK(other.err.find("places=36") != other.err.npos);
  const Result cut = f.run("train --model nano" + data + "--length 24 --steps 2 -o y");
  CHECK(cut.code == 3);
  CHECK(cut.err.find("a sample of ") != cut.err.npos);
  const Result init = f.run("train --init text --data shapes --steps 2 -o z");
  CHECK(init.code == 2);
  done(f, small + "--dry-run");
  done(f, "plan nano:signal={image:numbers=48,places=16}");
}

TEST_CASE("moe data says what a sample is and writes its picture") {
  const Folder f;
  const Result r = done(f, "data shapes --samples 3 --pictures seen --format json");
  const Json report = Json::parse(r.out);
  CHECK(table_of(report, "signals").dump().find("48") != std::string::npos);
  CHECK(table_of(report, "samples").dump().find("16 + ") != std::string::npos);
  for (const char* name : {"seen/0.png", "seen/1.png", "seen/2.png"})
    CHECK(text_of(f / name).starts_with("\x89PNG"));
  const Result text = done(f, "data text:path=corpus --samples 1 --format json");
  CHECK(text.out.find("all that follows") != text.out.npos);
  const Result sounds = done(f, "data tones:valid=12 --samples 1 --pictures none");
  CHECK(sounds.err.find("none of the samples is a picture") != sounds.err.npos);
  CHECK_FALSE(fs::exists(f / "none"));
}

TEST_CASE("presets that route by modality train on pictures") {
  const Folder f;
  for (const std::string preset : {"moe-llava-toy", "limoe-toy", "ernie-vl-toy", "moma-toy"}) {
    INFO(preset);
    done(f, "train --model " + preset +
                ":hidden=32 --data shapes:valid=12 --batch 2 --length 64 --eval-tokens 0 "
                "--steps 2 -o " +
                preset);
  }
}

}  // namespace moe::cli
