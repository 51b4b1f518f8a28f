// A trace that says which rank computed a token: the rows of any other trace beside it, and the
// load of the ranks as it was.
#include "analysis/metric/metric.h"
#include "lib/core/error.h"
#include "lib/trace/reader.h"
#include "tests/training/rank_runs.h"

using namespace moe;
using namespace moe::test;

namespace {

constexpr const char* dropping =
    "experts=5,router={softmax:k=2},capacity={position:factor=1},balance=none";

// The columns of the table of loads: tokens and rows by rank.
struct Loads {
  std::vector<std::int64_t> tokens, rows;
};

Loads loads_of(const std::string& path) {
  const Report r = analyze(FileTrace(path), {"ranks"});
  for (const Table& t : r.tables) {
    if (t.id == "ranks_recorded")
      return {std::get<std::vector<std::int64_t>>(t.columns.at(1).cells),
              std::get<std::vector<std::int64_t>>(t.columns.at(2).cells)};
  }
  return {};
}

// Computed choices by owner, counted here.
std::vector<std::int64_t> rows_by_hand(const std::string& path, int ranks, int ep) {
  const TraceReader trace(path);
  const TraceRows rows = trace.read(0, trace.tokens(), {.rank = true});
  std::vector<std::int64_t> out(std::size_t(ranks), 0);
  for (const LayerRows& layer : rows.layer) {
    for (Index i = 0; i < layer.expert.size(); ++i) {
      if (layer.dropped.data()[i])
        continue;
      const int rank = rows.rank[std::size_t(i / layer.expert.cols())];
      int owner = ep - 1;
      while (5 * owner / ep > layer.expert.data()[i])
        --owner;
      ++out[std::size_t(rank / ep * ep + owner)];
    }
  }
  return out;
}

void check_same_routing(const TraceReader& a, const TraceReader& b) {
  REQUIRE(a.tokens() == b.tokens());
  const TraceRows x = a.read(0, a.tokens(), {});
  const TraceRows y = b.read(0, b.tokens(), {});
  CHECK(x.token_id == y.token_id);
  CHECK(x.step == y.step);
  for (std::size_t l = 0; l < x.layer.size(); ++l) {
    CHECK(x.layer[l].expert == y.layer[l].expert);
    CHECK(x.layer[l].weight == y.layer[l].weight);
    CHECK(x.layer[l].dropped == y.layer[l].dropped);
  }
}

}  // namespace

TEST_CASE("a trace says which rank computed a token, and a report the load of the ranks") {
  const OneThreadHere one;
  const Scratch scratch;
  RunOptions o = options_of(scratch / "plain", 4, 4);
  start(model_with(dropping), o, {1});
  const TraceReader plain(o.trace);
  CHECK_FALSE(plain.fields().rank);
  CHECK(plain.header().expert_ranks == 0);
  CHECK(loads_of(o.trace).rows.empty());
  o = options_of(scratch / "run", 4, 4);
  o.trace_ranks = true;
  for (const Share& l :
       {Share{1, {}}, Share{4, {}}, Share{4, {.expert_ranks = 2}}, Share{4, {.expert_ranks = 4}},
        Share{4, {.expert_ranks = 2, .move = Move::weights}}}) {
    INFO(name_of(l));
    start(model_with(dropping), o, l);
    const bool crosses = l.options.move == Move::tokens;
    const int ep = crosses ? l.options.expert_ranks : 1;
    const TraceReader trace(o.trace);
    CHECK(trace.header().expert_ranks == std::uint32_t(ep));
    check_same_routing(plain, trace);
    const TraceRows rows = trace.read(0, trace.tokens(), {.rank = true});
    bool right = true;
    for (std::size_t t = 0; t < rows.rank.size(); ++t)  // a micro-batch has 24 rows
      right = right && rows.rank[t] == t / 24 % 4 * std::size_t(l.ranks) / 4;
    CHECK(right);
    CHECK(verify_trace(o.trace).empty());
    const Loads loads = loads_of(o.trace);
    CHECK(loads.tokens == std::vector<std::int64_t>(std::size_t(l.ranks), 384 / l.ranks));
    CHECK(loads.rows == rows_by_hand(o.trace, l.ranks, ep));
    fs::remove_all(o.folder);
    fs::remove(o.trace);
  }
}

TEST_CASE("a trace of ranks goes on with experts shared out as they were") {
  const OneThreadHere one;
  const Scratch scratch;
  RunOptions o = options_of(scratch / "run", 4, 4);
  o.trace_ranks = true;
  const Share two{4, {.expert_ranks = 2}};
  start(model_with(dropping), o, two, 2);
  try {
    resume(o.folder, {4, {.expert_ranks = 4}});
    FAIL("another number of ranks went on in the same trace");
  } catch (const Error& e) {
    CHECK_THAT(e.what(), Catch::Contains("the experts of a layer on 2 ranks, and here they are on "
                                         "4"));
  }
  resume(o.folder, {2, {.expert_ranks = 2}});
  const Loads loads = loads_of(o.trace);
  CHECK(loads.tokens == std::vector<std::int64_t>{144, 144, 48, 48});
}
