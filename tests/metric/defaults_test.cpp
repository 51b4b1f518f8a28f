// Defaults and limits that docs/metrics.md states are those of the program, and the whole list of
// what each metric does where nothing is asked for.
#include <catch2/catch.hpp>
#include <map>

#include "analysis/metric/agreement.h"
#include "analysis/metric/bootstrap.h"
#include "analysis/metric/definitions.h"
#include "analysis/metric/layout.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

std::string resolved(const std::string& metric, const MemoryTrace& trace) {
  Spec spec(metric);
  metrics().at(metric).make(spec, trace, {});
  spec.done();
  return spec.resolved();
}

// The formula of a definition holds these words.
bool states(const char* id, const std::string& words) {
  const Definition* d = find_definition(id);
  return d && d->formula.find(words) != std::string_view::npos;
}

bool page_says(const std::string& words) {
  std::string page = definitions_page();
  std::replace(page.begin(), page.end(), '\n', ' ');
  return page.find(words) != std::string::npos;
}

}  // namespace

TEST_CASE("what a metric does where nothing is asked for") {
  const MemoryTrace trace = make_trace({.tokens = 64, .experts = 32, .k = 4});
  const std::map<std::string, std::string> defaults{
      {"load", "load:topn={1,2,4},tile_sizes={16,128}"},
      {"drops", "drops:capacity_factors={1,1.25,2},position_bucket=64"},
      {"drift", "drift:blocks=8,ids=1024"},
      {"router", "router"},
      {"loss", "loss:top=10"},
      {"domains", "domains"},
      {"modality", "modality"},
      {"planted", "planted"},
      {"context", "context:position_bucket=16"},
      {"vocabulary", "vocabulary:min_count=10,top=8,alone=0.9"},
      {"repeats", "repeats:lags={1,2,4,8},batch_sizes={8,64}"},
      {"crosslayer", "crosslayer:top=5"},
      {"paths", "paths:top=20"},
      {"coactivation", "coactivation:top=10"},
      {"redundancy", "redundancy:threshold=0.8"},
      {"pruning", "pruning"},
      {"logit_similarity", "logit_similarity:tokens=65536"},
      {"ranks", "ranks:ep_size=8,num_nodes=2"},
      {"placement", "placement:gpus=8,extra=8,nodes=1,groups=1"},
      {"cache", "cache:cache_sizes={4,8,16},tokens=65536"},
      {"prefetch", "prefetch:prefetch_sizes={1,2,4,8}"},
      {"place", "place:gpus=8,nodes=1,extra=0,groups=1,policy=eplb"},
      {"offload", "offload:cache=8,ahead=4,prefetch_sizes={4,8},tokens=65536,expert_bytes=0"}};
  for (const std::string& name : metrics().names()) {
    INFO(name);
    REQUIRE(defaults.contains(name));
    CHECK(resolved(name, trace) == defaults.at(name));
  }
}

TEST_CASE("docs/metrics.md states the defaults and limits of the program") {
  const MemoryTrace trace = make_trace({.tokens = 64});
  const auto has = [&](const char* metric, const std::string& option) {
    return resolved(metric, trace).find(option) != std::string::npos;
  };
  CHECK(states("router_logit_similarity", "(65536; 0 = all)"));
  CHECK(has("logit_similarity", "tokens=65536"));
  CHECK(states("cache_accesses", "(65536; 0 = all)"));
  CHECK(has("cache", "tokens=65536"));
  CHECK(states("load_exclusive_coverage", "`alone` (0.9)"));
  CHECK(has("vocabulary", "alone=0.9"));
  CHECK(page_says("at least " + std::to_string(Bootstrap::least_sequences) + " sequences"));
  CHECK(page_says("capacity_drop_rate (factors 1, 1.25, 2)"));
  CHECK(list_text(usual_capacity_factors) == "1,1.25,2");
  std::string bins;
  for (const double m : AgreeOptions{}.margins)
    bins += (bins.empty() ? "" : ", ") + number_text(m);
  CHECK(states("flip_rate_by_margin", "below 0.001, then from " + bins + " on"));
}

TEST_CASE("the page of definitions takes its thresholds from the lights") {
  for (const Threshold& t : thresholds({})) {
    INFO(t.id);
    CHECK((page_says(concat(t.yellow, ", ", t.red, ")")) ||
           page_says(concat("yellow from ", t.yellow, ", red from ", t.red, ")"))));
    CHECK(page_says(concat(t.id, " (")));
  }
  CHECK(threshold_of("load_cv", {}).yellow == 0.25);
  CHECK(threshold_of("load_cv", thresholds({"load_cv=0.5,1"})).red == 1);
}
