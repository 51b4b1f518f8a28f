// Nothing divided by nothing: a count of nothing is 0, a share, mean or information of nothing is
// NaN where its definition says nothing else, and a case of expected values takes a NaN only where
// it expects one.
#include <catch2/catch.hpp>
#include <cmath>

#include "analysis/golden/golden_metrics.h"
#include "tests/metric/golden_files.h"
#include "tests/metric/traces.h"
#include "tests/skip.h"

using namespace moe;

namespace {

const MetricValue& value_of(const std::vector<MetricValue>& all, const std::string& id) {
  for (const MetricValue& v : all) {
    if (v.id == id)
      return v;
  }
  FAIL(id << " is not computed");
  return all.front();
}

// The numbers of layer l.
std::vector<double> of_layer(const std::vector<MetricValue>& all, const std::string& id, Index l) {
  const MetricValue& v = value_of(all, id);
  const std::size_t each = v.values.size() / std::size_t(v.dims.at(0));
  const auto first = v.values.begin() + std::ptrdiff_t(std::size_t(l) * each);
  return {first, first + std::ptrdiff_t(each)};
}

bool all_nan(const std::vector<double>& values) {
  return std::ranges::all_of(values, [](double v) { return std::isnan(v); });
}
bool all_are(const std::vector<double>& values, double want) {
  return std::ranges::all_of(values, [&](double v) { return v == want; });
}

// 96 tokens of two domains out of three; nobody chose anything in the second layer.
MemoryTrace trace_with_nothing() {
  const Make m{.tokens = 96, .layers = 2, .logits = true};
  const MemoryTrace full = make_trace(m);
  TraceHeader header = full.header();
  header.domains.emplace_back("without tokens");
  std::vector<TraceSequence> sequences = full.sequences();
  std::vector<TraceStep> steps = full.steps();
  TraceRows rows = full.read(0, m.tokens, TraceFields{});
  for (int& e : rows.layer[1].expert.flat())
    e = -1;
  return {std::move(header), std::move(sequences), std::move(steps), std::move(rows)};
}

bool changed_by_python(const std::filesystem::path& path, const std::string& statements) {
  const std::string script = "import h5py, math\nwith h5py.File('" + path.string() +
                             "', 'r+') as f:\n  " + statements + "\n";
  return std::system(("/usr/bin/python3 -c \"" + script + "\" 2>/dev/null").c_str()) == 0;
}

}  // namespace

TEST_CASE("counts of nothing are 0, shares and means of nothing are no numbers") {
  const auto all = measure(trace_with_nothing(), metrics().names());
  for (const char* id : {"load_counts", "importance_sum", "cache_accesses", "cache_hits_lru",
                         "coactivation_counts", "coactivation_conditional", "lag_overlap"}) {
    INFO(id);
    CHECK(all_are(of_layer(all, id, 1), 0));
  }
  for (const char* id : {"load_fraction",
                         "load_cv",
                         "load_cv_batch",
                         "load_max_over_mean",
                         "load_entropy",
                         "load_entropy_norm",
                         "load_jain",
                         "load_gini",
                         "load_topn_coverage",
                         "tile_padding_waste",
                         "capacity_drop_rate",
                         "observed_drop_rate",
                         "importance_cv",
                         "ep_balancedness",
                         "cache_hit_rate_lru",
                         "a2a_dedup_factor",
                         "domain_expert_mi_bits",
                         "domain_expert_mi_norm",
                         "token_expert_mi_bits",
                         "token_uncertainty",
                         "position_expert_mi_bits",
                         "document_entropy_bits"}) {
    INFO(id);
    CHECK(all_nan(of_layer(all, id, 1)));
  }
  CHECK(of_layer(all, "load_dead_fraction", 1) == std::vector<double>{1});
  for (const char* id : {"crosslayer_mi_bits", "crosslayer_predictability", "crosslayer_base"}) {
    INFO(id);
    CHECK(all_nan(of_layer(all, id, 0)));
  }
  CHECK(all_are(of_layer(all, "crosslayer_transition", 0), 0));
}

TEST_CASE("a domain without tokens has no shares") {
  const auto all = measure(trace_with_nothing(), {"domains"});
  const std::vector<double> rate = of_layer(all, "domain_hit_rate", 0);  // (3,8)
  REQUIRE(rate.size() == 24);
  CHECK(std::ranges::none_of(std::span(rate).first(16), [](double v) { return std::isnan(v); }));
  CHECK(all_nan({rate.begin() + 16, rate.end()}));
  const std::vector<double> apart = of_layer(all, "domain_tv", 0);  // (3,3)
  CHECK(apart[0] == 0);
  CHECK(apart[1] > 0);
  CHECK((std::isnan(apart[2]) && std::isnan(apart[6]) && std::isnan(apart[8])));
  CHECK(std::isfinite(of_layer(all, "domain_expert_mi_bits", 0)[0]));
}

TEST_CASE("expected values take a NaN where one is expected, and options of their figures alone") {
  const auto shared = shared_golden("metrics") / "load_even.h5";
  if (!std::filesystem::exists(shared))
    return test::skip("no " + shared.string());
  const auto path = std::filesystem::temp_directory_path() / "moe-golden-nan.h5";
  std::filesystem::copy_file(shared, path, std::filesystem::copy_options::overwrite_existing);
  if (!changed_by_python(path, "f['expected/load_cv'][0] = math.nan"))
    return test::skip("no python3 with h5py");
  CHECK_FALSE(verify_golden_metrics(path).at(0).passed);

  // a layer without assignments, of which a figure is expected that is no number
  std::filesystem::copy_file(shared, path, std::filesystem::copy_options::overwrite_existing);
  REQUIRE(changed_by_python(path,
                            "f['trace/expert_ids'][:, 0] = -1; f['expected/load_cv'][0] = "
                            "math.nan; f.attrs['metric_ids'] = 'load_cv'"));
  const GoldenMetricResult empty = verify_golden_metrics(path).at(0);
  INFO(empty.where);
  CHECK(empty.passed);

  std::filesystem::copy_file(shared, path, std::filesystem::copy_options::overwrite_existing);
  REQUIRE(changed_by_python(path,
                            "f.attrs['metric_ids'] = 'load_cv'; f.attrs['param_num_nodes'] = "
                            "7; f.attrs['param_min_count'] = -3"));
  const GoldenMetricResult other = verify_golden_metrics(path).at(0);
  INFO(other.where);
  CHECK(other.passed);
  std::filesystem::remove(path);
}
