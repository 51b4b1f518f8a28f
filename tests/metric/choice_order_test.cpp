// What a report says of first choices where a trace does not say which choice came first.
#include <catch2/catch.hpp>

#include "analysis/compare/compare.h"
#include "analysis/metric/agreement.h"
#include "analysis/metric/choice_order.h"
#include "analysis/metric/definitions.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

// The same routing, with the choices of every token listed by id where `sorted`.
MemoryTrace listed(const Make& m, const char* order, bool sorted) {
  const MemoryTrace from = make_trace(m);
  TraceHeader header = from.header();
  header.order = order;
  TraceRows rows = from.read(0, std::uint64_t(m.tokens), TraceFields{});
  for (LayerRows& layer : rows.layer) {
    for (Index t = 0; sorted && t < layer.expert.rows(); ++t)
      std::ranges::sort(layer.expert.row(t));
  }
  return {std::move(header), from.sequences(), from.steps(), std::move(rows)};
}

// Random routing has no preference; where it is listed by id, low ids come first.
const Make random_routing{.tokens = 8192, .training = true, .extras = false};

bool about_first_choices(const MetricValue& v) {
  const Definition* d = find_definition(v.id);
  REQUIRE(d);
  return d->formula.find("first choice") != std::string_view::npos;
}

int numbers(const MetricValue& v) {
  return int(std::ranges::count_if(v.values, [](double x) { return !std::isnan(x); }));
}

bool same(const MetricValue& a, const MetricValue& b) {
  return std::ranges::equal(a.values, b.values, [](double x, double y) {
    return x == y || (std::isnan(x) && std::isnan(y));
  });
}

}  // namespace

TEST_CASE("whether a trace's first choices are its routers'") {
  Make one = random_routing;
  one.k = 1;
  CHECK(choice_order(listed(random_routing, "key_desc", true)) == ChoiceOrder::ranked);
  CHECK(choice_order(listed(random_routing, "weight_desc", false)) == ChoiceOrder::ranked);
  CHECK(choice_order(listed(one, "unknown", false)) == ChoiceOrder::ranked);
  CHECK(choice_order(listed(random_routing, "unknown", false)) == ChoiceOrder::listed);
  CHECK(choice_order(listed(random_routing, "unknown", true)) == ChoiceOrder::by_id);
  CHECK(choice_order(listed(random_routing, "id_asc", true)) == ChoiceOrder::by_id);
  Make few = random_routing;
  few.tokens = 20;
  CHECK(choice_order(listed(few, "unknown", true)) == ChoiceOrder::listed);
}

TEST_CASE("no figure of first choices is given where choices are listed by id") {
  AnalyzeOptions o;
  for (int id = 0; id < 64; ++id)
    o.planted_labels.push_back(id % 4);
  const auto ranked = measure(listed(random_routing, "key_desc", false), metrics().names(), o);
  const auto mistaken = measure(listed(random_routing, "key_desc", true), metrics().names(), o);
  const auto by_id = measure(listed(random_routing, "id_asc", true), metrics().names(), o);
  REQUIRE(ranked.size() == by_id.size());
  int left_out = 0;
  for (std::size_t i = 0; i < ranked.size(); ++i) {
    CAPTURE(ranked[i].id);
    if (ranked[i].id.starts_with("cache_") || ranked[i].id.starts_with("offload_"))
      continue;  // requests of one token come in some order, and any is one
    REQUIRE(by_id[i].id == ranked[i].id);
    if (about_first_choices(ranked[i]) || !same(ranked[i], mistaken[i])) {
      CHECK(numbers(ranked[i]) > 0);
      CHECK(numbers(by_id[i]) == 0);
      ++left_out;
    } else {
      CHECK(same(by_id[i], ranked[i]));
    }
  }
  CHECK(left_out >= 8);
}

TEST_CASE("random routing that is listed by id shows no preference") {
  const Report r = analyze(listed(random_routing, "unknown", true));
  CHECK(std::ranges::count(r.warnings, remark_on(ChoiceOrder::by_id)) == 1);
  for (const Finding& f : r.findings) {
    CAPTURE(f.text);
    CHECK(f.text.find("first") == f.text.npos);
    CHECK(f.text.find("to itself") == f.text.npos);
    CHECK(f.text.find("Neighbouring tokens share") == f.text.npos);
    CHECK(f.text.find("nan") == f.text.npos);
  }
  const Report other = analyze(listed(random_routing, "unknown", false));
  CHECK(std::ranges::count(other.warnings, remark_on(ChoiceOrder::listed)) == 1);
}

TEST_CASE("two traces listed by id are compared as sets, without first choices") {
  const MemoryTrace a = listed(random_routing, "id_asc", true);
  const MemoryTrace b = listed(random_routing, "key_desc", false);
  const Report r = compare_against({"a", &a, ""}, {"b", &b, ""}, {}, Experts::by_id);
  CHECK(std::ranges::count(r.warnings, remark_on(ChoiceOrder::by_id)) == 1);
  for (const Finding& f : r.findings) {
    CAPTURE(f.text);
    CHECK(f.text.find("first") == f.text.npos);
    CHECK(f.text.find("mutual information") == f.text.npos);
  }
  int sets = 0;
  for (const MetricValue& v : agree(a, b).values()) {
    CAPTURE(v.id);
    const bool first = v.id == "router_saturation_top1" || v.id == "router_saturation_by_k";
    CHECK((numbers(v) == 0) == first);
    sets += !first;
  }
  CHECK(sets >= 4);
}
