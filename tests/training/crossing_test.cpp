// How rows of tokens cross to experts on other ranks: for every choice, once to a rank, once to a
// node. The bytes of a run are the same, and what was sent is what the routing of its trace asks
// for, and what moe plan expects of such routing.
#include <set>

#include "lib/core/error.h"
#include "lib/plan/exchange.h"
#include "lib/trace/reader.h"
#include "tests/training/rank_runs.h"

using namespace moe;
using namespace moe::test;

namespace {

const std::vector<int> two_by_two = {0, 0, 1, 1};

constexpr const char* in_groups =
    "experts=8,router={softmax:k=3,groups=2,topk_groups=1},capacity={position:factor=1},"
    "balance=none";

// `rows` of all lines of metrics.jsonl.
CrossedRows rows_of_run(const std::string& folder) {
  std::istringstream lines(bytes_of(folder + "/metrics.jsonl"));
  CrossedRows out;
  for (std::string line; std::getline(lines, line);) {
    const auto j = nlohmann::json::parse(line);
    if (!j.contains("ranks"))
      continue;
    const auto& rows = j.at("ranks").at("rows");
    out += {.tokens = rows.at("tokens"),
            .choices = rows.at("choices"),
            .near = rows.at("to_experts").at("same_node"),
            .far = rows.at("to_experts").at("other_nodes"),
            .back_near = rows.at("back").at("same_node"),
            .back_far = rows.at("back").at("other_nodes")};
  }
  return out;
}

// What the routing of a trace asks to be sent, worked out token by token.
class Expected {
 public:
  Expected(std::vector<int> nodes, Send send) : nodes_(std::move(nodes)), send_(send) {}

  void token(int home, const std::vector<int>& owners) {
    ++rows.tokens;
    rows.choices += std::ssize(owners);
    for (const int owner : owners)
      add(home, owner, rows.back_near, rows.back_far);
    const std::set<int> different(owners.begin(), owners.end());
    if (send_ == Send::rows) {
      for (const int owner : owners)
        add(home, owner, rows.near, rows.far);
    } else if (send_ == Send::once) {
      for (const int owner : different)
        add(home, owner, rows.near, rows.far);
    } else {
      by_node(home, different);
    }
  }
  CrossedRows rows;

 private:
  void add(int home, int owner, std::int64_t& near, std::int64_t& far) const {
    if (home != owner)
      ++(nodes_[std::size_t(home)] == nodes_[std::size_t(owner)] ? near : far);
  }
  std::vector<int> members(int node) const {
    std::vector<int> out;
    for (int r = 0; r < int(nodes_.size()); ++r) {
      if (nodes_[std::size_t(r)] == node)
        out.push_back(r);
    }
    return out;
  }
  void by_node(int home, const std::set<int>& owners) {
    const int here = nodes_[std::size_t(home)];
    const std::vector<int> own = members(here);
    const auto place = std::size_t(std::ranges::find(own, home) - own.begin());
    std::set<int> elsewhere;
    for (const int owner : owners) {
      const int node = nodes_[std::size_t(owner)];
      const std::vector<int> there = members(node);
      const int first = node == here ? home : there[place % there.size()];
      rows.near += owner != first;
      if (node != here)
        elsewhere.insert(node);
    }
    rows.far += std::ssize(elsewhere);
  }

  std::vector<int> nodes_;
  Send send_;
};

CrossedRows expected_of_trace(const std::string& path, const std::vector<int>& nodes, Send send,
                              int ep) {
  const TraceReader trace(path);
  const TraceFields fields{.rank = true};
  const TraceRows rows = trace.read(0, trace.tokens(), fields);
  Expected out(nodes, send);
  for (std::size_t l = 0; l < rows.layer.size(); ++l) {
    const LayerRows& layer = rows.layer[l];
    const int experts = trace.header().layers[l].experts;
    for (std::size_t t = 0; t < rows.tokens(); ++t) {
      std::vector<int> owners;
      for (Index j = 0; j < layer.expert.cols(); ++j) {
        const bool dropped = !layer.dropped.empty() && layer.dropped(Index(t), j);
        if (dropped || layer.expert(Index(t), j) < 0)
          continue;
        int owner = ep - 1;
        while (experts * owner / ep > layer.expert(Index(t), j))
          --owner;
        owners.push_back(owner);
      }
      if (!owners.empty())
        out.token(rows.rank[t], owners);
    }
  }
  return out.rows;
}

void check_rows(const CrossedRows& counted, const CrossedRows& expected) {
  CHECK(counted.tokens == expected.tokens);
  CHECK(counted.choices == expected.choices);
  CHECK(counted.near == expected.near);
  CHECK(counted.far == expected.far);
  CHECK(counted.back_near == expected.back_near);
  CHECK(counted.back_far == expected.back_far);
}

std::string refused(const std::string& experts, const RankOptions& ranks) {
  const Scratch scratch;
  const std::string folder = scratch / "refused";
  try {
    start(model_with(experts), options_of(folder, 2, 2), {2, ranks});
  } catch (const Error& e) {
    CHECK(e.code() == Exit::usage);
    CHECK(!fs::exists(folder));
    return e.what();
  }
  return "not refused";
}

}  // namespace

