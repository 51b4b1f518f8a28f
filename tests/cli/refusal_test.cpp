// Bad input: every refusal is one sentence with the values in it and a way out, has its exit code,
// prints nothing on stdout and leaves the folder as it was.
#include <catch2/catch.hpp>

#include "tests/cli/program.h"

namespace moe::cli {
namespace {

struct Case {
  std::string words;
  int code;
  std::string says, tries;  // parts of the sentence and of the hint
};

void refuses(const Folder& folder, const Case& c) {
  INFO("moe " << c.words);
  const auto before = folder.names();
  const Result r = folder.run(c.words);
  INFO(r.err);
  CHECK(r.code == c.code);
  CHECK(r.out.empty());
  const auto at = r.err.rfind("moe: ");
  REQUIRE(at != r.err.npos);
  CHECK(r.err.find(c.says, at) != r.err.npos);
  const auto hint = r.err.find("\n  try:  ", at);
  REQUIRE(hint != r.err.npos);
  CHECK(r.err.find(c.tries, hint) != r.err.npos);
  CHECK(folder.names() == before);
}

}  // namespace

TEST_CASE("a hint never names the verb that failed, nor a look at what is not there") {
  const Folder f;
  put(f / "odd.txt", "neither this nor that");
  for (const std::string verb : {"show", "verify", "report", "eval --data system"}) {
    const std::string name = verb.substr(0, verb.find(' '));
    for (const std::string path : {"absent.h5", "odd.txt", "."}) {
      const Result r = f.run(verb + " " + path);
      INFO("moe " << verb << " " << path << "\n" << r.err);
      CHECK(r.code != 0);
      const auto hint = r.err.find("\n  try:  ");
      if (hint == r.err.npos)
        continue;
      CHECK(r.err.find("moe " + name + " PATH", hint) == r.err.npos);
      CHECK((path != "absent.h5" || r.err.find("moe ", hint) == r.err.npos));
    }
  }
}

TEST_CASE("a dry run looks at the data as the run would") {
  const Folder f;
  const std::string dry = "train --dry-run --model nano ";
  CHECK(f.run(dry + "--data text:path=absent").err.find("absent") != std::string::npos);
  CHECK(f.run(dry + "--data text:path=absent").code != 0);
  CHECK(f.run(dry + "--data nothing").code == 2);
  CHECK(f.run(dry + "--data text:path=corpus,split=valid").err.find("split=valid") !=
        std::string::npos);
  const auto parameters = [&](const std::string& words) {
    const Result r = f.run(dry + words);
    INFO(r.err);
    REQUIRE(r.code == 0);
    return r.out.substr(r.out.find("parameters"), 40);
  };
  const std::string alone = parameters("");
  CHECK(parameters("--data text:path=corpus") == alone);  // bytes are the presets' own ids
  CHECK(parameters("--data clusters:vocabulary=1000") != alone);
  CHECK(parameters("--data text:path=corpus --tokenizer bpe:vocab=1000") ==
        parameters("--tokenizer bpe:vocab=1000"));
}

TEST_CASE("a value from the environment is refused under the name of its variable") {
  const Folder f;
  const Start from_outside{.environment = {"MOE_THREADS=abc"}};
  const Result r = f.run("train --dry-run --model nano", from_outside);
  CHECK(r.code == 2);
  CHECK(r.err.find("the environment variable MOE_THREADS: 'abc' is not a whole number") !=
        r.err.npos);
  const Result typed = f.run("train --dry-run --model nano --threads xyz", from_outside);
  CHECK(typed.err.find("--threads: 'xyz' is not a whole number") != typed.err.npos);
  CHECK(f.run("train --dry-run --model nano --threads 1", from_outside).code == 0);
}

TEST_CASE("counts are read as they are written, and 1Ki is 1024") {
  const Folder f;
  const auto tokens = [&](const std::string& length) {
    const Result r = f.run("train --dry-run --model nano:context=1Ki --batch 1 --length " + length);
    INFO(length << ": " << r.err);
    REQUIRE(r.code == 0);
    const std::string row = "tokens a step";
    return std::stoll(r.out.substr(r.out.find(row) + row.size()));
  };
  CHECK(tokens("100") == 100);
  CHECK(tokens("0100") == 100);  // not octal
  CHECK(tokens("+100") == 100);
  CHECK(tokens("1Ki") == 1024);
  const Result kept =
      f.run("synth uniform --tokens 1Ki --layers 1 --experts 4 --topk 2 -o a.moetrace.h5");
  INFO(kept.err);
  REQUIRE(kept.code == 0);
  CHECK(f.run("show a.moetrace.h5").out.find("1024 tokens x 1 MoE layers") != std::string::npos);
}

TEST_CASE("words that are not understood") {
  const Folder f;
  const std::vector<Case> cases = {
      {"trian", 2, "no command named 'trian'", "'train'"},
      {"''", 2, "no command named ''", "train"},
      {"--nope", 2, "unknown option '--nope'", "--help"},
      {"train --lenght 5", 2, "unknown option '--lenght'", "--length"},
      {"train extra", 2, "unexpected argument 'extra'", "--help"},
      {"show x -", 2, "unexpected argument '-'", "--help"},
      {"train", 2, "--data is missing", "--data system"},
      {"train --data system", 2, "-o is missing", "-o runs/a"},
      {"trace runs/a -o x.h5", 2, "--data is missing", "--data text:path=FOLDER"},
      {"report", 2, "trace is missing", "moe report a.moetrace.h5"},
      {nano + " -o r --steps", 2, "--steps needs a value", ""},
      {nano + " -o r --model tiny", 2, "--model was given 2 times", ""},
      {nano + " -o r --steps 1e3", 2, "'1e3' is not a whole number", ""},
      {nano + " -o r --steps -1", 2, "--steps: -1 is less than 0", ""},
      {nano + " -o r --steps 5x", 2, "'5x' is not a whole number", ""},
      {nano + " -o r --eval-tokens 64k", 2,
       "--eval-tokens: '64k' is 64000 to some and 65536 to others: write 64000, or 64Ki for 65536",
       ""},
      {nano + " -o r --lr nan", 2, "'nan' is not a number", ""},
      {nano + " -o r --clip -1", 2, "-1 is less than 0", ""},
      {nano + " -o r --seed -1", 2, "-1 is less than 0", ""},
      {nano + " -o r --seed 99999999999999999999", 2,
       "'99999999999999999999' is not a whole number", ""},
      {nano + " -o r --accumulate 0", 2, "0 is less than 1", ""},
      {"list thing", 2, "no kind of thing named 'thing'", "routers"},
      {"verify", 2, "nothing to verify was named", "moe verify"},
      {"trace r --data system -o t.h5 --durability powr", 2, "'powr' is not one of process, power",
       ""},
      {"train --config none.toml", 3, "none.toml", ""},
  };
  for (const Case& c : cases)
    refuses(f, c);
}

TEST_CASE("things to choose that are not there, or do not fit") {
  const Folder f;
  const std::vector<Case> cases = {
      {nano + " -o r --router sofmax", 2, "no router named 'sofmax'", "'softmax'"},
      {nano + " -o r --router softmax:kk=1", 2, "no option 'kk'", "k, norm"},
      {nano + " -o r --router softmax:k=9", 2, "k=9 is more than the 8 experts", "k=8 or less"},
      {nano + " -o r --router softmax:k=two", 2, "k=two is not a whole number", ""},
      {nano + " -o r --balance swich", 2, "no balancer named 'swich'", "'switch'"},
      {nano + " -o r --balance bias", 2, "correction bias", "bias=1"},
      {nano + " -o r --capacity position:factr=1", 2, "no option 'factr'", "'factor'"},
      {nano + " -o r --tokenizer bytez", 2, "no tokenizer named 'bytez'", "'bytes'"},
      {nano + " -o r --device gpu", 2, "no device named 'gpu'", "cpu"},
      {nano + " -o r --schedule cosin", 2, "no schedule named 'cosin'", "'cosine'"},
      {nano + " -o r --schedule cosine:warmup=x", 2, "warmup=x is not a number", ""},
      {"train --data system --model nan -o r", 2, "no model named 'nan'", "'nano'"},
      {"train --data system --model nano:hidden=66 -o r", 2, "66 is not divisible by 4 heads",
       "hidden=68"},
      {"train --data system --model nano:hiden=64 -o r", 2, "no option 'hiden'", "'hidden'"},
      {"train --data system --model nano --length 500 -o r", 2,
       "--length 500 is more than the model's context of 128", "--length 128"},
      {"train --data text:path=corpus --model nano:hidden=400000,head_dim=16 -o r", 5,
       "of memory and this machine has", "--dry-run"},
      {"train --data txt -o r", 2, "no dataset named 'txt'", "'text'"},
      {"train --data text:pth=x -o r", 2, "no option 'pth'", "'path'"},
      {"train --data text -o r", 2, "given no path", "text:path="},
      {nano + " --dense -o r --trace t.h5", 2, "a dense model has no routing", "--trace"},
  };
  for (const Case& c : cases)
    refuses(f, c);
}

TEST_CASE("files that are missing, empty, binary or in the way") {
  const Folder f;
  put(f / "empty/nothing.txt", "");
  put(f / "binary.dat", std::string("ab\0cd", 5));
  put(f / "notes.txt", "mine");
  put(f / "bad.toml", "steps = 3\nstep = 4\n");
  put(f / "section.toml", "[report]\nsample = 4\n");
  const std::string start = "train --model nano --steps 1 -o r --data ";
  const std::vector<Case> cases = {
      {start + "text:path=nowhere", 3, "'nowhere' does not exist", "path"},
      {start + "text:path=empty", 3, "holds no text", "text in it"},
      {start + "text:path=binary.dat", 3, "NUL byte at offset 2", "binary=1"},
      {start + "text:path=corpus,split=valid", 2, "split=valid", "split="},
      {nano + " -o corpus", 2, "'corpus' exists and is not a run", "-o"},
      {nano + " -o corpus --force", 2, "--force replaces runs only", "-o"},
      {nano + " -o notes.txt --force", 2, "'notes.txt' exists", "-o"},
      {nano + " -o r --trace notes.txt", 2, "'notes.txt' exists", "--force"},
      {nano + " -o r --trace none/t.h5", 4, "no folder 'none'", "mkdir"},
      {nano + " -o /proc/moe/r", 4, "/proc/moe", ""},
      {"train --resume none", 3, "no run 'none'", ""},
      {"train --resume corpus", 3, "'corpus' is not a run", "moe train"},
      {"train --config bad.toml", 2, "unknown key 'step'", "'steps'"},
      {"train --config section.toml", 2, "section [report]", ""},
      {"trace none --data system -o t.h5", 3, "'none'", ""},
      {"eval corpus --data system", 3, "'corpus'", ""},
      {"report none.h5", 3, "none.h5", ""},
      {"report notes.txt", 3, "not an HDF5 file (4 bytes)", ""},
      {"report corpus", 3, "'corpus' is a folder", "moe trace"},
      {"report notes.txt -o notes.txt", 2, "'notes.txt' exists", "--force"},
      {"report notes.txt -o r.xyz", 2, "does not say which format", "--format"},
      {"report notes.txt --format htm", 2, "no format named 'htm'", "'html'"},
      {"report notes.txt -o none/r.html", 4, "no folder 'none'", "mkdir"},
      {"recover notes.txt -o t.h5", 3, "not an HDF5 file", ""},
      {"show none", 3, "'none'", ""},
      {"verify none", 3, "'none'", ""},
      {"verify --golden corpus", 3, "no case files", ""},
  };
  for (const Case& c : cases)
    refuses(f, c);
  CHECK(text_of(f / "notes.txt") == "mine");
}

// A build with CUDA on a machine without a GPU says why there is none; one without CUDA says how to
// have it. Exit code 7 either way.
TEST_CASE("a device that this machine has not got") {
  const Folder f;
  const std::string facts = f.run("--version").out;
  const bool built = facts.find("cuda") != facts.npos && facts.find("not built") == facts.npos;
  if (built && f.run("verify --device cuda").code != 7)
    return;  // there is a GPU
  const std::string says = built ? "NVIDIA" : "built without the CUDA backend";
  const std::string tries = built ? "--device cpu" : "cmake --preset cuda";
  for (const char* device : {"cuda", "cuda:dtype=bf16", "check:of={cuda}"})
    refuses(f, {nano + " -o r --device " + device, 7, says, tries});
  for (const char* words : {"verify --device cuda", "bench ops --device cuda"})
    refuses(f, {words, 7, says, tries});
}

TEST_CASE("what crosses between ranks is not said where nothing crosses") {
  const Folder f;
  refuses(f, {nano + " -o r --move weights", 2, "--move says what crosses", "leave --move out"});
}

}  // namespace moe::cli
