// FLOPs of a token against what others publish. NVIDIA publishes TFLOP/s a GPU and tokens/s a GPU;
// one over the other is its FLOPs a token, as far as both were rounded.
#include <catch2/catch.hpp>
#include <cmath>

#include "lib/plan/conventions.h"
#include "lib/plan/published.h"

using namespace moe;
using namespace moe::plan;

namespace {

Architecture model(const char* name) {
  return describe(*find_published(name));
}

}  // namespace

TEST_CASE("FLOPs of a token are those that NVIDIA publishes, each under its convention") {
  struct Row {
    const char* name;
    Count context;
    const char* by;
    double tflops, tokens;  // a second and GPU
  };
  // Megatron-Bridge performance summaries 25.09, 25.11 and 26.02; the last line of each model:
  // NousResearch/torchtitan #19
  const Row rows[] = {{"DeepSeek-V3", 4096, "training, causal", 961, 3848},
                      {"DeepSeek-V3", 4096, "training, causal", 1088, 4357},
                      {"DeepSeek-V3", 4096, "training, causal", 1003, 4018},
                      {"DeepSeek-V3", 4096, "training, causal, MTP", 1199, 4612},
                      {"DeepSeek-V3", 4096, "training, causal, MTP", 1028, 3955},
                      {"DeepSeek-V3", 4096, "training, causal, MTP", 776, 2983},
                      {"DeepSeek-V3", 4096, "training, causal, MTP", 338, 1297},
                      {"Qwen3-235B-A22B", 4096, "training, causal", 974, 6583},
                      {"Qwen3-235B-A22B", 4096, "training, causal", 907, 6131},
                      {"Qwen3-235B-A22B", 4096, "training, causal", 563, 3805},
                      {"Qwen3-30B-A3B", 4096, "training, causal", 699, 30376},
                      {"Qwen3-30B-A3B", 4096, "training, causal", 600, 26084},
                      {"Qwen3-30B-A3B", 4096, "training, causal", 341, 14796},
                      {"gpt-oss-120b", 4096, "training, causal, no windows", 527, 19412},
                      {"gpt-oss-120b", 4096, "training, causal, no windows", 428, 15784},
                      {"gpt-oss-120b", 8192, "training, causal, no windows", 565, 18347},
                      {"gpt-oss-120b", 8192, "training, causal, no windows", 488, 15876}};
  for (const Row& r : rows) {
    INFO(r.name << " at " << r.context << ", " << r.tflops << " TFLOP/s");
    const double published = r.tflops * 1e12 / r.tokens;
    CHECK(flops(model(r.name), r.context, convention(r.by)) == Approx(published).epsilon(0.006));
  }
}

TEST_CASE("conventions differ by what they say they count") {
  const Architecture v3 = model("DeepSeek-V3");
  const TokenFlops f = token_flops(v3, 4096);
  // 61 layers of 128 heads, 192 numbers of a key and 128 of a value
  CHECK(f.full == 61 * 2.0 * 4096 * 128 * 320);
  CHECK(f.causal == Approx(f.full * 4097 / 8192));
  CHECK(f.output == 2.0 * 129280 * 7168);
  CHECK(flops(v3, 4096, convention("training, full")) /
            flops(v3, 4096, convention("training, causal")) ==
        Approx(433.9 / 386.5).epsilon(1e-3));
  // one MoE layer, the matrix that joins two rows, the output matrix once more
  const double layer = 2.0 * (2 * 7168 * 7168 + 129280 * 7168.0) + f.causal / 61;
  CHECK(f.further > layer);
  CHECK(flops(v3, 4096, convention("training, causal, embedding")) -
            flops(v3, 4096, convention("training, causal")) ==
        Approx(3 * f.output));
}

TEST_CASE("a window is seen in full from its length on, and causal attention is its mean") {
  Architecture a = model("Mixtral-8x7B");
  for (LayerShape& l : a.layers)
    l.mixers[0].window = 2;
  const double pair = 4.0 * 32 * 128 * 32;  // a key of all layers
  // positions see 1, 2, 2, 2 keys
  CHECK(token_flops(a, 4).causal == Approx(pair * 7 / 4));
  CHECK(token_flops(a, 4).full == Approx(pair * 2));
  CHECK(flops(a, 4, convention("training, causal, no windows")) <
        flops(a, 4, convention("training, causal")));
}

TEST_CASE("an encoder sees its whole source, causal or not") {
  const Architecture bert = model("BERT-large");
  const TokenFlops f = token_flops(bert, 512);
  CHECK(f.causal == f.full);
}
