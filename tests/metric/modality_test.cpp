// Figures by modality: by hand on small traces, against the labels of domains where both say the
// same, and what a report says of traces with one modality, with masks, with pictures that tell
// their text.
#include <catch2/catch.hpp>
#include <cmath>
#include <set>

#include "analysis/metric/joint.h"
#include "analysis/metric/layout.h"
#include "analysis/metric/shared_sequences.h"
#include "tests/metric/traces.h"

using namespace moe;

namespace {

Counts counts(Index columns, const std::vector<std::int64_t>& cells) {
  Counts out(Index(cells.size()) / columns, columns);
  std::ranges::copy(cells, out.data());
  return out;
}

struct Row {
  std::uint8_t modality;
  std::uint32_t sequence;
  std::vector<int> expert;
};

// One layer of `experts`, rows as given.
MemoryTrace trace_of(int experts, const std::vector<Row>& all, std::vector<SignalGrid> grid = {}) {
  TraceHeader h;
  TraceLayer layer;
  layer.experts = experts;
  layer.top_k = int(all[0].expert.size());
  h.layers = {layer};
  TraceRows rows;
  LayerRows l;
  l.expert = Matrix<int>(Index(all.size()), layer.top_k);
  std::vector<TraceSequence> sequences;
  for (std::size_t t = 0; t < all.size(); ++t) {
    if (sequences.size() == all[t].sequence)
      sequences.push_back({t, 0, no_domain});
    ++sequences.back().length;
    rows.token_id.push_back(std::uint32_t(t));
    rows.position.push_back(sequences.back().length - 1);
    rows.sequence.push_back(all[t].sequence);
    rows.step.push_back(0);
    rows.flags.push_back(0);
    rows.modality.push_back(all[t].modality);
    std::ranges::copy(all[t].expert, l.expert.row(Index(t)).begin());
  }
  for (std::size_t q = 0; q < grid.size(); ++q)
    sequences.at(q).grid = grid[q];
  rows.layer = {std::move(l)};
  return {std::move(h),
          std::move(sequences),
          {{0, 0, std::uint32_t(all.size()), Phase::eval}},
          std::move(rows)};
}

const MetricValue& value_of(const std::vector<MetricValue>& all, const std::string& id) {
  for (const MetricValue& v : all) {
    if (v.id == id)
      return v;
  }
  FAIL(id << " is not computed");
  return all.front();
}

bool said(const Report& r, const std::string& part) {
  for (const Finding& f : r.findings) {
    if (f.text.find(part) != f.text.npos)
      return true;
  }
  return std::ranges::any_of(r.warnings,
                             [&](const std::string& w) { return w.find(part) != w.npos; });
}

// Sequences of 6 picture rows and 6 of text; each modality has a half of the experts where it does
// not leak, and both turn to the sequence's own quarter of it where they are bound.
MemoryTrace made(int sequences, double leak, bool bound, std::uint64_t seed = 5) {
  constexpr int experts = 16;
  Rng rng(seed);
  std::vector<Row> rows;
  for (int q = 0; q < sequences; ++q) {
    const int corner = int(rng.below(4));
    for (int t = 0; t < 12; ++t) {
      const bool picture = t < 6;
      int e = bound ? corner * 4 + int(rng.below(4)) : int(rng.below(experts));
      if (!bound && rng.uniform() >= leak)
        e = (picture ? 0 : 8) + int(rng.below(8));
      rows.push_back(
          {std::uint8_t(picture ? modality::image : modality::text), std::uint32_t(q), {e}});
    }
  }
  return trace_of(experts, rows, std::vector<SignalGrid>(std::size_t(sequences), {2, 3}));
}

}  // namespace

TEST_CASE("every row of a table weighs the same in balanced shares and their information") {
  const Counts j = counts(2, {3, 1, 0, 4});
  CHECK(balanced_shares(j)(0, 0) == 1);
  CHECK(balanced_shares(j)(1, 0) == 0);
  CHECK(balanced_shares(j)(0, 1) == Approx(0.2));
  CHECK(balanced_shares(j)(1, 1) == Approx(0.8));
  CHECK(balanced_information_bits(j) == Approx(0.5488).margin(1e-4));
  CHECK(jensen_shannon_bits(j)(0, 1) == Approx(balanced_information_bits(j)));
  CHECK(jensen_shannon_bits(j)(1, 1) == 0);
  // a hundred times as many rows of one label change nothing
  const Counts more = counts(2, {300, 100, 0, 4});
  CHECK(balanced_information_bits(more) == Approx(balanced_information_bits(j)));
  CHECK(mutual_information_bits(more) < 0.1);
  const Counts one = counts(2, {3, 1, 0, 0, 0, 0});
  CHECK(balanced_information_bits(one) == 0);
  CHECK(std::isnan(jensen_shannon_bits(one)(0, 1)));
  CHECK(std::isnan(balanced_shares(one)(1, 0)));
}

