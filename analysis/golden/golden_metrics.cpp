#include "analysis/golden/golden_metrics.h"

#include <cmath>
#include <map>
#include <set>

#include "analysis/golden/golden_trace.h"
#include "analysis/metric/agreement.h"
#include "analysis/metric/chance.h"
#include "analysis/metric/definitions.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/serving/eplb.h"

namespace moe {
namespace {

constexpr double tight = 1e-10, loose = 1e-5;

// Compares one expectation at a time and keeps the worst.
class Score {
 public:
  explicit Score(GoldenMetricResult& r) : r_(r) {}

  void compare(const GoldenFile& f, const std::string& id, const std::vector<double>& got,
               bool floats) {
    const auto expected = f.reals("expected/" + id);
    ++r_.ids;
    if (got.size() != expected.values.size()) {
      return fail(
          concat(id, ": ", got.size(), " values where ", expected.values.size(), " are expected"));
    }
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (same(got[i], expected.values[i]))
        continue;
      const double size = std::max(1.0, std::abs(expected.values[i]));
      const double error = std::abs(got[i] - expected.values[i]) / size;
      double& worst = floats ? r_.float_error : r_.error;
      if (error <= worst)
        continue;  // a NaN goes on and fails
      worst = error;
      if (r_.passed)
        r_.where = concat(id, "[", i, "]");
      if (!(error <= (floats ? loose : tight)))
        fail(concat(id, "[", i, "] is ", got[i], " where ", expected.values[i], " is expected"));
    }
  }
  void fail(const std::string& why) {
    if (r_.passed)
      r_.where = why;
    r_.passed = false;
  }

 private:
  // equal, or both no number: a NaN stands where one is expected and nowhere else
  static bool same(double got, double expected) {
    return got == expected || (std::isnan(got) && std::isnan(expected));
  }

