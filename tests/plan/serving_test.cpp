// Serving on one kind of device: figures worked out by hand, and what must hold of any bound.
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>

#include "lib/checkpoint/safetensors.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/gguf.h"
#include "lib/plan/conventions.h"
#include "lib/plan/published.h"
#include "lib/plan/serving.h"
#include "tests/files/scratch.h"
#include "tests/skip.h"

using namespace moe;
using namespace moe::plan;

namespace {

Architecture model(const char* name) {
  return describe(*find_published(name));
}
Serving serving(const Architecture& a, const char* device, const char* weights, Count context) {
  return {.model = a,
          .device = device_of(device),
          .weights = storage_of(weights),
          .law = choice_law("even", a.moe()->experts, a.moe()->k),
          .context = context};
}

}  // namespace

TEST_CASE("devices are named, changed and made of figures") {
  CHECK(device_of("h100").bandwidth == 3.35e12);
  const Device d = device_of("h100:memory=94GB,net=100GB/s");
  CHECK(d.memory == 94e9);
  CHECK(d.net == 100e9);
  CHECK(d.flops16 == 989.4e12);
  const Device own = device_of("memory=80GB,bandwidth=3.35TB/s,flops=989T");
  CHECK(own.memory == 80e9);
  CHECK(own.flops16 == 989e12);
  CHECK(own.flops(8) == 989e12);  // none of 8 bits: the next wider
  CHECK(device_of("b200").flops(4) == 9000e12);
  CHECK(device_of("cpu:bandwidth=80GB/s").flops16 == 0);
  CHECK_THROWS_AS(device_of("h10"), Error);
  CHECK_THROWS_AS(device_of("cpu"), Error);  // no bandwidth
  CHECK_THROWS_AS(device_of("h100:speed=3"), Error);
  CHECK_THROWS_AS(device_of("h100:memory=much"), Error);
  for (const Device& known : devices()) {
    INFO(known.name);
    CHECK(!known.source.empty());
    CHECK(known.flops(4) >= known.flops(8));
    CHECK(known.flops(8) >= known.flops16);
    CHECK((known.node == 1) == (known.link == 0 && known.net == 0 && known.name != "l40s"));
  }
}

TEST_CASE("weights lie in the bytes of the published file") {
  const auto own = [](const char* name) {
    return own_storage(parse_json(find_published(name)->config, name), name);
  };
  CHECK(own("DeepSeek-V3").name == "fp8");
  CHECK(own("gpt-oss-120b").name == "mxfp4");
  CHECK(own("Mixtral-8x7B").name == "bf16");
  const Json gptq = parse_json(
      R"({"quantization_config":{"quant_method":"gptq","bits":4,"group_size":128}})", "c");
  // 4 bits, 16 bits of scale and 4 of zero point for 128
  CHECK(own_storage(gptq, "c").bytes({ModelPart::experts, 2, 256}) == 256 + 4 * 2.5);
  CHECK(own_storage(gptq, "c").bytes({ModelPart::router, 2, 256}) == 1024);
  CHECK(own_storage(parse_json(R"({"torch_dtype":"float32"})", "c"), "c").name == "f32");
  const Json odd = parse_json(R"({"quantization_config":{"quant_method":"magic"}})", "c");
  CHECK_THROWS_AS(own_storage(odd, "c"), Error);
}

TEST_CASE("formats of GGUF are blocks, with llama.cpp's fall back where a row has no whole ones") {
  const Storage s = storage_of("q4_k");
  CHECK(s.bytes({ModelPart::experts, 3, 512}) == 3 * 2 * 144);
  // 2880 numbers are no blocks of 256: Q5_0, 22 bytes for 32
  CHECK(s.bytes({ModelPart::experts, 1000, 2880}) == 1000.0 * 90 * 22);
  CHECK(s.bytes({ModelPart::router, 8, 512}) == 4 * 8 * 512);
  CHECK(storage_of("Q4_K").name == "q4_k");
  CHECK_THROWS_AS(storage_of("q4_z"), Error);
  // Qwen3-30B-A3B in 4.5 bits: 30.5e9 x 0.5625 and the routers in f32
  CHECK(s.all(model("Qwen3-30B-A3B")) / 1e9 == Approx(17.2).epsilon(0.005));
}

