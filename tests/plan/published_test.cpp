// Every published model gives its published total, to the last parameter where that is known, and
// its active counts.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <set>

#include "lib/core/error.h"
#include "lib/plan/cost.h"
#include "lib/plan/published.h"

using namespace moe;
using namespace moe::plan;

namespace {

ParameterCount of(const std::string& name) {
  const PublishedModel* m = find_published(name);
  REQUIRE(m != nullptr);
  return parameters(describe(*m));
}

}  // namespace

TEST_CASE("every published model has its published number of parameters") {
  int exact = 0;
  for (const PublishedModel& m : published_models()) {
    CAPTURE(std::string(m.name));
    const ParameterCount p = parameters(describe(m));
    exact += m.total > 0;
    if (m.total > 0)
      CHECK(p.total == m.total);
    CHECK(p.a0 <= double(p.total));
    CHECK(p.a0 >= p.a1);
    CHECK(p.a1 >= p.a2);
    CHECK(p.a2 > 0);
  }
  CHECK(exact == int(published_models().size()) - 4);
  // Derived figures, known to four digits.
  CHECK(double(of("GShard-600B").total) == Approx(619.1e9).epsilon(5e-4));
  CHECK(double(of("MoE-LLaVA-StableLM-1.6B-4e").total) == Approx(2.890e9).epsilon(5e-4));
  CHECK(double(of("MoE-LLaVA-Qwen-1.8B-4e").total) == Approx(3.054e9).epsilon(5e-4));
  CHECK(double(of("MoE-LLaVA-Phi2-2.7B-4e").total) == Approx(5.297e9).epsilon(5e-4));
  // with the layer that predicts a further token
  CHECK(of("DeepSeek-V3").in_file == 684'489'845'504);
}

TEST_CASE("active parameters by the published counts") {
  struct Row {
    const char* name;
    double a0, a1;
  };
  const Row rows[] = {{"Mixtral-8x7B", 12.88, 12.75},
                      {"Mixtral-8x22B", 39.15, 38.96},
                      {"OLMoE-1B-7B", 1.28, 1.18},
                      {"Qwen1.5-MoE-A2.7B", 2.69, 2.38},
                      {"Qwen2-57B-A14B", 14.25, 13.70},
                      {"Qwen3-30B-A3B", 3.35, 3.04},
                      {"Qwen3-235B-A22B", 22.19, 21.57},
                      {"Intern-S1-Pro", 22.36, 21.73},
                      {"DeepSeekMoE-16B", 2.83, 2.62},
                      {"DeepSeek-V2-Lite", 2.66, 2.45},
                      {"DeepSeek-V2", 21.38, 20.85},
                      {"DeepSeek-V3", 37.55, 36.63},
                      {"Kimi-K2", 32.86, 31.69},
                      {"gpt-oss-20b", 4.19, 3.61},
                      {"gpt-oss-120b", 5.71, 5.13},
                      {"Phi-3.5-MoE", 6.64, 6.51},
                      {"DBRX", 36.47, 35.85},
                      {"Llama-4-Scout", 17.17, 16.14},
                      {"Llama-4-Maverick", 17.18, 16.15},
                      {"Nemotron-3-Nano", 3.58, 3.23},
                      {"GLM-4.7-Flash", 3.897, 3.580},
                      {"dots.llm1", 14.017, 13.394},
                      {"DeepSeek-V3.2", 38.404, 37.477},
                      {"GLM-5", 41.785, 40.833},
                      {"FlexOlmo-7x7B", 24.614, 24.203},
                      {"Solar-Open-100B", 12.055, 11.250},
                      {"Hy3-preview", 20.676, 20.181},
                      {"MiMo-V2-Flash", 15.446, 14.821},
                      {"Mistral-Small-4-119B", 6.633, 6.096},
                      {"Mellum2-12B-A2.5B", 2.439, 2.213},
                      {"Kolibri-1", 3.785, 3.458},
                      {"GLM-4.5-Air", 13.42, 12.80},
                      {"GLM-4.5", 33.63, 32.86},
                      {"ERNIE-4.5-21B-A3B", 3.35, 3.09},
                      {"Hunyuan-A13B", 12.75, 12.22},
                      {"MiniMax-Text-01", 48.40, 47.17},
                      {"MiniMax-M2", 11.03, 10.42},
                      {"Granite-3.0-1B-A400M", 0.43, 0.38},
                      {"Granite-3.0-3B-A800M", 0.88, 0.81},
                      {"Jamba-v0.1", 12.11, 11.84},
                      {"Jamba-1.5-Large", 94.15, 93.61}};
  for (const Row& r : rows) {
    CAPTURE(std::string(r.name));
    const ParameterCount p = of(r.name);
    CHECK(std::abs(p.a0 / 1e9 - r.a0) <= 0.0051);
    CHECK(std::abs(p.a1 / 1e9 - r.a1) <= 0.0051);
  }
  CHECK(of("MiniMax-Text-01").a2 / 1e9 == Approx(45.94).margin(0.0051));
  CHECK(of("GLaM-64B-64E").a0 / 1e9 == Approx(96.60).margin(0.0051));
  CHECK(of("NLLB-MoE-54B").a0 / 1e9 == Approx(3.75).margin(0.0051));
  CHECK(of("Switch-Base-8").a0 / 1e9 == Approx(0.22).margin(0.0051));
  CHECK(of("Switch-Large-128").a0 / 1e9 == Approx(0.74).margin(0.0051));
  CHECK(of("Switch-XXL-128").a0 / 1e9 == Approx(11.0).margin(0.051));
  CHECK(of("Switch-C-2048").a0 / 1e9 == Approx(1.73).margin(0.0051));
}

TEST_CASE("a published model is found under the names people write") {
  CHECK(find_published("mistralai/Mixtral-8x7B") == find_published("mixtral 8x7b"));
  CHECK(find_published("deepseek-v3") != nullptr);
  CHECK(find_published("Qwen3_30B_A3B") != nullptr);
  CHECK(find_published("Mixtral") == nullptr);
  CHECK(find_published("") == nullptr);
  std::map<std::string_view, int> seen;
  for (const PublishedModel& m : published_models()) {
    CHECK(++seen[m.name] == 1);
    CHECK(find_published(std::string(m.name)) == &m);
    const std::set<std::string_view> sources{"config", "class", "total", "paper"};
    CHECK(sources.contains(m.source));
    CHECK((m.active == "A0" || m.active == "A1" || m.active == "A2"));
    CHECK((m.total > 0) == (m.source != "paper"));
  }
}