  GoldenMetricResult& r_;
};

bool stored_as_float(const std::string& id) {
  const Definition* d = find_definition(id);
  const auto names = [&](const char* word) {
    return d && d->needs.find(word) != std::string_view::npos;
  };
  return names("logits") || names("weights") || names("out_norm") || names("router rows") ||
         names("stored pair") || names("entropy");
}

void verify_trace_case(const GoldenFile& f, Score& score) {
  const MemoryTrace trace = golden_trace(f);
  const bool two = f.has("trace_b/expert_ids");
  AnalyzeOptions o;
  o.window = 7;  // small windows: what is carried from one to the next is tested too
  const auto all =
      two ? agree(trace, golden_trace(f, "trace_b")).values() : measure(trace, golden_specs(f), o);
  const auto pairs = golden_pairs(f);
  for (const std::string& id : split(f.text("metric_ids"), ',')) {
    const auto pair =
        std::find_if(pairs.begin(), pairs.end(), [&](const auto& p) { return p.first == id; });
    const auto at =
        std::find_if(all.begin(), all.end(), [&](const MetricValue& m) { return m.id == id; });
    if (pair != pairs.end())
      score.compare(f, id, {pair->second.flat().begin(), pair->second.flat().end()}, false);
    else if (at != all.end())
      score.compare(f, id, at->values, stored_as_float(id));
    else
      score.fail(id + " is not computed");
  }
}

// Figures by modality: every dataset of /expected is one.
void verify_modalities(const GoldenFile& f, Score& score) {
  AnalyzeOptions o;
  o.window = 7;
  const auto all = measure(golden_modality_trace(f), {"modality"}, o);
  for (const std::string& name : f.datasets()) {
    if (!name.starts_with("expected/"))
      continue;
    const std::string id = name.substr(9);
    const auto at = std::ranges::find(all, id, &MetricValue::id);
    if (at == all.end())
      score.fail(id + " is not computed");
    else
      score.compare(f, id, at->values, stored_as_float(id));
  }
}

void verify_placement(const GoldenFile& f, Score& score) {
  const auto weight = f.reals("input/weight");
  if (weight.dims.size() != 2)
    return score.fail("input/weight is not layers by experts");
  const EplbShape shape{int(f.integer("num_replicas")), int(f.integer("num_groups")),
                        int(f.integer("num_nodes")), int(f.integer("num_gpus"))};
  std::vector<double> slots, copies, load, balance;
  const std::size_t experts = std::size_t(weight.dims[1]);
  for (std::size_t l = 0; l < std::size_t(weight.dims[0]); ++l) {
    const EplbPlan p = eplb_plan(std::span(weight.values).subspan(l * experts, experts), shape);
    slots.insert(slots.end(), p.expert.begin(), p.expert.end());
    copies.insert(copies.end(), p.copies.begin(), p.copies.end());
    load.insert(load.end(), p.gpu_load.begin(), p.gpu_load.end());
    balance.push_back(p.balancedness);
  }
  score.compare(f, "phys_to_log", slots, false);
  score.compare(f, "replica_count", copies, false);
  score.compare(f, "gpu_load", load, false);
  score.compare(f, "balancedness", balance, false);
}

struct Case {
  double e, k, t, vocabulary, domains, batch, cache, ranks;
};

struct ClosedForm {
  const char* name;
  double (*of)(const Case&);
};
constexpr ClosedForm closed_forms[] = {{"null_load_cv",
                                        [](const Case& c) {
                                          return chance::load_cv(c.e, c.k, c.t);
                                        }},
                                       {"null_load_jain",
                                        [](const Case& c) {
                                          return chance::load_jain(c.e, c.k, c.t);
                                        }},
                                       {"null_load_dead_fraction",
                                        [](const Case& c) {
                                          return chance::load_dead(c.e, c.k, c.t);
                                        }},
                                       {"null_repeat_first",
                                        [](const Case& c) {
                                          return 1 / c.e;
                                        }},
                                       {"null_repeat_any",
                                        [](const Case& c) {
                                          return chance::repeat_any(c.e, c.k);
                                        }},
                                       {"null_lag_overlap",
                                        [](const Case& c) {
                                          return c.k / c.e;
                                        }},
                                       {"null_distinct_experts",
                                        [](const Case& c) {
                                          return chance::distinct_experts(c.e, c.k, c.batch);
                                        }},
                                       {"null_coactivation_conditional",
                                        [](const Case& c) {
                                          return (c.k - 1) / (c.e - 1);
                                        }},
                                       {"null_coactivation_adjacent",
                                        [](const Case& c) {
                                          return 2 * (c.k - 1) / (c.k * (c.e - 1));
                                        }},
                                       {"null_crosslayer_mi_bits",
                                        [](const Case& c) {
                                          return chance::crosslayer_mi_bits(c.e, c.e, c.t);
                                        }},
                                       {"null_domain_expert_mi_bits",
                                        [](const Case& c) {
                                          return chance::mi_bits(c.domains, c.e, c.k, c.t * c.k);
                                        }},
                                       {"null_token_expert_mi_bits",
                                        [](const Case& c) {
                                          return chance::mi_bits(c.vocabulary, c.e, c.k, c.t * c.k);
                                        }},
                                       {"null_a2a_distinct_ranks",
                                        [](const Case& c) {
                                          return chance::distinct_ranks(int(c.e), c.k,
                                                                        int(c.ranks));
                                        }},
                                       {"null_cache_hit_rate_lru", [](const Case& c) {
                                          return chance::lru_hit_rate(c.e, c.k, c.cache);
                                        }}};

void verify_chance(const GoldenFile& f, Score& score) {
  const auto column = [&](const char* name) {
    return f.reals(concat("input/", name)).values;
  };
  const auto e = column("num_experts");
  const auto k = column("top_k");
  const auto t = column("num_tokens");
  const auto v = column("vocab_size");
  const auto d = column("num_domains");
  const auto b = column("batch_size");
  const auto c = column("cache_size");
  const auto r = column("ep_size");
  for (const auto* other : {&k, &t, &v, &d, &b, &c, &r}) {
    if (other->size() != e.size())
      return score.fail("the columns of /input differ in length");
  }
  for (const std::string& name : f.datasets()) {
    if (!name.starts_with("expected/"))
      continue;
    const std::string id = name.substr(9);
    const auto* form =
        std::ranges::find_if(closed_forms, [&](const ClosedForm& one) { return one.name == id; });
    if (form == std::end(closed_forms)) {
      score.fail(id + " is not computed");
      continue;
    }
    std::vector<double> got;
    for (std::size_t i = 0; i < e.size(); ++i)
      got.push_back(form->of({e[i], k[i], t[i], v[i], d[i], b[i], c[i], r[i]}));
    score.compare(f, id, got, false);
  }
}

std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder) {
  if (std::filesystem::is_regular_file(folder))
    return {folder};
  std::vector<std::filesystem::path> out;
  std::error_code failed;
  for (const auto& entry : std::filesystem::directory_iterator(folder, failed)) {
    if (entry.path().extension() == ".h5")
      out.push_back(entry.path());
  }
  if (failed) {
    throw Error(Exit::input,
                concat("cannot read the folder '", folder.string(), "': ", failed.message()))
        .hint("moe verify --golden DIR");
  }
  std::ranges::sort(out);
  return out;
}

}  // namespace

bool has_golden_metrics(const std::filesystem::path& folder) {
  static const std::set<std::string> kinds = {"trace", "eplb", "null", "modality_trace"};
  for (const auto& path : files_of(folder)) {
    try {
      const GoldenFile f(path);
      return f.has_attribute("kind") && f.is_text("kind") && kinds.contains(f.text("kind"));
    } catch (const Error&) {  // damaged: the next one says
    }
  }
  return false;
}

GoldenMetricResult verify_golden_metric(const std::filesystem::path& path) {
  GoldenMetricResult r;
  r.file = path.stem().string();
  r.passed = true;
  Score score(r);
  try {
    const GoldenFile f(path);
    const std::string kind = f.text("kind");
    if (kind == "trace")
      verify_trace_case(f, score);
    else if (kind == "eplb")
      verify_placement(f, score);
    else if (kind == "modality_trace")
      verify_modalities(f, score);
    else if (kind == "null")
      verify_chance(f, score);
    else
      score.fail(concat("is of the unknown kind '", kind, "'"));
  } catch (const Error& e) {
    if (e.code() == Exit::memory)
      throw;
    score.fail(e.what());
  }
  if (r.ids == 0)
    score.fail("expects nothing");
  return r;
}

std::vector<GoldenMetricResult> verify_golden_metrics(const std::filesystem::path& folder) {
  std::vector<GoldenMetricResult> out;
  for (const auto& path : files_of(folder))
    out.push_back(verify_golden_metric(path));
  return out;
}

}  // namespace moe