TEST_CASE("distinct experts of a batch are those that chance leaves") {
  const ChoiceLaw even = choice_law("even", 64, 8);
  CHECK(even.distinct(1) == Approx(8));
  CHECK(even.distinct(2) == Approx(64 * (1 - std::pow(7.0 / 8, 2))));
  CHECK(even.distinct(1e6) == Approx(64));
  CHECK(even.hits_most_used(16) == Approx(0.25));
  CHECK(even.hits_lru(16) == Approx(0.25).epsilon(0.02));
  CHECK(even.hits_lru(64) == 1);
  const ChoiceLaw zipf = choice_law("zipf:s=1", 64, 8);
  double sum = 0;
  for (const double p : zipf.layer[0])
    sum += p;
  CHECK(sum == Approx(8));
  CHECK(zipf.distinct(16) < even.distinct(16));
  CHECK(zipf.hits_most_used(16) > zipf.hits_lru(16));
  CHECK(zipf.hits_lru(16) > even.hits_lru(16));
  CHECK(zipf.imbalance(8, 1e9) > 2);
  CHECK(even.imbalance(8, 1e12) == Approx(1).epsilon(1e-3));
  CHECK(even.imbalance(1, 10) == 1);
  CHECK(choice_law("zipf", 4, 4).distinct(1) == Approx(4));  // all are chosen
  CHECK_THROWS_AS(choice_law("uneven", 4, 2), Error);
}

TEST_CASE("a decoding pass reads its weights, its experts and its caches once") {
  const Architecture mix = model("Mixtral-8x7B");
  const Serving s = serving(mix, "memory=1000GB,bandwidth=1TB/s,flops=1T", "bf16", 1000);
  const MemoryParts m = memory_parts(s);
  CHECK(m.sequence == 32.0 * 2 * 8 * 128 * 1000 * 2);
  const double embedding = 2.0 * 32000 * 4096;
  const PassBound one = decode_bound(s, {}, 1);
  CHECK(one.distinct == Approx(2));
  // of the input embedding a row
  const double read = m.others - embedding + 2.0 * 4096 + m.experts * 2 / 8 + m.sequence;
  CHECK(one.bytes == Approx(read));
  CHECK(one.memory_s == Approx(read / 1e12));
  const TokenFlops f = token_flops(mix, 1000);
  CHECK(one.flops == Approx(f.products + f.output + f.full));
  CHECK(one.compute_s == Approx(one.flops / 1e12));
  CHECK(one.tokens_per_s() == Approx(1 / std::max(one.memory_s, one.compute_s)));
  CHECK(decode_bound(s, {4}, 1).memory_s == Approx(one.memory_s / 4).epsilon(1e-3));
  // experts spread, everything else on each device
  const double other = read - m.experts * 2 / 8;
  CHECK(decode_bound(s, {4, Cut::expert}, 1).bytes == Approx(other + m.experts * 2 / 8 / 4));
  // a batch of many touches all experts
  CHECK(decode_bound(s, {}, 1000).distinct == Approx(8));
  const PassBound prompt = prefill_bound(s, {}, 1000);
  CHECK(prompt.flops ==
        Approx(1000 * f.products + f.output + 1000 * token_flops(mix, 1000).causal));
}

TEST_CASE("compute takes over from memory at the batch where both take as long") {
  const Architecture mix = model("Mixtral-8x7B");
  const Serving s = serving(mix, "h100", "bf16", 16);
  const Count at = crossover(s, {2});
  REQUIRE(at > 1);
  CHECK(!decode_bound(s, {2}, at - 1).by_compute());
  CHECK(decode_bound(s, {2}, at).by_compute());
  // one weight of an expert is read for B k / E tokens: about E / k times the ridge of the device
  CHECK(double(at) == Approx(989.4e12 / 3.35e12 * 4).epsilon(0.2));
  // a long cache keeps decoding bound by memory
  CHECK(crossover(serving(mix, "h100", "bf16", 1'000'000), {2}) == 0);
  CHECK(crossover(serving(mix, "cpu:bandwidth=80GB/s", "bf16", 16), {}) == 0);
}

TEST_CASE("a roofline says what each kind of product can reach") {
  const Architecture mix = model("Mixtral-8x7B");
  const Serving s = serving(mix, "h100", "bf16", 4096);
  const std::vector<RooflinePoint> one = roofline(s, 1);
  double flops = 0;
  for (const RooflinePoint& p : one) {
    INFO(p.part);
    flops += p.flops;
    CHECK(p.attainable <= p.ceiling);
    // bf16 weights of one token: a multiply-add for two bytes
    if (p.part != "scores and values")
      CHECK(p.intensity() == Approx(1));
  }
  const PassBound pass = decode_bound(s, {}, 1);
  CHECK(flops == Approx(pass.flops));
  // 4 query heads to a key head, two FLOPs for each of keys and values' two bytes
  CHECK(one.back().intensity() == Approx(4));
  CHECK(roofline(s, 4096).front().attainable == 989.4e12);
}

