// Runs and folders as files for llama.cpp, with their tokenizers, as a person makes them.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"
#include "tests/sentencepiece_bytes.h"

namespace moe::cli {
namespace {

Result good(const Folder& f, const std::string& words) {
  INFO("moe " << words);
  const Result r = f.run(words);
  INFO(r.err);
  REQUIRE(r.code == 0);
  return r;
}

void refused(const Folder& f, const std::string& words, const std::string& says) {
  const Result r = f.run(words);
  INFO("moe " << words << "\n" << r.err);
  CHECK(r.code == 2);
  CHECK(r.err.find(says) != r.err.npos);
}

const std::string ask = " --prompt 'the house of 12' --tokens 6 --temperature 0 --threads 1";

}  // namespace

TEST_CASE("a run on words becomes a GGUF file that says the same") {
  const Folder f;
  good(f, nano + " --tokenizer bpe:vocab=300 --steps 6 -o run");
  const Result made = good(f, "edit run -o x.gguf --save f32");
  CHECK(made.err.find("wrote x.gguf (llama)") != made.err.npos);
  CHECK(made.err.find("tokenizer") == made.err.npos);
  CHECK(good(f, "generate x.gguf" + ask).out == good(f, "generate run" + ask).out);
  CHECK(good(f, "verify x.gguf").out.find("whole") != std::string::npos);
  good(f, "edit run -o less.gguf --save q8_0 --remove 0:1,1:5");
  CHECK(fs::file_size(f / "less.gguf") < fs::file_size(f / "x.gguf") / 2);
  good(f, "generate less.gguf" + ask);
  // bytes are copied from there
  good(f, "edit less.gguf --remove 0:0,1:0 -o fewer.gguf");
  good(f, "edit less.gguf -o half.gguf --save bf16");
  good(f, "edit half.gguf --remove 0:0,1:0 -o folder");
  good(f, "generate folder" + ask);
  for (const std::string& name : f.names()) {
    INFO(name);
    CHECK(name.find(".part.gguf") == name.npos);
  }
}

TEST_CASE("sentencepiece's pieces and a chat template go into the file") {
  const Folder f;
  good(f, nano + " --tokenizer bpe:vocab=300 --steps 1 -o run");
  fs::create_directory(f / "theirs");
  const std::string from = "run/checkpoint-00000001/";
  for (const char* file : {"config.json", "model.safetensors"})
    fs::copy_file(f / (from + file), f / (std::string("theirs/") + file));
  std::string model = test::scored_piece("<unk>", 0, 2) + test::scored_piece("<s>", 0, 3) +
                      test::scored_piece("</s>", 0, 3) + test::scored_piece("\xE2\x96\x81", -1, 1);
  for (int b = '!'; b < 127; ++b)
    model += test::scored_piece(std::string(1, char(b)), float(-b), 1);
  model += test::field(2, test::varint(3, 2));  // byte pairs
  put(f / "theirs/tokenizer.model", model);
  put(f / "theirs/chat_template.jinja", "{{ messages[0]['content'] }}");
  good(f, "edit theirs -o x.gguf --save f32");
  // rows of the embedding without a piece are tokens in the file, and may be drawn there: the first
  // answer is the same, and so is the reading of the prompt
  const std::string one = " --prompt house --tokens 1 --temperature 0";
  CHECK(good(f, "generate x.gguf" + one).out == good(f, "generate theirs" + one).out);
  CHECK(text_of(f / "x.gguf").find("{{ messages[0]['content'] }}") != std::string::npos);
}

TEST_CASE("a Unigram model goes into the file") {
  const Folder f;
  good(f, nano + " --tokenizer bpe:vocab=300 --steps 1 -o run");
  fs::create_directory(f / "theirs");
  for (const char* file : {"config.json", "model.safetensors"}) {
    fs::copy_file(f / (std::string("run/checkpoint-00000001/") + file),
                  f / (std::string("theirs/") + file));
  }
  std::string model = test::scored_piece("<unk>", 0, 2) + test::scored_piece("<s>", 0, 3) +
                      test::scored_piece("</s>", 0, 3) + test::scored_piece("\xE2\x96\x81", -1, 1) +
                      test::scored_piece("\xE2\x96\x81ho", -2, 1) +
                      test::scored_piece("use", -3, 1);
  for (int b = '!'; b < 127; ++b)
    model += test::scored_piece(std::string(1, char(b)), -8, 1);
  put(f / "theirs/spiece.model", model + test::field(2, test::varint(3, 1)));
  const Result made = good(f, "edit theirs -o x.gguf --save f32");
  INFO(made.err);
  CHECK(made.err.find("tokenizer") == made.err.npos);
  CHECK(text_of(f / "x.gguf").find("remove_extra_whitespaces") != std::string::npos);
  // rows of the embedding without a piece have one in the file: what is drawn may differ
  put(f / "lines", "house  of  cards \xC2\xB2 he\n");
  Start s;
  s.input = f / "lines";
  const Result there = f.run("tokenizer encode x.gguf", s);
  REQUIRE(there.code == 0);
  CHECK(there.out.size() > 40);
  CHECK(there.out == f.run("tokenizer encode theirs", s).out);
}

TEST_CASE("files that are not made end in a sentence") {
  const Folder f;
  good(f, nano + " --steps 1 -o run");
  refused(f, "edit run -o x.gguf", "--save does not say of which type");
  refused(f, "edit run -o x.gguf --remove 0:1,1:1", "--save does not say of which type");
  refused(f, "edit run -o folder --save q8_0", "q8_0 is a type of GGUF files");
  refused(f, "edit run -o x.gguf --save f32 --layout packed", "--layout");
  good(f, nano + " --router noisy:k=2 --balance none --steps 1 -o odd");
  refused(f, "edit odd -o x.gguf --save f32", "llama.cpp has no architecture for moe");
  CHECK_FALSE(fs::exists(f / "x.gguf"));
  CHECK_FALSE(fs::exists(f / "folder"));
  put(f / "x.gguf", "mine");
  refused(f, "edit run -o x.gguf --save f32", "exists");
  CHECK(text_of(f / "x.gguf") == "mine");
}

}  // namespace moe::cli
