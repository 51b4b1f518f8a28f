// What keeps a report honest on hostile or very long traces: numbers that are none are left out and
// said, memory stays bounded, and planted labels are scored as what it is.
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <sstream>

#include "analysis/metric/path_table.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

template <class Edit>
MemoryTrace edited(const MemoryTrace& trace, Edit edit) {
  TraceRows rows = trace.read(0, trace.tokens(), trace.fields());
  edit(rows);
  return {trace.header(), trace.sequences(), trace.steps(), std::move(rows)};
}

bool warned(const Report& r, const std::string& part) {
  return std::any_of(r.warnings.begin(), r.warnings.end(),
                     [&](const std::string& w) { return w.find(part) != w.npos; });
}

}  // namespace

TEST_CASE("logits, weights and norms that are no numbers are left out, and the report says so") {
  Make m{.tokens = 300, .layers = 2, .experts = 8};
  m.logits = true;
  const MemoryTrace good = make_trace(m);
  const MemoryTrace bad = edited(good, [](TraceRows& rows) {
    rows.layer[0].logits(5, 3) = NAN;
    rows.layer[0].logits(6, 0) = INFINITY;
    for (float& z : rows.layer[1].logits.row(7))
      z = -INFINITY;
    for (LayerRows& l : rows.layer) {
      l.out_norm = Matrix<float>(l.expert.rows(), l.expert.cols(), 1);
      l.out_norm(3, 1) = NAN;
      if (!l.weight.empty())
        l.weight(4, 0) = NAN;
    }
  });
  const Report r = analyze(bad);
  CHECK(warned(r, "3 of 300 tokens have logits that are NaN or infinite"));
  CHECK(warned(r, "4 choices"));
  for (const MetricValue& v : measure(bad, {"router", "pruning", "logit_similarity", "load"})) {
    INFO(v.id);
    const auto finite = [](double x) {
      return std::isfinite(x);
    };
    if (v.id != "load_max_over_min")
      CHECK(std::all_of(v.values.begin(), v.values.end(), finite));
  }
  CHECK_FALSE(warned(analyze(good), "have logits"));
}

