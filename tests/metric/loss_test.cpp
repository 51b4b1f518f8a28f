// Where the loss is, on traces whose losses were made: sums, intervals, and what would fool a
// reader who asks whether the loss goes with the router's entropy.
#include <catch2/catch.hpp>
#include <cmath>

#include "analysis/compare/compare.h"
#include "analysis/metric/finding.h"
#include "analysis/metric/loss.h"
#include "tests/metric/rows.h"

using namespace moe;

namespace {

struct Token {
  double entropy = 1, loss = 1;
};

// One layer of four experts, sequences of 16; experts by turns, or where `by_loss` by the loss.
template <class Make>
MemoryTrace trace_with(int sequences, int domains, bool by_loss, Make make) {
  std::vector<Token> token;
  Rng rng(3);
  for (int t = 0; t < sequences * 16; ++t)
    token.push_back(make(t / 16, t % 16, rng));
  const MemoryTrace plain = trace_of(4, 1, sequences, [&](int t, int) {
    return std::vector<int>{by_loss && token[std::size_t(t)].loss > 2 ? 3 : t % 3};
  });
  TraceHeader h = plain.header();
  h.domains.clear();
  for (int d = 0; d < domains; ++d)
    h.domains.push_back("domain" + std::to_string(d));
  std::vector<TraceSequence> all = plain.sequences();
  for (std::size_t q = 0; q < all.size(); ++q)
    all[q].domain = std::uint16_t(int(q) % domains);
  TraceRows rows = plain.read(0, plain.tokens(), plain.fields());
  for (const Token& t : token) {
    rows.predicted_id.push_back(0);
    rows.target_id.push_back(1);
    rows.logprob.push_back(-float(t.loss));
    rows.layer[0].entropy.push_back(float(t.entropy));
  }
  return {h, all, plain.steps(), rows};
}

std::vector<double> values_of(const std::vector<MetricValue>& all, const std::string& id) {
  for (const MetricValue& v : all) {
    if (v.id == id)
      return v.values;
  }
  FAIL("no " << id);
  return {};
}

const Column& column(const Report& r, const char* table, const char* name) {
  return QuotedTable(r, table).column(name);
}

bool says(const Report& r, const std::string& part) {
  return std::ranges::any_of(r.findings,
                             [&](const Finding& f) { return f.text.find(part) != f.text.npos; });
}

double at(const Column& c, std::size_t row) {
  return std::get<std::vector<double>>(c.cells).at(row);
}

}  // namespace

TEST_CASE("losses are means over the tokens of a domain, an expert and a fifth of confidence") {
  // the loss is the place in the sequence, and so is the entropy: the fifths are 0..2, 3..5 ...
  const MemoryTrace trace = trace_with(8, 2, false, [](int q, int p, Rng&) {
    return Token{double(p), double(p + 100 * (q % 2))};
  });
  const auto all = measure(trace, {"loss"});
  CHECK(values_of(all, "loss_mean")[0] == Approx(57.5));
  CHECK(values_of(all, "loss_by_domain")[0] == Approx(7.5));
  CHECK(values_of(all, "loss_by_domain")[1] == Approx(107.5));
  // tokens 0,3,6...15 of a sequence that begins with expert 0; sequences of 16 begin in turn
  double sum = 0;
  double n = 0;
  for (int t = 0; t < 128; t += 3) {
    sum += t % 16 + 100 * (t / 16 % 2);
    n += 1;
  }
  CHECK(values_of(all, "loss_by_expert")[0] == Approx(sum / n));
  CHECK(std::isnan(values_of(all, "loss_by_expert")[3]));
  const auto fifth = values_of(all, "loss_by_confidence");
  REQUIRE(fifth.size() == 5);
  CHECK(fifth[0] == Approx(51));  // places 0, 1, 2: (0.5 + rank) / 16 * 5 < 1
  CHECK(fifth[4] == Approx(64));
  CHECK(values_of(all, "loss_entropy_correlation")[0] == Approx(1));
  // all that the entropy says is the position
  CHECK(std::isnan(values_of(all, "loss_entropy_correlation_position")[0]));
}