TEST_CASE("cards are as many as weights, activations and one sequence need") {
  const Architecture mix = model("Mixtral-8x7B");
  const Serving s = serving(mix, "h100", "bf16", 4096);
  const std::vector<Fit> all = fits(s);
  REQUIRE(!all.empty());
  CHECK(all.front().spread.devices == 2);  // 93.4 GB of weights
  CHECK(fit(s, {1, Cut::tensor}).sequences < 0);
  const Fit two = fit(s, {2, Cut::tensor});
  const double room = 80e9 * 0.9 - two.weights - memory_parts(s).activations;
  CHECK(two.sequences == Count(std::floor(room / (memory_parts(s).sequence / 2))));
  // int8 fits one
  CHECK(fits(serving(mix, "h100", "int8", 4096)).front().spread.devices == 1);
  // a latent cache is not cut by heads: devices that serve sequences of their own hold more
  const Architecture v3 = model("DeepSeek-V3");
  const Serving deep = serving(v3, "h200", "fp8", 32768);
  CHECK(fit(deep, {16, Cut::expert}).sequences > fit(deep, {16, Cut::tensor}).sequences);
  CHECK(can_cut(v3, {16, Cut::expert}));
  CHECK(!can_cut(v3, {24, Cut::expert}));
  CHECK(fits(serving(v3, "rtx4090:memory=1KB", "fp8", 32768)).empty());
}

TEST_CASE("experts elsewhere cost what is fetched") {
  const Architecture q = model("Qwen3-30B-A3B");
  Serving s = serving(q, "rtx4090", "bf16", 4096);
  const double expert = 3.0 * 2048 * 768 * 2;
  CHECK(s.weights.expert(q) == expert);
  const OffloadBound b = offload_bound(s, {.bandwidth = 25e9, .held = 32}, 0.25);
  CHECK(b.fetched == Approx(0.75 * 8 * 48 * expert));
  CHECK(b.fetch_s == Approx(b.fetched / 25e9));
  CHECK(b.in_series == Approx(1 / (b.fetch_s + b.device_s)));
  CHECK(b.overlapped == Approx(1 / b.fetch_s));
  CHECK(b.in_series < b.overlapped);
  CHECK(offload_bound(s, {.bandwidth = 25e9, .held = 128}, 1).fetch_s == 0);
  const Count held = most_held(s, 1);
  CHECK(held > 30);
  CHECK(held < 60);
  s.weights = storage_of("q4_k");
  CHECK(most_held(s, 1) == 128);
}

TEST_CASE("a GGUF file's weights take the bytes of its tensors") {
  const std::filesystem::path file = test::shared("golden/gguf/llama_moe_q8_0/model.gguf");
  if (!std::filesystem::exists(file))
    return test::skip("no " + file.string());
  const Architecture a = describe_path(file.string());
  const Storage s = own_storage_of_path(file.string());
  double bytes = 0;
  const GgufFile stored(file);
  for (const GgufTensor& t : stored.tensors())
    bytes += double(t.bytes);
  // parts are counted by the file's own mean of them
  CHECK(s.all(a) == Approx(bytes).epsilon(0.02));
  CHECK(s.name.find("Q8_0") != std::string::npos);
}

TEST_CASE("a folder with experts in few bits takes the bytes of its tensors") {
  const test::Scratch folder;
  const std::filesystem::path path = folder / "q";
  std::filesystem::create_directory(path);
  // a layer of two experts in int8 with a scale a row, all else in f32
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& name, DType type, const Dims& dims) {
    tensors.emplace_back(name, Tensor(type, dims));
  };
  const std::string layer = "model.layers.0.";
  for (const char* part : {"q_proj", "k_proj", "v_proj", "o_proj"})
    add(concat(layer, "self_attn.", part, ".weight"), DType::f32, {64, 64});
  for (const int e : {0, 1}) {
    for (const char* part : {"w1", "w2", "w3"}) {
      const std::string name = concat(layer, "block_sparse_moe.experts.", e, ".", part, ".weight");
      add(name, DType::i8, {64, 64});
      add(name + "_scale", DType::f32, {64, 1});
    }
  }
  add(layer + "block_sparse_moe.gate.weight", DType::f32, {2, 64});
  add("model.embed_tokens.weight", DType::f32, {32, 64});
  add("lm_head.weight", DType::f32, {32, 64});
  write_file(path / "config.json",
             R"({"torch_dtype":"float32","quantization_config":{"quant_method":)"
             R"("compressed-tensors","config_groups":{"group_0":{"weights":{"num_bits":8}}}}})");
  const auto bytes = [&](const ModelPart part) {
    return own_storage_of_path(path.string()).bytes({part, 64, 64});
  };
  CHECK(bytes(ModelPart::attention) == 64 * 64 + 64 * 3);  // there are no tensors yet
  write_safetensors(path / "model.safetensors", tensors);
  CHECK(bytes(ModelPart::experts) == Approx(64 * 64 + 64 * 4));
  CHECK(bytes(ModelPart::attention) == 4 * 64 * 64);
  CHECK(bytes(ModelPart::router) == 4 * 64 * 64);
  CHECK(bytes(ModelPart::embedding) == 4 * 64 * 64);
  CHECK(own_storage_of_path(path.string()).bits == 8);
}
