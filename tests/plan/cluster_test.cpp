// Clusters, layouts and the terms of a step: what is read, what is refused, sums worked out by
// hand.
#include <catch2/catch.hpp>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/plan/conventions.h"
#include "lib/plan/published.h"
#include "lib/plan/search.h"

using namespace moe;
using namespace moe::plan;

namespace {

Architecture model(const char* name) {
  return describe(*find_published(name));
}
double seconds(const StepParts& p, Term t) {
  return p.seconds[std::size_t(t)];
}
std::string refusal(const char* layout, const char* cluster, const Architecture& a) {
  try {
    resolved(layout_of(layout), cluster_of(cluster), a);
  } catch (const Error& e) {
    CHECK(e.code() == Exit::usage);
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("clusters and layouts are read as people write them") {
  const Cluster c = cluster_of("h100:nodes=256,gpus=4,link=400GB/s,net=25GB/s");
  CHECK(c.devices() == 1024);
  CHECK(c.device.link == 400e9);
  CHECK(c.device.net == 25e9);
  CHECK(c.device.flops16 == 989.4e12);
  CHECK(cluster_of("gb200").gpus == 72);
  CHECK_THROWS_AS(cluster_of("rtx4090:nodes=2"), Error);  // no network
  CHECK_THROWS_AS(cluster_of("rtx4090:gpus=2"), Error);   // no links
  CHECK_THROWS_AS(cluster_of("h100:racks=2"), Error);
  const Architecture v3 = model("DeepSeek-V3");
  const Layout l = resolved(layout_of("ep=64,pp=16,gbs=15360"), cluster_of("h800:nodes=256"), v3);
  CHECK(l.dp == 128);
  CHECK(l.micro_batches() == 120);
  CHECK(text_of(l) == "ep=64,pp=16,tp=1,dp=128,gbs=15360");
  CHECK(layout_of(text_of(l)).gbs == 15360);
  CHECK(layout_of("ep=2,dispatch=flat").dispatch == Dispatch::flat);
}

TEST_CASE("every key of a layout is listed with the default that it has") {
  const std::string usual = text_of(Layout{});
  for (const LayoutKey& k : layout_keys()) {
    CAPTURE(std::string(k.key));
    CHECK(text_of(layout_of(concat(k.key, "=", k.initial))) == usual);
    CHECK_FALSE(k.about.empty());
  }
  const std::string other =
      "ep=2,pp=2,tp=2,dp=2,vp=2,zero=3,limit_nodes=2,mbs=2,gbs=2,sequence=2,bits=4,recompute=1,"
      "graphs=1,mtp=1,dispatch=flat,overlap=0.5";
  CHECK(split(text_of(layout_of(other)), ',').size() == layout_keys().size());
}

TEST_CASE("a layout that does not divide is refused in a sentence with its figures") {
  const Architecture v3 = model("DeepSeek-V3");
  const Architecture dense = model("Llama-2-70B");
  CHECK(refusal("ep=48", "h100:nodes=6", v3) == "--layout: ep=48 does not divide its 256 experts");
  CHECK(refusal("pp=3", "h100:nodes=2", v3) ==
        "--layout: tp=1 x pp=3 does not make the 16 devices of the cluster");
  CHECK(refusal("ep=32", "h100:nodes=2", v3) ==
        "--layout: ep=32 does not divide the 16 ranks of a stage");
  CHECK(refusal("gbs=17", "h100:nodes=2", v3).find("gbs=17 is not a whole number") !=
        std::string::npos);
  CHECK(refusal("ep=2", "h100", dense).find("is a dense model") != std::string::npos);
  CHECK(refusal("pp=64", "h100:nodes=8", v3).find("more than its 61 layers") != std::string::npos);
  for (const char* bad : {"zero=2", "bits=7", "overlap=2", "dispatch=slow", "speed=3", "ep=0"})
    CHECK_THROWS_AS(layout_of(bad), Error);
}

TEST_CASE("the terms of a step are work over full rates") {
  const Architecture mix = model("Mixtral-8x7B");
  const Cluster one = cluster_of("h100:gpus=1");
  const Layout l = resolved(layout_of("gbs=4,bits=16"), one, mix);
  const StepParts p = step_parts(mix, one, l);
  const TokenFlops f = token_flops(mix, 4096);
  CHECK(p.tokens == 4 * 4096);
  CHECK(p.bubble == 0);
  CHECK(seconds(p, Term::wide) ==
        Approx(p.tokens * 3 * (f.products + f.output + f.causal) / 989.4e12));
  CHECK(seconds(p, Term::narrow) == 0);
  CHECK(seconds(p, Term::launch) == 4 * 32);
  CHECK(seconds(p, Term::net) == 0);
  // eight bits: products alone are faster
  const StepParts narrow = step_parts(mix, one, resolved(layout_of("gbs=4"), one, mix));
  CHECK(seconds(narrow, Term::narrow) ==
        Approx(p.tokens * 3 * (f.products + f.output) / 1978.9e12));
  // computing activations again is a fourth forward
  const StepParts again =
      step_parts(mix, one, resolved(layout_of("gbs=4,bits=16,recompute=1"), one, mix));
  CHECK(seconds(again, Term::wide) == Approx(seconds(p, Term::wide) * 4 / 3));
}

TEST_CASE("exchange, pipeline and gradients cost what they send") {
  const Architecture mix = model("Mixtral-8x7B");
  const Cluster node = cluster_of("h100");
  const StepParts ep = step_parts(mix, node, resolved(layout_of("ep=8,gbs=8"), node, mix));
  // two choices of eight devices, seven eighths of them elsewhere; four exchanges of 32 layers
  const double rows = 2 * 7.0 / 8;
  CHECK(seconds(ep, Term::link) == Approx(4 * 32 * 4096 * rows * 4096 * 2 / 450e9));
  const Layout half = resolved(layout_of("ep=8,gbs=8,overlap=0.5"), node, mix);
  CHECK(seconds(step_parts(mix, node, half), Term::link) == Approx(seconds(ep, Term::link) / 2));
  const StepParts pp = step_parts(mix, node, resolved(layout_of("pp=8,gbs=8"), node, mix));
  CHECK(pp.bubble == Approx(7.0 / 15));
  CHECK(pp.slowest >= 1);
  // gradients of four bytes and weights of two, seven eighths of both over the links
  const StepParts dp = step_parts(mix, node, resolved(layout_of("gbs=8"), node, mix));
  CHECK(seconds(dp, Term::gradients) == Approx(6 * 46.70e9 * 7 / 8 / 450e9).epsilon(1e-3));
  const TrainingMemory m = training_memory(mix, node, resolved(layout_of("ep=8"), node, mix));
  const TrainingMemory whole = training_memory(mix, node, resolved(layout_of("zero=0"), node, mix));
  CHECK(whole.weights == Approx(2 * 46.70e9).epsilon(1e-3));
  CHECK(whole.optimizer == Approx(12 * 46.70e9).epsilon(1e-3));
  CHECK(m.all() < whole.all() / 4);
}

TEST_CASE("a search leaves what the layout says") {
  const Architecture a = model("DeepSeek-V3");
  const Cluster c = cluster_of("h800:nodes=64");
  const auto best = [&](const char* layout) {
    return search_layouts(a, c, layout_of(layout), {}, calibration().factors, 0.9, 5).best;
  };
  for (const Candidate& found : best("ep=16,mbs=2,recompute=1,gbs=8192")) {
    CHECK(found.layout.ep == 16);
    CHECK(found.layout.mbs == 2);
    CHECK(found.layout.recompute);
  }
  CHECK(!best("ep=16,mbs=2,recompute=1,gbs=8192").empty());
  CHECK(best("ep=3,gbs=8192").empty());
}

TEST_CASE("a search finds no layout that is slower than one it tried, and only what fits") {
  const Architecture mix = model("Mixtral-8x7B");
  const Cluster c = cluster_of("h100:nodes=4");
  const Terms& f = calibration().factors;
  const SearchResult found = search_layouts(mix, c, {}, {}, f, 0.9, 5);
  REQUIRE(found.best.size() == 5);
  CHECK(found.fitting < found.tried);
  for (const Candidate& k : found.best) {
    CHECK(k.tokens <= found.best.front().tokens);
    CHECK(k.memory.all() <= 0.9 * 80e9);
  }
  const Layout asked = resolved(layout_of("ep=8,gbs=512"), c, mix);
  const Candidate other = candidate_of(mix, c, asked, {}, f);
  if (other.memory.all() <= 0.9 * 80e9)
    CHECK(other.tokens <= found.best.front().tokens);
  double sum = 0;
  for (const Gain& g : sensitivity(found.best.front(), f)) {
    CHECK(g.percent >= 0);
    sum += g.percent;
  }
  // all a tenth faster: all but what no rate moves
  CHECK(sum < 10.5);
  CHECK(sum > 8);
}

TEST_CASE("uneven routing costs the busiest rank, and balancing takes some of it back") {
  const Architecture mix = model("Mixtral-8x7B");
  const Cluster c = cluster_of("h100");
  const Layout l = resolved(layout_of("ep=8"), c, mix);
  const ChoiceLaw zipf = choice_law("zipf:s=1", 8, 2);
  const StepParts even = step_parts(mix, c, l, {.law = choice_law("even", 8, 2)});
  const StepParts uneven = step_parts(mix, c, l, {.law = zipf});
  CHECK(even.imbalance > 1);  // chance alone
  CHECK(even.imbalance < 1.1);
  CHECK(uneven.imbalance > 1.5);
  CHECK(seconds(uneven, Term::narrow) > seconds(even, Term::narrow));
  CHECK(balanced_imbalance(zipf, 8, 8) < uneven.imbalance);
  CHECK(balanced_imbalance(zipf, 8, 8) >= 1);
  const StepParts slow = step_parts(mix, c, l, {.efficiency = [](double) {
                                      return 0.5;
                                    }});
  const StepParts full = step_parts(mix, c, l);
  CHECK(seconds(slow, Term::narrow) == Approx(2 * seconds(full, Term::narrow)));
}