TEST_CASE("rows that go once to a rank or a node leave the bytes of a run") {
  const OneThreadHere one;
  const Scratch scratch;
  RunOptions o = options_of(scratch / "run", 4, 4);
  o.train.steps = 3;
  for (const std::string model : {in_groups, "experts=5,router={softmax:k=3},balance=none"}) {
    INFO(model);
    start(model_with(model), o, {1});
    const auto whole = bytes_of_run(o.folder);
    const int ep = 4;
    for (const RankOptions& options :
         {RankOptions{.expert_ranks = ep, .send = Send::once},
          {.expert_ranks = ep, .send = Send::nodes, .nodes = two_by_two},
          {.zero = 3, .expert_ranks = ep, .send = Send::nodes, .nodes = {0, 3, 3, 3}},
          {.expert_ranks = ep, .send = Send::nodes, .nodes = {0, 1, 0, 1}},
          {.expert_ranks = 2, .send = Send::nodes, .nodes = {0, 1, 0, 1}}}) {
      INFO(name_of({4, options}));
      start(model_with(model), o, {4, options});
      check_equal(whole, bytes_of_run(o.folder));
    }
  }
}

TEST_CASE("rows that were sent are those that the routing of the trace asks for") {
  const OneThreadHere one;
  const Scratch scratch;
  RunOptions o = options_of(scratch / "run", 4, 4);
  o.trace_ranks = true;
  std::map<Send, CrossedRows> counted;
  for (const auto& [send, nodes] : {std::pair{Send::rows, two_by_two},
                                    {Send::once, two_by_two},
                                    {Send::nodes, std::vector<int>{0, 1, 1, 1}},
                                    {Send::nodes, two_by_two}}) {
    const RankOptions options{.expert_ranks = 4, .send = send, .nodes = nodes};
    INFO(name_of({4, options}));
    start(model_with(in_groups), o, {4, options});
    counted[send] = rows_of_run(o.folder);
    check_rows(counted[send],
               expected_of_trace(o.folder + ".moetrace.h5", nodes, send, options.expert_ranks));
    bytes_of_run(o.folder);
  }
  CHECK(counted[Send::once].far < counted[Send::rows].far);
  CHECK(counted[Send::nodes].far < counted[Send::once].far);
  CHECK(counted[Send::nodes].far <= counted[Send::nodes].tokens);  // one group of experts a token
}

TEST_CASE("rows of random routing are as many as moe plan expects") {
  const OneThreadHere one;
  const Scratch scratch;
  RunOptions o = options_of(scratch / "run", 4, 4);
  o.trace.clear();
  o.train.sequences = 8;
  o.eval_every = 0;
  for (const auto& [send, dispatch] : {std::pair{Send::rows, plan::Dispatch::flat},
                                       {Send::once, plan::Dispatch::device},
                                       {Send::nodes, plan::Dispatch::node}}) {
    const RankOptions options{.expert_ranks = 4, .send = send, .nodes = two_by_two};
    INFO(name_of({4, options}));
    start(model_with("experts=8,router={random:k=3},balance=none"), o, {4, options});
    const CrossedRows counted = rows_of_run(o.folder);
    fs::remove_all(o.folder);
    const plan::Rows rows =
        plan::rows_sent({.experts = 8, .k = 3, .ranks = 4, .gpus = 2}, dispatch);
    CHECK(counted.tokens == 4 * 4 * 8 * 12 * 2);  // steps, lanes, sequences, length, layers
    CHECK(double(counted.near) / double(counted.tokens) == Approx(rows.link).margin(0.04));
    CHECK(double(counted.far) / double(counted.tokens) == Approx(rows.net).margin(0.04));
  }
}

TEST_CASE("ways for rows that cannot be gone are refused before anything is made") {
  const OneThreadHere one;
  const std::string plain = "experts=4,router={softmax:k=2},balance=none";
  const RankOptions once{.expert_ranks = 2, .send = Send::once};
  CHECK_THAT(refused(plain, {.send = Send::once}), Catch::Contains("and none do"));
  CHECK_THAT(refused(plain, {.expert_ranks = 2, .move = Move::weights, .send = Send::once}),
             Catch::Contains("weights of experts may cross in their place"));
  CHECK_THAT(refused(plain, {.expert_ranks = 2, .send = Send::nodes, .nodes = {0, 0}}),
             Catch::Contains("are all on one"));
  CHECK_THAT(refused("experts=4,router={soft:slots=2},balance=none", once),
             Catch::Contains("are mixtures of tokens"));
  CHECK_THAT(refused("experts=4,router={softmax:k=2},weight_on_input=1,balance=none", once),
             Catch::Contains("weighed by choice before they cross"));
}
