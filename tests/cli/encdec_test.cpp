// An encoder-decoder from its text to its report: trained on spans that are taken out and on pairs,
// resumed, evaluated, asked, recorded, written as its class.
#include <catch2/catch.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "lib/trace/reader.h"
#include "tests/cli/program.h"

namespace moe::cli {
namespace {

using Json = nlohmann::json;

const std::string small =
    "train --model switch-t5-toy:hidden=32,width=32,dense_width=32,layers=4,encoder_layers=2,"
    "experts=4,context=64,logit_divisor=5.656854249492381,capacity={count:tokens=5} "
    "--data text:path=corpus --task denoise --batch 2 --length 64 --threads 1 --eval-tokens 1024 ";

Result done(const Folder& f, const std::string& words) {
  Result r = f.run(words);
  INFO("moe " << words << "\n" << r.err);
  REQUIRE(r.code == 0);
  return r;
}

Json json_of(const Folder& f, const std::string& name) {
  std::ifstream in(f / name);
  return Json::parse(in);
}

}  // namespace

TEST_CASE("an encoder-decoder is trained, resumed, evaluated and asked, and written as its class") {
  const Folder f;
  done(f, small + "--steps 6 -o whole");
  done(f, small + "--steps 6 --save-every 3 --keep 3 -o part");
  // the same bytes after an interruption
  done(f, small + "--steps 3 -o cut");
  done(f, "train --resume cut --steps 6 --threads 2");
  const auto weights = [&](const std::string& run) {
    return text_of(f / (run + "/checkpoint-00000006/model.safetensors"));
  };
  CHECK(weights("whole") == weights("part"));
  CHECK(json_of(f, "whole/checkpoint-00000006/config.json").at("model_type") ==
        "switch_transformers");
  const Result eval = done(f,
                           "eval whole --data text:path=corpus,split=valid,task=denoise --tokens "
                           "512 --batch 2 --threads 1 --format json");
  CHECK(Json::parse(eval.out).at("tables").size() >= 1);
  const Result text = done(f, "generate whole --prompt 'the <extra_id_0> house' --tokens 5");
  CHECK(text.out.starts_with("the <extra_id_0> house\n"));
  const Result none = f.run("generate whole --prompt 'the <extra_id_99> house' --tokens 5");
  CHECK(none.code == 2);
  CHECK(none.err.find("is none of the model's 32 sentinels") != none.err.npos);
}

TEST_CASE("a trace tells the layers and the tokens of an encoder from those of its decoder") {
  const Folder f;
  done(f, small + "--steps 2 -o run --trace train.h5");
  done(f,
       "trace run --data text:path=corpus,split=valid,task=denoise --tokens 512 --batch 2 --length "
       "64 --threads 1 -o a.h5");
  for (const char* name : {"train.h5", "a.h5"}) {
    INFO(name);
    done(f, std::string("verify ") + name);
    const TraceReader trace(f / name);
    REQUIRE(trace.header().layers.size() == 2);
    CHECK(trace.header().layers[0].encoder);
    CHECK_FALSE(trace.header().layers[1].encoder);
    CHECK(trace.header().format_version == "1.4");
    const TraceRows rows = trace.read(0, trace.tokens(), trace.fields());
    std::size_t sources = 0;
    bool dropped = false;
    for (std::size_t t = 0; t < rows.tokens(); ++t) {
      const bool source = rows.flags[t] & token_flag::source;
      sources += source;
      CHECK((rows.layer[0].expert(Index(t), 0) >= 0) == source);
      CHECK((rows.layer[1].expert(Index(t), 0) >= 0) == !source);
      dropped = dropped || rows.layer[0].dropped(Index(t), 0);
      if (t > 0 && rows.sequence[t] == rows.sequence[t - 1])
        REQUIRE(source == ((rows.flags[t - 1] & token_flag::source) != 0));
    }
    CHECK(sources > rows.tokens() / 2);
    CHECK(sources < rows.tokens());
    CHECK(dropped);
  }
  const Result decoder = done(f, "report a.h5 --format json --bootstrap 0");
  const Result encoder = done(f, "report a.h5 --stack encoder --format json --bootstrap 0");
  CHECK(decoder.out != encoder.out);
  CHECK(encoder.out.find("MoE layers of its encoder") != encoder.out.npos);
  CHECK(decoder.out.find("MoE layers of its decoder") != decoder.out.npos);
  // a token of an answer is a decoder's
  done(f, "generate run --prompt house --tokens 4 --trace answer.h5");
  done(f, "verify answer.h5");
}

TEST_CASE("pairs train an encoder-decoder, and what does not fit is refused") {
  const Folder f;
  std::ofstream out(f / "pairs.tsv");
  for (int i = 0; i < 200; ++i)
    out << "number " << i << "\tNummer " << i << "\n";
  out.close();
  const std::string tiny = "hidden=32,layers=4,encoder_layers=2,context=32 ";
  done(f, "train --model nllb-toy:width=16,dense_width=16,experts=4," + tiny +
              "--data pairs:path=pairs.tsv --batch 4 --steps 2 --threads 1 -o run");
  done(f, "eval run --data pairs:path=pairs.tsv,split=valid --threads 1 --batch 4");
  const auto refused = [&](const std::string& words, const std::string& says) {
    const Result r = f.run(words);
    INFO("moe " << words << "\n" << r.err);
    CHECK(r.code == 2);
    CHECK(r.err.find(says) != r.err.npos);
  };
  refused("train --model nano --data pairs:path=pairs.tsv --steps 1 -o other",
          "this model has no encoder to read it");
  refused(
      "train --model t5-toy:dense_width=16," + tiny + "--data text:path=corpus --steps 1 -o other",
      "the data have no source for it");
  refused("eval run --data text:path=corpus", "reads a source for each sequence");
  refused("train --model nano --data text:path=corpus --task dream --steps 1 -o other",
          "no task named 'dream'");
}

}  // namespace moe::cli