TEST_CASE("overlaps of modalities are those of every pair of sequences, one by one") {
  Rng rng(3);
  constexpr int experts = 5;
  constexpr std::size_t sequences = 7;
  SharedSequences all(100, 2, experts);
  std::vector<std::vector<std::vector<double>>> h(sequences, {{}, {}});
  for (std::size_t q = 0; q < sequences; ++q) {
    for (const std::size_t m : {0u, 1u}) {
      if (q == 4 && m == 1)
        continue;  // of one modality alone
      std::vector<double> count(experts, 0);
      for (int t = 0; t < 9; ++t) {
        const int e = int(rng.below(experts));
        all.add(q, m, {&e, 1});
        count[std::size_t(e)] += 1.0 / 9;
      }
      h[q][m] = count;
    }
  }
  double own = 0, other = 0, n = 0, pairs = 0;
  for (std::size_t q = 0; q < sequences; ++q) {
    for (std::size_t r = 0; r < sequences; ++r) {
      if (q == 4 || r == 4)
        continue;
      double both = 0;
      for (std::size_t e = 0; e < experts; ++e)
        both += std::min(h[q][0][e], h[r][1][e]);
      (q == r ? own : other) += both;
      (q == r ? n : pairs) += 1;
    }
  }
  const auto o = all.overlap(0, 1);
  CHECK(o.sequences == 6);
  CHECK(o.own == Approx(own / n));
  CHECK(o.other == Approx(other / pairs));
  CHECK(all.overlap(1, 0).own == Approx(o.own));
  double sum = 0;
  const Matrix<double> both = all.together(0, 1);
  for (const double v : both.flat())
    sum += v;
  CHECK(sum == Approx(1));
}

TEST_CASE("figures by modality, by hand") {
  // text takes 0, 1, 0, 0; the picture 1, 2, 3, 3
  const std::vector<Row> rows{{0, 0, {0}}, {0, 0, {1}}, {1, 0, {1}}, {1, 0, {2}},  {0, 1, {0}},
                              {0, 1, {0}}, {1, 1, {3}}, {1, 1, {3}}, {255, 1, {2}}};
  const auto all = measure(trace_of(4, rows, {{1, 2}, {1, 2}}), {"modality"});
  const auto of = [&](const std::string& id) {
    return value_of(all, id).values;
  };
  CHECK(of("modality_tokens") == std::vector<double>{4, 4, 0, 0});
  const MetricValue& share = value_of(all, "modality_share");
  REQUIRE(share.dims == std::vector<Index>{1, 4, 4});
  CHECK(share.values[0] == 1);              // text, expert 0
  CHECK(share.values[1] == Approx(0.5));    // both as often
  CHECK(share.values[4 + 3] == 1);          // picture, expert 3
  CHECK(std::isnan(share.values[8]));       // no video
  CHECK(of("modality_dedicated")[0] == 1);  // expert 0
  CHECK(of("modality_dedicated")[1] == 2);  // experts 2 and 3
  CHECK(std::isnan(of("modality_dedicated")[2]));
  CHECK(of("modality_tv")[1] == Approx(0.75));
  CHECK(of("modality_predictability")[0] == Approx((3 + 1 + 1 + 2) / 8.0));
  CHECK(of("modality_resting_fraction")[0] == 0.5);
  CHECK(of("modality_resting_fraction")[1] == 0.25);
  // places 0 and 1 of the pictures took 1, 2 and 3, 3: half a bit
  CHECK(of("modality_place_mi_bits")[1] == Approx(0.5));
  CHECK(std::isnan(of("modality_place_mi_bits")[0]));
  // sequence 0 has expert 1 in common at a half, sequence 1 nothing
  CHECK(of("crossmodal_overlap")[1] == Approx(0.25));
  CHECK(of("crossmodal_overlap_other")[1] == 0);
  CHECK(of("modality_path_coverage")[0] == Approx(0.75));
  CHECK(of("modality_path_coverage")[1] == 1);
  // first choices alone, samples with the same weight: expert 0 (0.5 + 1)/2 of text
  CHECK(of("modality_load_by_sample")[0] == Approx(0.375));
  CHECK(of("modality_load_by_sample")[3] == Approx(0.25));
}