TEST_CASE("intervals of losses cover the mean of the source about as often as they say") {
  int held = 0;
  constexpr int runs = 400;
  for (int run = 0; run < runs; ++run) {
    Rng rng(std::uint64_t(run), 9);
    SequenceMean m;
    for (int q = 0; q < 24; ++q) {
      const double hard = rng.normal();  // tokens of one sequence are alike
      const int length = 4 + int(rng.below(60));
      for (int t = 0; t < length; ++t)
        m.add(q, 5 + hard + 0.3 * rng.normal());
    }
    const Interval i = m.interval();
    held += i.low <= 5 && i.high >= 5;
  }
  CHECK(held > runs * 0.90);
  CHECK(held < runs * 0.98);
  SequenceMean few;
  for (int q = 0; q < 7; ++q)
    few.add(q, q);
  CHECK(few.mean() == Approx(3));
  CHECK(std::isnan(few.interval().low));
  CHECK(std::isnan(SequenceMean().mean()));
}

TEST_CASE("hard domains and hard sequences make no correlation of loss and entropy") {
  // both are high in every second domain, and a sequence has its own level; tokens know nothing
  const MemoryTrace trace = trace_with(64, 2, false, [](int q, int, Rng& rng) {
    const double level = 5.0 * (q % 2) + 0.1 * (q % 7);
    return Token{level + rng.uniform(), 1 + level + rng.uniform()};
  });
  const Report r = analyze(trace, {"loss"});
  const Column& rho = column(r, "loss_entropy", "entropy and loss");
  CHECK(std::abs(at(rho, 0)) < 0.1);
  CHECK(rho.low[0] < 0);
  CHECK(rho.high[0] > 0);
  CHECK(says(r, "does not go with the router's entropy"));
  // sequences of one domain do share their levels, and that column says so
  CHECK(at(column(r, "loss_entropy", "of sequences"), 0) > 0.5);
}

TEST_CASE("entropy that goes with the loss is found, and where it is the position that is said") {
  const auto made = [](bool by_position) {
    return trace_with(64, 1, false, [by_position](int, int p, Rng& rng) {
      const double hidden = by_position ? p / 4.0 : 3 * rng.uniform();
      return Token{hidden + rng.uniform(), hidden + 1 + rng.uniform()};
    });
  };
  const Report linked = analyze(made(false), {"loss"});
  CHECK(at(column(linked, "loss_entropy", "entropy and loss"), 0) > 0.5);
  CHECK(at(column(linked, "loss_entropy", "position held"), 0) > 0.5);
  CHECK(says(linked, "Where the router is less sure, tokens are predicted worse"));
  CHECK_FALSE(says(linked, "it is the position that tells"));
  const Report placed = analyze(made(true), {"loss"});
  CHECK(at(column(placed, "loss_entropy", "entropy and loss"), 0) > 0.5);
  CHECK(std::abs(at(column(placed, "loss_entropy", "position held"), 0)) < 0.15);
  CHECK(says(placed, "it is the position that tells"));
}

TEST_CASE("an expert with hard tokens is named, one with any tokens is not") {
  const auto made = [](bool by_loss) {
    return trace_with(64, 1, by_loss, [](int, int, Rng& rng) {
      return Token{rng.uniform(), 3 * rng.uniform()};
    });
  };
  const Report hard = analyze(made(true), {"loss"});
  CHECK(says(hard, "expert 3 of layer 0"));
  CHECK(says(analyze(made(false), {"loss"}), "0 of 3 experts take tokens whose loss differs"));
}

