// Models made from models, trained in parts, run without experts and along recorded routes, as a
// person does it.
#include <sys/resource.h>
#include <catch2/catch.hpp>

#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cli/program.h"

namespace moe::cli {
namespace {

using nlohmann::json;

const std::string valid =
    " --data text:path=corpus,split=valid --tokens 256 --length 32 --batch 2 --threads 1";

std::string small(const std::string& fields) {  // nano with other fields
  std::string words = nano;
  return words.replace(words.find("--model nano"), 12, "--model nano:" + fields);
}

Result good(const Folder& f, const std::string& words) {
  INFO("moe " << words);
  const Result r = f.run(words);
  INFO(r.err);
  REQUIRE(r.code == 0);
  return r;
}

void refused(const Folder& f, const std::string& words, int code, const std::string& says) {
  const Result r = f.run(words);
  INFO("moe " << words << "\n" << r.err);
  CHECK(r.code == code);
  CHECK(r.out.empty());
  CHECK(r.err.find(says) != r.err.npos);
  CHECK(r.err.find("\n  try:  ") != r.err.npos);
}

// One column of a table of `moe eval --format json`.
std::vector<double> column(const json& report, std::size_t table, const std::string& name) {
  for (const json& c : report.at("tables").at(table).at("columns")) {
    if (c.at("name") == name) {
      std::vector<double> out;
      for (const json& v : c.at("values"))
        out.push_back(v.get<double>());
      return out;
    }
  }
  FAIL("no column " << name);
  return {};
}

std::vector<double> losses(const Folder& f, const std::string& words, std::size_t table = 0,
                           const std::string& name = "loss") {
  return column(json::parse(good(f, "eval " + words + valid + " --format json").out), table, name);
}

// A tensor of a safetensors file, as bytes.
std::string tensor(const fs::path& file, const std::string& name) {
  const std::string all = text_of(file);
  std::uint64_t n = 0;
  std::memcpy(&n, all.data(), 8);
  const json header = json::parse(all.substr(8, n));
  const auto at = header.at(name).at("data_offsets");
  return all.substr(8 + n + at[0].get<std::size_t>(),
                    at[1].get<std::size_t>() - at[0].get<std::size_t>());
}

}  // namespace

TEST_CASE("dense to sparse and back to training") {
  const Folder f;
  good(f, nano + " --dense --steps 4 -o dense");
  CHECK(good(f, "edit dense -o copies --upcycle copy:experts=4,k=2")
            .out.find("4 copies of width 128") != std::string::npos);
  good(f, "edit dense -o shards --upcycle granular:shards=2,expansion=2");
  good(f, "edit dense -o parts --split experts=4");
  const auto before = losses(f, "dense");
  const auto copies = losses(f, "copies");
  const auto parts = losses(f, "parts");
  for (std::size_t d = 0; d < before.size(); ++d) {
    CHECK(copies[d] == Approx(before[d]).epsilon(1e-5));
    CHECK(parts[d] == Approx(before[d]).epsilon(1e-5));
  }
  const std::string on =
      "train --data text:path=corpus --batch 2 --length 32 --eval-tokens 128 --threads 1 --steps 3 "
      "--init ";
  for (const std::string from : {"copies", "shards", "parts"})
    good(f, on + from + " -o " + from + "_on");
  good(f, on + "copies --balance concat:coef=0.02 --capacity position:factor=1.5 -o other");
  CHECK(good(f, "show other --format json").out.find("concat:coef=0.02") != std::string::npos);
  CHECK(good(f, on + "copies --router softmax:k=1,temperature=2 -o cooled")
            .err.find("keep this program's own form, not that of mixtral: no published class "
                      "computes this; mixtral comes nearest, with router={") != std::string::npos);
  refused(f, on + "copies --model nano -o x", 2,
          "--model cannot change what --init brings with it");
  refused(f, on + "copies --router softmax:k=9 -o x", 2, "k=9 is more than the 4 experts");
  refused(f, on + "copies --router noisy:k=2 -o x", 2, "has no layers.0.moe.router.noise");
  refused(f, "edit dense -o x --add 1", 2, "a dense model has no experts");
  refused(f, "edit dense -o x", 2, "no edit was asked for");
  refused(f, "edit dense -o copies --split experts=2", 2, "'copies' exists");
  refused(f, "edit dense -o x --split experts=7", 2, "7");
}

TEST_CASE("experts are added, removed and merged, and the selection bias goes with them") {
  const Folder f;
  good(f, nano + " --steps 6 --router softmax:k=2,bias=1 --balance bias:rate=0.1 -o a");
  good(f, "trace a --out-norm -o a.h5" + valid);
  CHECK(good(f, "edit a -o more --add 2,noise=0.01 --trace a.h5").out.find("parameters") !=
        std::string::npos);
  good(f, "edit a -o same --remove 0:7,1:7");
  good(f, "edit a -o less --remove load:count=3 --trace a.h5");
  good(f, "edit a -o reap --remove reap:count=2 --trace a.h5");
  good(f, "edit a -o merged --merge threshold=-1");
  good(f, "edit a -o outputs --merge count=5,by=outputs,mean=weight --trace a.h5");
  refused(f, "edit a -o x --merge threshold=1", 1, "nothing was merged");
  refused(f, "edit a -o x --merge count=5,by=outputs", 2, "none is given");
  refused(f, "edit a -o x --merge count=5,threshold=0.5", 2, "one of the two");
  refused(f, "edit a -o x --merge count=5,by=looks", 2, "looks");
  CHECK(!fs::exists(f / "x"));
  for (const std::string name : {"more", "same", "less", "reap", "merged", "outputs"}) {
    INFO(name);
    CHECK(std::isfinite(losses(f, name)[0]));
    const std::string bias =
        tensor(f / (name + "/optimizer.safetensors"), "layers.0.moe.router.correction_bias");
    CHECK(bias.find_first_not_of('\0') != bias.npos);
    good(f,
         "train --data text:path=corpus --batch 2 --length 32 --eval-tokens 64 --threads 1 --steps "
         "2 --init " +
             name + " -o " + name + "_on");
  }
  const std::string all = tensor(f / "a/checkpoint-00000006/optimizer.safetensors",
                                 "layers.1.moe.router.correction_bias");
  CHECK(tensor(f / "same/optimizer.safetensors", "layers.1.moe.router.correction_bias") ==
        all.substr(0, 7 * 8));
  refused(f, "edit a -o x --remove load:count=2", 2, "none is given");
  refused(f, "edit a -o x --remove 0:7", 2, "");
  refused(f, "edit a -o x --remove 0:9,1:9", 2, "9");
  refused(f, "edit a -o x --upcycle copy:experts=2", 2, "");
  good(f, small("widths=64*4;32*4") + " --steps 2 -o uneven");
  refused(f, "edit uneven -o x --add 1", 2, "experts to copy must be alike");
  good(f, nano + " --router hierarchical:levels=2x2x2,keep=1x1x2 --steps 2 -o tree");
  refused(f, "edit tree -o x --remove 0:7,1:7", 2, "the levels of hierarchical");
}

namespace {

std::uintmax_t weights_of(const Folder& f, const std::string& folder) {
  return fs::file_size(f / (folder + "/model.safetensors"));
}

}  // namespace

TEST_CASE("experts in few bits are stored, run, traced and trained around") {
  const Folder f;
  good(f, small("width=64") + " --steps 6 -o a");
  good(f, "trace a --out-norm -o a.h5" + valid);
  const double loss = losses(f, "a")[0];
  const auto whole = fs::file_size(f / "a/checkpoint-00000006/model.safetensors");
  const std::map<std::string, std::string> formats = {{"int8", "q_int8"},
                                                      {"int8:block=32", "q_blocks"},
                                                      {"int4", "q_int4"},
                                                      {"fp8", "q_fp8"},
                                                      {"mxfp4", "q_mxfp4"}};
  for (const auto& [format, name] : formats) {
    INFO(format);
    const Result made = good(f, "edit a -o " + name + " --quantise experts=" + format);
    CHECK(made.out.find("layer 1: 8 " + format) != std::string::npos);
    CHECK(weights_of(f, name) < whole);
    const Result run = good(f, "eval " + name + valid + " --format json");
    CHECK(run.err.find("decoded each time") != std::string::npos);
    CHECK(column(json::parse(run.out), 0, "loss")[0] == Approx(loss).epsilon(0.02));
    good(f, "trace " + name + " -o " + name + ".h5" + valid);
    good(f, "generate " + name + " --prompt ab --tokens 4");
    good(f, "verify " + name);
    good(f, "plan " + name);
    good(f, "show " + name);
    CHECK(good(f, "report a.h5 --against " + name + ".h5").out.find("hoice") != std::string::npos);
  }
  good(f, "edit a -o kept --quantise experts=int4,by=load,keep=25% --trace a.h5");
  const Result mixed = good(
      f, "edit a -o mixed --quantise 'experts=int8|int4,by=importance' --bytes 0.2 --trace a.h5");
  CHECK(mixed.out.find("int8") != std::string::npos);
  CHECK(mixed.out.find("int4") != std::string::npos);
  CHECK(weights_of(f, "mixed") > weights_of(f, "q_int4"));
  CHECK(losses(f, "mixed")[0] == Approx(loss).epsilon(0.02));
  good(f, small("widths=64*4;32*4") + " --steps 2 -o uneven");
  good(f, "edit uneven -o q_uneven --quantise experts=int8");
  CHECK(losses(f, "q_uneven")[0] == Approx(losses(f, "uneven")[0]).epsilon(0.02));
  const Result limited = good(f, "edit a -o limited --quantise experts=int8 --bytes 0.5");
  CHECK(limited.out.find("as it was") != std::string::npos);
  refused(f, "edit a -o x --quantise experts=int8,by=load", 2, "nothing is chosen by their weight");
  refused(f, "edit a -o x --quantise experts=int3", 2, "int3");
  refused(f, "edit a -o x --quantise by=load", 2, "in which format");
  refused(f, "edit a -o x --quantise experts=int8,keep=10%", 2, "which experts stay");
  refused(f, "edit a -o x --quantise 'experts=int8|int4'", 2, "need a limit");
  refused(f, "edit a -o x --quantise 'experts=int8|fp8' --bytes 0.5", 2, "fp8 blocks stand alone");
  refused(f, "edit a -o x --quantise 'experts=int8|int4' --bytes 0.01", 2, "more than the");
  refused(f, "edit a -o x --bytes 0.5 --add 1", 2, "--bytes is the limit of --quantise");
  refused(f, "edit a -o x.gguf --quantise experts=int8", 2, "GGUF");
  refused(f, "edit a -o x --quantise experts=int8:block=48", 2, "do not divide by 48");
}

TEST_CASE("a run on experts in few bits is one that every verb opens") {
  const Folder f;
  good(f, small("shared_width=16,shared_gate=1") + " --steps 4 -o a");
  good(f, "edit a -o q --quantise experts=int4");
  const std::string on =
      "train --data text:path=corpus --batch 2 --length 32 --eval-tokens 64 --threads 1 --init q ";
  const Result run = good(f, on + "--steps 4 --save-every 2 --train router,shared -o on");
  CHECK(run.err.find("experts stay in few bits, frozen") != run.err.npos);
  good(f, "trace on -o on.h5" + valid);
  good(f, "verify on.h5");
  CHECK(good(f, "eval on" + valid).err.find("decoded each time") != std::string::npos);
  for (const char* words : {"generate on --prompt ab --tokens 4", "show on", "plan on", "verify on",
                            "edit on -o wide --save f32", "eval q on --data text:path=corpus"}) {
    const Result r = good(f, words);
    CHECK(r.err.find("left out") == r.err.npos);
  }
  CHECK(weights_of(f, "on/checkpoint-00000004") < weights_of(f, "wide") * 2 / 3);
  CHECK(losses(f, "wide")[0] == Approx(losses(f, "on")[0]).epsilon(1e-5));
  good(f, "train --resume on --steps 6 --threads 1");
  CHECK(weights_of(f, "on/checkpoint-00000006") == weights_of(f, "on/checkpoint-00000004"));
  for (const char* parts : {"", "--train experts=1 ", "--train router,experts "}) {
    refused(f, on + parts + "-o x", 2, "are in few bits, which do not train");
    refused(f, on + parts + "--dry-run", 2, "are in few bits, which do not train");
  }
  good(f, on + "--dry-run --train router,shared");
  const std::string widened =
      good(f, "train --data text:path=corpus --batch 2 --length 32 --init wide --dry-run").out;
  CHECK(widened.find("experts in few bits") == widened.npos);
  good(f,
       "train --data text:path=corpus --batch 2 --length 32 --init wide --threads 1 --steps 1 "
       "--eval-tokens 64 -o trained");
}

TEST_CASE("what is not trained stays, bit by bit, and a factor of zero is the same") {
  const Folder f;
  const std::string start = small("shared_width=16,shared_gate=1") + " --steps 3 --seed 5 ";
  good(f, start + "--lr 0 -o still");  // the first weights; decay is times the rate
  const auto weights = [&](const std::string& run, const std::string& name) {
    return tensor(f / (run + "/checkpoint-00000003/model.safetensors"), name);
  };
  const json header = [&] {
    const std::string all = text_of(f / "still/checkpoint-00000003/model.safetensors");
    std::uint64_t n = 0;
    std::memcpy(&n, all.data(), 8);
    return json::parse(all.substr(8, n));
  }();
  const auto moved = [&](const std::string& run, const auto& should) {
    for (const auto& [name, about] : header.items()) {
      if (name == "__metadata__")
        continue;
      INFO(run << ": " << name);
      CHECK((weights(run, name) != weights("still", name)) == should(name));
    }
  };
  const auto has = [](const std::string& name, const char* part) {
    return name.find(part) != name.npos;
  };
  const auto router = [&](const std::string& n) {
    return has(n, "mlp.gate.") || has(n, "router");
  };
  good(f, start + "--train router -o router");
  moved("router", router);
  good(f, start + "--train shared -o shared");
  moved("shared", [&](const std::string& n) { return has(n, "shared"); });
  good(f, start + "--train all -o all");
  moved("all", [](const std::string&) { return true; });
  good(f, start + "--train experts=1,3 -o some");
  moved("some", [&](const std::string& n) {
    return (has(n, "experts.1.") || has(n, "experts.3.")) && !has(n, "shared");
  });
  good(f, start + "--lr-factor router=0 -o slow");
  moved("slow", [&](const std::string& n) { return !router(n); });
  good(f, start + "--lr-factor experts=2 -o fast");
  CHECK(weights("fast", "model.embed_tokens.weight") !=
        weights("still", "model.embed_tokens.weight"));
  refused(f, start + "--train experts=1,9 -o x", 2, "there is no expert '9' among 0 to 7");
  refused(f, start + "--train rooter -o x", 2, "rooter");
  refused(f, start + "--train all --train router -o x", 2, "says all and then less");
  CHECK(!fs::exists(f / "x"));
  refused(f, start + "--lr-factor dense=2 -o x", 2, "no parameters of the group 'dense'");
}

TEST_CASE("loss without an expert, and along recorded routes") {
  const Folder f;
  good(f, nano + " --steps 6 -o a");
  const auto whole = losses(f, "a");
  const auto with =
      losses(f, "a --without-expert 0:1 --without-expert 0:0,0:1,0:2,0:3,0:4,0:5,0:6,0:7", 1);
  const auto without = losses(f, "a --without-expert 0:1", 1, "loss without");
  const auto none =
      losses(f, "a --without-expert 0:1 --without-expert 0:0,0:1,0:2,0:3,0:4,0:5,0:6,0:7", 2,
             "loss without");
  CHECK(with[0] == whole[0]);
  CHECK(without[0] != whole[0]);
  CHECK(none[0] != without[0]);
  refused(f, "eval a --without-expert 0:8" + valid, 2, "8");
  refused(f, "eval a --without-expert 5:0" + valid, 2, "5");

  good(f, "trace a --logits -o a.h5" + valid);
  // the same weights along the same routes
  CHECK(losses(f, "a --router replay:trace=a.h5") == whole);
  CHECK(losses(f, "a --router replay:trace=a.h5,weights=trace")[0] ==
        Approx(whole[0]).epsilon(1e-3));
  good(f, nano + " --steps 6 --seed 9 -o b");
  const auto own = losses(f, "b");
  const auto along = losses(f, "b --router replay:trace=a.h5");
  CHECK(along[0] != own[0]);
  CHECK(std::isfinite(along[0]));
  good(f, "trace b --router replay:trace=a.h5 -o along.h5" + valid);
  CHECK(good(f, "verify along.h5").out == "along.h5: whole\n");
  // of choices; sums of combine weights are the model's own
  const auto counts = [&](const std::string& file) {
    const auto report = json::parse(good(f, "report " + file + " --metric load --format json").out);
    for (const auto& t : report.at("tables")) {
      if (t.at("id") == "load_counts")
        return t.at("columns").at(2).at("values");
    }
    return json();
  };
  CHECK(counts("a.h5").size() == 16);
  CHECK(counts("along.h5") == counts("a.h5"));
  refused(f,
          "eval a --router replay:trace=a.h5 --data text:path=corpus,split=train --tokens 256 "
          "--length 32 --threads 1 --batch 2",
          3, "of the trace 'a.h5'");
  refused(f, "eval a --router replay:trace=a.h5,router={softmax:k=1}" + valid, 3,
          "2 choices a token and the model 1");
  refused(f,
          "eval a --router replay:trace=a.h5 --data text:path=corpus,split=valid --tokens 256 "
          "--length 16 --threads 1 --batch 2",
          3, "of the trace 'a.h5'");
  refused(f, "eval a --router replay:trace=none.h5" + valid, 3, "none.h5");
  refused(f, nano + " --steps 2 --router replay:trace=a.h5 -o x", 2, "training draws batches");
  good(f, small("layers=3") + " --steps 1 -o deep");
  refused(f, "eval deep --router replay:trace=a.h5" + valid, 3,
          "it has 2 MoE layers and the model 3");

  const json values =
      json::parse(good(f, "list balance --values --trace a.h5 --tokens 128 --format json").out);
  CHECK(column(values, 0, "factor")[0] == 1);
  refused(f, "list balance --values --trace a.h5 --skew 2", 2,
          "--skew applies to a generated batch");
  good(f, "trace a -o plain.h5" + valid);
  refused(f, "list balance --values --trace plain.h5", 3, "has no logits");
}

TEST_CASE("what systems call the balance loss") {
  const Folder f;
  const json drawn =
      json::parse(good(f, "list balance --values --layers 4 --k 2 --format json").out);
  const auto factor = column(drawn, 0, "factor");
  const auto coefficient = column(drawn, 0, "coefficient");
  CHECK(factor[1] == Approx(0.25));
  CHECK(coefficient[1] == Approx(0.04));
  CHECK(good(f, "list balance --values --format csv").out.find("MegaBlocks") != std::string::npos);
  refused(f, "list routers --values", 2, "--values compares balance losses");
  refused(f, "list --skew 2", 2, "--skew describes the batch of --values");
  refused(f, "list balance --values --k 9", 2, "k=9 is not between 1 and the 8 experts");
  CHECK(good(f, "list balance").out.find("concat:coef=0.01") != std::string::npos);
}

TEST_CASE(
    "a temperature that moves is in the metrics and in the checkpoint, a balanced table in the "
    "checkpoint") {
  const Folder f;
  good(
      f,
      nano +
          " --steps 3 --router softmax:k=2,temperature=2..0.5,temperature_schedule=linear -o warm");
  std::istringstream lines(text_of(f / "warm/metrics.jsonl"));
  std::vector<double> seen;
  for (std::string line; std::getline(lines, line);) {
    if (const json j = json::parse(line); j.contains("layers"))
      seen.push_back(j["layers"][0]["temperature"].get<double>());
  }
  CHECK(seen == std::vector<double>{2, 1.25, 0.5});
  good(f, "eval warm" + valid);
  good(f, nano + " --steps 3 --router hash:k=1,fn=balanced --balance none -o table");
  good(f, "trace table -o t.h5" + valid);
  refused(f, "edit table -o x --merge count=4", 2, "names experts by their ids");
}

TEST_CASE("thousands of experts train a step and trace in the memory that was stated") {
  const Folder f;
  const std::string start =
      "train --data text:path=corpus --model "
      "nano:layers=1,hidden=16,heads=2,kv_heads=1,width=2,context=32,router={softmax:k=8} "
      "--experts 4096 --batch 2 --length 32 --eval-tokens 64 --threads 1 --steps 1";
  const std::string dry = good(f, start + " --dry-run").out;
  const std::string row = "memory in all";
  std::istringstream in(dry.substr(dry.find(row) + row.size()));
  std::string about, unit;
  double stated = 0;
  in >> about >> stated >> unit;
  REQUIRE((about == "about" && (unit == "MiB" || unit == "GiB")));
  stated *= unit == "GiB" ? 1024 : 1;
  good(f, start + " -o many");
  good(f,
       "trace many --data text:path=corpus,split=valid --tokens 64 --length 32 --threads 1 -o "
       "many.h5");
  CHECK(good(f, "verify many.h5").out == "many.h5: whole\n");
  rusage usage{};
  REQUIRE(getrusage(RUSAGE_CHILDREN, &usage) == 0);  // the largest of all programs started so far
  INFO(double(usage.ru_maxrss) / 1024 << " MiB used, " << stated << " MiB stated");
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // "about": what the program itself takes depends on the processor and on the page cache
  CHECK(double(usage.ru_maxrss) / 1024 <= 1.05 * stated);
  CHECK(double(usage.ru_maxrss) / 1024 >= 0.8 * stated);
#endif
}

}  // namespace moe::cli