TEST_CASE(
    "the median of the second ratio is exact for short traces and within a bin for long ones") {
  for (const int tokens : {1001, 150'001}) {
    Make m{.tokens = tokens, .layers = 1, .experts = 2, .k = 1, .domains = 1};
    m.extras = false;
    const MemoryTrace trace = edited(make_trace(m), [&](TraceRows& rows) {
      rows.layer[0].logits = Matrix<float>(tokens, 2);
      for (Index t = 0; t < tokens; ++t) {
        rows.layer[0].logits(t, 0) = 0;
        rows.layer[0].logits(t, 1) = float(std::log((double(t) + 1) / tokens));
      }
    });
    for (const MetricValue& v : measure(trace, {"router"})) {
      if (v.id == "router_second_ratio_median") {
        CHECK(v.values.at(0) == Approx((tokens + 1) / 2 / double(tokens))
                                    .margin(tokens > 65536 ? 7.7e-6 : 1e-7)
                                    .epsilon(0));
      }
    }
  }
}

TEST_CASE("the path table counts like a map, thinned or not") {
  Rng rng(3);
  for (const int variety : {2, 9}) {
    PathTable table(4);
    std::map<std::vector<std::uint16_t>, std::int64_t> plain;
    for (int n = 0; n < 20'000; ++n) {
      std::vector<std::uint16_t> path(4);
      for (auto& e : path)
        e = std::uint16_t(rng.below(variety) * rng.below(variety));
      table.add(path.data());
      ++plain[path];
      if (n % 2500 != 2499)
        continue;
      table.thin();
      for (auto at = plain.begin(); at != plain.end();)
        at = --at->second ? std::next(at) : plain.erase(at);
    }
    REQUIRE(table.size() == plain.size());
    for (std::size_t i = 0; i < table.size(); ++i) {
      const auto key = table.path(i);
      CHECK(plain.at({key.begin(), key.end()}) == table.count(i));
    }
  }
}

TEST_CASE("planted clusters: recovered, merged, ignored") {
  const MemoryTrace random =
      make_trace({.tokens = 4096, .layers = 3, .experts = 8, .k = 1, .domains = 2});
  std::uint32_t most = 0;
  const MemoryTrace trace = edited(random, [&](TraceRows& rows) {
    for (Index t = 0; t < Index(rows.tokens()); ++t) {
      const auto id = rows.token_id[std::size_t(t)];
      most = std::max(most, id);
      rows.layer[0].expert(t, 0) = int((id + 3) % 8);  // another order of the same clusters
      rows.layer[1].expert(t, 0) = int(id % 8 / 2);    // two clusters an expert
    }
  });
  AnalyzeOptions o;
  for (std::uint32_t id = 0; id <= most; ++id)
    o.planted_labels.push_back(int(id % 8));
  std::map<std::string, std::vector<double>> got;
  for (const MetricValue& v : measure(trace, {"planted"}, o))
    got[v.id] = v.values;
  const auto ami = got.at("planted_ami");
  const auto purity = got.at("planted_purity");
  CHECK(ami[0] == Approx(1));
  CHECK(purity[0] == 1);
  // 2 bits of about 3, over the mean of 2 and 3: 0.8 where all clusters are as frequent
  CHECK((ami[1] > 0.7 && ami[1] < 0.9));
  CHECK(purity[1] == Approx(0.5).margin(0.05));
  CHECK(std::abs(ami[2]) < 0.01);
  CHECK(measure(trace, {"planted"}).empty());
  CHECK(analyze(trace, {"planted"}, o).findings.at(0).text.find("recovered best in layer 1") !=
        std::string::npos);
  o.planted_labels.assign(o.planted_labels.size(), -1);
  o.planted_labels.push_back(0);
  CHECK(warned(analyze(trace, {"planted"}, o), "no token of the trace has a planted cluster"));
}

TEST_CASE("weights and orders that are not what the trace says are named first") {
  const MemoryTrace good = make_trace({.tokens = 512, .layers = 2});
  TraceHeader h = good.header();
  h.weight_normalized = true;  // 1/2 and 1/2
  const auto with = [&](const TraceHeader& header, const auto& edit) {
    TraceRows rows = good.read(0, good.tokens(), good.fields());
    edit(rows);
    return MemoryTrace(header, good.sequences(), good.steps(), std::move(rows));
  };
  const auto nothing = [](TraceRows&) {
  };
  CHECK_FALSE(warned(analyze(with(h, nothing), {"load"}), "combine weights"));
  const auto some_off = [](TraceRows& rows) {
    rows.layer[0].weight(3, 0) = -0.5f;
    rows.layer[0].weight(3, 1) = 1.5f;
    rows.layer[1].weight(4, 1) = 7;
    rows.layer[1].weight(5, 1) = 7;
    rows.flags[5] = token_flag::padding;  // may hold anything
  };
  const Report r = analyze(with(h, some_off), {"load"});
  CHECK(r.warnings.at(0).starts_with("2 of 512 tokens have combine weights"));
  const auto sums = [&](const MemoryTrace& t) {
    for (const MetricValue& v : measure(t, {"load"})) {
      if (v.id == "importance_sum")
        return std::accumulate(v.values.begin(), v.values.end(), 0.0);
    }
    return 0.0;
  };
  CHECK(sums(with(h, some_off)) == Approx(2 * 511 - 2));
  h.order = "id_asc";
  CHECK(warned(analyze(with(h, nothing), {"load"}), "not in the order"));
}

TEST_CASE("a trace whose every live row has logits that are no numbers is refused") {
  Make m{.tokens = 64, .layers = 2};
  m.logits = true;
  const MemoryTrace bad = edited(make_trace(m), [](TraceRows& rows) {
    for (Index t = 0; t < 64; ++t) {
      rows.layer[1].logits(t, 2) = t % 2 ? NAN : INFINITY;
      if (t < 8)
        rows.flags[std::size_t(t)] = token_flag::padding;
    }
  });
  CHECK_THROWS_WITH(analyze(bad), Catch::Contains("nothing in the trace can be routing") &&
                                      Catch::Contains("56 of 64 tokens have logits"));
}

TEST_CASE("rows with one expert in several slots are named and left out of every figure") {
  Make m{.tokens = 2048, .layers = 2, .experts = 16, .k = 4, .extras = false};
  const MemoryTrace good = make_trace(m);
  TraceRows rows = good.read(0, good.tokens(), good.fields());
  TraceRows padded = rows;
  padded.flags.assign(rows.tokens(), 0);
  for (std::size_t t = 0; t < rows.tokens(); t += 4) {
    for (LayerRows& layer : rows.layer)
      std::ranges::fill(layer.expert.row(Index(t)), 0);
    padded.flags[t] = token_flag::padding;
  }
  const auto trace_of = [&](const TraceRows& r) {
    return MemoryTrace(good.header(), good.sequences(), good.steps(), r);
  };
  AnalyzeOptions o;
  o.bootstrap = 0;
  const Report report = analyze(trace_of(rows), {"load"}, o);
  REQUIRE_FALSE(report.warnings.empty());
  CHECK(report.warnings[0].starts_with("512 of 2048 tokens have one expert in several slots"));
  // as if they were padding
  const auto counts = [&](const TraceRows& r) {
    return measure(trace_of(r), {"load"}, o)[0].values;
  };
  CHECK(counts(rows) == counts(padded));
  for (LayerRows& layer : rows.layer)
    std::ranges::fill(layer.expert.flat(), 3);
  CHECK_THROWS_WITH(analyze(trace_of(rows), {"load"}, o),
                    Catch::Contains("nothing in the trace can be routing"));
}

namespace {

// Words that a number prints as where it is none.
bool says_no_number(std::string text) {
  for (char& c : text)
    c = std::isalnum(static_cast<unsigned char>(c)) ? c : ' ';
  std::istringstream in(text);
  for (std::string word; in >> word;) {
    if (word == "nan" || word == "inf" || word == "nanx" || word == "infx")
      return true;
  }
  return false;
}

}  // namespace

TEST_CASE("no finding of a small trace quotes a number that is none") {
  int findings = 0;
  for (const auto routing : {Make::random, Make::collapsed, Make::by_domain, Make::sticky}) {
    for (const int tokens : {1, 2, 7, 33, 64, 110, 200}) {
      for (const auto& [experts, k] : {std::pair{4, 1}, {8, 2}, {64, 4}}) {
        const Make m{.tokens = tokens, .experts = experts, .k = k, .routing = routing};
        for (const Finding& f : analyze(make_trace(m)).findings) {
          CAPTURE(tokens, experts, k, int(routing), f.text);
          CHECK_FALSE(says_no_number(f.text));
          ++findings;
        }
      }
    }
  }
  CHECK(findings > 500);
}