TEST_CASE("too few sequences are no conclusion, and what follows nothing has no loss") {
  const MemoryTrace few = trace_with(4, 2, false, [](int, int p, Rng&) {
    return Token{double(p % 5), double(p % 7)};
  });
  const Report r = analyze(few, {"loss"});
  CHECK(says(r, "Too few sequences to judge whether the loss goes with"));
  CHECK(says(r, "Too few sequences to judge whether the loss differs between domains"));
  TraceRows rows = few.read(0, few.tokens(), few.fields());
  rows.target_id[15] = withheld_token;
  rows.logprob[15] = 0;
  rows.logprob[14] = NAN;
  CHECK(std::isnan(LossMetric::loss_of(rows, 15)));
  CHECK(std::isnan(LossMetric::loss_of(rows, 14)));
  CHECK(LossMetric::loss_of(rows, 13) == 6);
  for (float& v : rows.logprob)
    v = NAN;
  const MemoryTrace none(few.header(), few.sequences(), few.steps(), rows);
  CHECK(measure(none, {"loss"}).empty());
  CHECK(analyze(none, {"loss"}).tables.empty());
}

TEST_CASE("an entropy with few values is told, and logits are asked where they say more") {
  const auto coarse_in = [](const MemoryTrace& trace) {
    const Report r = analyze(trace, {"loss"});
    const auto& warnings = QuotedTable(r, "loss_entropy").table().warnings;
    return std::ranges::any_of(warnings, [](const std::string& w) {
      return w.find("takes about 2 values a sequence") != w.npos;
    });
  };
  const MemoryTrace few = trace_with(16, 1, false, [](int, int p, Rng& rng) {
    return Token{double(p % 2), rng.uniform()};
  });
  CHECK(coarse_in(few));
  TraceRows rows = few.read(0, few.tokens(), few.fields());
  rows.layer[0].logits = Matrix<float>(Index(few.tokens()), 4);
  for (Index t = 0; t < rows.layer[0].logits.rows(); ++t)
    rows.layer[0].logits(t, 0) = float(t % 16);
  TraceHeader h = few.header();
  CHECK(coarse_in(MemoryTrace(h, few.sequences(), few.steps(), rows)));  // not known to be softmax
  h.layers[0].score_fn = ScoreFn::softmax;
  CHECK_FALSE(coarse_in(MemoryTrace(h, few.sequences(), few.steps(), rows)));
}

TEST_CASE("windows of any size give the same losses") {
  const MemoryTrace trace = trace_with(24, 3, true, [](int, int, Rng& rng) {
    return Token{rng.uniform(), 3 * rng.uniform()};
  });
  AnalyzeOptions small;
  small.window = 7;
  const auto a = measure(trace, {"loss"});
  const auto b = measure(trace, {"loss"}, small);
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    INFO(a[i].id);
    REQUIRE(a[i].values.size() == b[i].values.size());
    for (std::size_t j = 0; j < a[i].values.size(); ++j)
      CHECK((a[i].values[j] == b[i].values[j] || std::isnan(a[i].values[j])));
  }
}

TEST_CASE("traces side by side begin with the loss and the router, the difference paired by text") {
  const auto made = [](double more) {
    return trace_with(32, 2, false, [more](int q, int, Rng& rng) {
      const double hard = 0.5 * (q % 5);
      return Token{rng.uniform(), more + hard + rng.uniform()};
    });
  };
  const MemoryTrace a = made(1);
  const MemoryTrace b = made(1.1);
  AnalyzeOptions o;
  o.bootstrap = 100;
  const Report r = side_by_side({{"a", &a, "same"}, {"b", &b, "same"}}, o);
  std::vector<std::string> drawn;
  for (const Table& t : r.tables) {
    if (t.chart != Chart::none)
      drawn.push_back(t.id);
  }
  REQUIRE(drawn.size() > 3);
  CHECK(drawn[0] == "side_loss");
  CHECK(drawn[1] == "side_router_entropy_norm");
  const QuotedTable t(r, "differences");
  REQUIRE(t.words("figure")[0] == "loss (nats)");
  const Column& d = t.column("b");
  CHECK(at(d, 0) == Approx(0.1).margin(1e-5));
  CHECK(d.low[0] > 0.09);  // every sequence differs by as much
  CHECK(d.high[0] < 0.11);
  const Column& of_a = column(r, "side_loss", "a");
  CHECK(of_a.low[0] < at(of_a, 0));
}
