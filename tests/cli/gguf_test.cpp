// A GGUF file in the place of a checkpoint, in every verb that takes one, and cut into a smaller
// one.
#include <catch2/catch.hpp>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/cli/program.h"
#include "tests/cli/rows.h"
#include "tests/gguf_bytes.h"

namespace moe::cli {
namespace {

using test::GgufBytes;
using test::raw;

constexpr std::size_t hidden = 32, width = 32, experts = 4, vocabulary = 40;

// Numbers that differ from each other, below 0.5.
std::vector<float> numbers(std::size_t n, std::size_t salt) {
  std::vector<float> out;
  for (std::size_t i = 0; i < n; ++i)
    out.push_back(float(std::sin(double(i * 7 + salt * 13 + 1))) * 0.4f);
  return out;
}
// Rows of 32 numbers in Q8_0, scaled by 1/128.
std::string blocks(std::size_t rows, std::size_t salt) {
  std::string out;
  for (std::size_t r = 0; r < rows; ++r) {
    out += raw(std::uint16_t(0x2000));
    for (std::size_t c = 0; c < hidden; ++c)
      out += char((r * 31 + c * 17 + salt * 5) % 61 - 30);
  }
  return out;
}

void add_layer(GgufBytes& g, const std::string& at, std::size_t salt) {
  for (const char* norm : {"attn_norm", "ffn_norm"})
    g.floats(at + norm + ".weight", {hidden}, std::vector<float>(hidden, 1));
  for (const char* norm : {"attn_q_norm", "attn_k_norm"})
    g.floats(at + norm + ".weight", {16}, std::vector<float>(16, 1));
  g.floats(at + "attn_q.weight", {hidden, 32}, numbers(hidden * 32, salt));
  g.floats(at + "attn_k.weight", {hidden, 16}, numbers(hidden * 16, salt + 1));
  g.floats(at + "attn_v.weight", {hidden, 16}, numbers(hidden * 16, salt + 2));
  g.floats(at + "attn_output.weight", {32, hidden}, numbers(hidden * 32, salt + 3));
  g.floats(at + "ffn_gate_inp.weight", {hidden, experts}, numbers(hidden * experts, salt + 4));
  for (const char* part : {"gate", "up", "down"})
    g.tensor(at + "ffn_" + part + "_exps.weight", {hidden, width, experts}, 8,
             blocks(width * experts, salt++));
}

GgufBytes tiny() {
  GgufBytes g;
  const std::string a = "qwen3moe.";
  g.text("general.architecture", "qwen3moe");
  g.u32(a + "block_count", 2);
  g.u32(a + "context_length", 64);
  g.u32(a + "embedding_length", hidden);
  g.u32(a + "feed_forward_length", 64);
  g.u32(a + "attention.head_count", 2);
  g.u32(a + "attention.head_count_kv", 1);
  g.u32(a + "attention.key_length", 16);
  g.f32(a + "attention.layer_norm_rms_epsilon", 1e-6f);
  g.u32(a + "expert_count", experts);
  g.u32(a + "expert_used_count", 2);
  g.u32(a + "expert_feed_forward_length", width);
  g.floats("token_embd.weight", {hidden, vocabulary}, numbers(hidden * vocabulary, 50));
  g.floats("output_norm.weight", {hidden}, std::vector<float>(hidden, 1));
  add_layer(g, "blk.0.", 1);
  add_layer(g, "blk.1.", 21);
  return g;
}

Result good(const Folder& f, const std::string& words) {
  INFO("moe " << words);
  const Result r = f.run(words);
  INFO(r.err);
  REQUIRE(r.code == 0);
  return r;
}

}  // namespace

TEST_CASE("every verb that reads a checkpoint reads a GGUF file") {
  const Folder f;
  put(f / "x.gguf", tiny().bytes());
  std::string ids;
  for (int i = 0; i < 200; ++i)
    ids += std::to_string(i * i % 40) + " ";
  put(f / "ids.txt", ids);
  const std::string data = " --data tokens:path=ids.txt --length 32 --batch 2 --threads 1";
  CHECK(good(f, "show x.gguf").out.find("Q8_0") != std::string::npos);
  CHECK(good(f, "plan x.gguf").out.find("qwen3_moe") != std::string::npos);
  CHECK(good(f, "verify x.gguf").out.find("whole") != std::string::npos);
  good(f, "trace x.gguf -o a.moetrace.h5" + data);
  good(f, "trace x.gguf -o b.moetrace.h5 --expert-memory 1KB" + data);
  CHECK(same_rows(f / "a.moetrace.h5", f / "b.moetrace.h5", true));
  good(f, "eval x.gguf" + data);
  CHECK(good(f, "eval x.gguf --top-k 3" + data).out.find("loss k=3") != std::string::npos);
  const Result said = good(f, "generate x.gguf --ids '1 5 7' --tokens 4 --temperature 0");
  CHECK(said.out.starts_with("1 5 7 "));
  good(f, "edit x.gguf --remove load:count=2 --trace a.moetrace.h5 -o y.gguf");
  CHECK(fs::file_size(f / "y.gguf") < fs::file_size(f / "x.gguf"));
  good(f, "verify y.gguf");
  good(f, "eval y.gguf" + data);
  good(f, "edit x.gguf --remove 0:1,1:2 -o folder");
  good(f, "verify folder");
}

TEST_CASE("a GGUF file that cannot be read, or not be made, ends in a sentence") {
  const Folder f;
  put(f / "x.gguf", tiny().bytes());
  const std::string whole = tiny().bytes();
  put(f / "cut.gguf", whole.substr(0, whole.size() - 40));
  const auto refused = [&](const std::string& words, int code, const std::string& says) {
    const Result r = f.run(words);
    INFO("moe " << words << "\n" << r.err << r.out);
    CHECK(r.code == code);
    CHECK((r.err + r.out).find(says) != std::string::npos);
  };
  refused("show cut.gguf", 3, "'cut.gguf'");
  refused("verify cut.gguf", 1, "'cut.gguf'");
  refused("edit x.gguf --merge threshold=0.9 -o y.gguf", 2, "--remove");
  refused("edit x.gguf --remove 0:1 -o y.gguf", 2, "layer 0 would keep 3");
  refused("edit x.gguf --remove 0:0,0:1,0:2,1:0,1:1,1:2 -o y.gguf", 2, "a token chooses 2");
  refused("edit x.gguf --remove 0:1,1:1 -o x.gguf", 2, "exists");
  CHECK_FALSE(fs::exists(f / "y.gguf"));
}

}  // namespace moe::cli