TEST_CASE("a modality for each sequence gives the figures of a domain for each sequence") {
  Make m;
  m.routing = Make::by_domain;
  const MemoryTrace by_domain = make_trace(m);
  TraceRows rows = by_domain.read(0, by_domain.tokens(), by_domain.fields());
  for (std::size_t t = 0; t < rows.tokens(); ++t)
    rows.modality.push_back(std::uint8_t(by_domain.sequences()[rows.sequence[t]].domain));
  TraceHeader h = by_domain.header();
  h.modalities = {"text", "image"};
  const MemoryTrace trace{h, by_domain.sequences(), by_domain.steps(), rows};
  const auto all = measure(trace, {"domains", "modality"});
  for (const auto& [one, other] : {std::pair("domain_hit_rate", "modality_hit_rate"),
                                   std::pair("domain_hit_rate_top1", "modality_hit_rate_top1"),
                                   std::pair("domain_tv", "modality_tv"),
                                   std::pair("domain_expert_mi_bits", "modality_expert_mi_bits")}) {
    INFO(one);
    CHECK(value_of(all, one).values == value_of(all, other).values);
  }
}

TEST_CASE("traces without two modalities say so in one sentence, and text alone says nothing") {
  const MemoryTrace text = make_trace({.tokens = 64});
  CHECK(measure(text, {"modality"}).empty());
  CHECK(said(analyze(text, {"modality"}), "does not say the modality of its rows"));
  const Report usual = analyze(text);
  CHECK_FALSE(said(usual, "modalit"));
  for (const auto& [key, value] : usual.facts)
    CHECK(value.find("modality") == value.npos);
  const MemoryTrace one = trace_of(4, {{1, 0, {0}}, {1, 0, {1}}});
  CHECK(said(analyze(one), "all rows of the trace are of one modality, image"));
  CHECK(measure(one, {"modality"}).empty());
  const MemoryTrace unknown = trace_of(4, {{255, 0, {0}}, {9, 0, {1}}});
  CHECK(said(analyze(unknown), "all rows of the trace are of unknown modality"));
}

TEST_CASE("what a report says of modalities: apart, shared, allowed no others, bound together") {
  const Report even = analyze(made(400, 1, false), {"modality"});
  CHECK(said(even, "Experts do not tell the modalities apart"));
  CHECK(said(even, "tells nothing of the other"));
  const Report apart = analyze(made(400, 0.3, false), {"modality"});
  CHECK(said(apart, "Experts tell the modalities apart most in layer 0"));
  CHECK_FALSE(said(apart, "takes a single modality"));
  CHECK(said(apart, "None of the 16 experts of all layers take 90 % or more"));
  const Report masked = analyze(made(400, 0, false), {"modality"});
  CHECK(said(masked, "Every expert there takes a single modality"));
  CHECK(said(masked, "16 of the 16 experts"));
  CHECK(said(masked, "While only text comes, 50.0 % of the experts of layer 0 rest"));
  CHECK_FALSE(said(apart, "While only"));
  const Report bound = analyze(made(400, 0, true), {"modality"});
  CHECK(said(bound, "The experts of a sequence go together across its modalities"));
  CHECK(said(analyze(made(2, 1, false), {"modality"}), "too few"));
}

TEST_CASE("a sample shows whole pictures in their places") {
  AnalyzeOptions o;
  o.sample_tokens = 40;
  const Report r = analyze(made(10, 0, false), {"load"}, o);
  REQUIRE(r.samples.size() == 1);
  const TokenSample& s = r.samples[0];
  REQUIRE(s.pictures.size() == 3);
  CHECK(s.pictures[1].first == 12);
  CHECK(s.pictures[1].end() == 18);
  CHECK((s.pictures[1].rows == 2 && s.pictures[1].columns == 3));
  CHECK(s.pictures[1].modality == "image");
  CHECK(s.piece.size() == 36);  // the fourth picture has no room
  CHECK(s.piece[12] == "▫");
  o.sample_tokens = 4;  // the first picture is whole however few tokens were asked for
  const Report few = analyze(made(10, 0, false), {"load"}, o);
  REQUIRE(few.samples[0].pictures.size() == 1);
  CHECK(few.samples[0].piece.size() == 7);
}
