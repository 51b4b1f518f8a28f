// Several ranks compute the bytes of one: checkpoints, moments, states, metrics and traces of whole
// runs, for every number of ranks up to that of lanes, however the ranks share what they hold, and
// wherever a run is stopped and goes on with another number.
#include <unistd.h>

#include <array>
#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "lib/comm/threads.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/run/start_run.h"
#include "lib/run/step_memory.h"
#include "tests/files/scratch.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

// Stops after a step, on one rank alone.
class Stopper final : public TrainingObserver {
 public:
  Stopper(Index after, bool asks) : after_(after), asks_(asks) {}
  void stepped(const StepReport& r) override {
    done_ = r.result.step;
  }
  bool wants_stop() override {
    return asks_ && after_ > 0 && done_ >= after_;
  }

 private:
  Index after_, done_ = 0;
  bool asks_;
};

struct Share {
  int ranks = 1;
  RankOptions options;
};

std::string name_of(const Share& l) {
  return concat(l.ranks, " ranks, zero=", l.options.zero, ", ep=", l.options.expert_ranks,
                l.options.move == Move::weights ? ", weights move" : "");
}

RunContext context_of(Backend<float>& backend, Comm& comm, const RankOptions& ranks) {
  return {[&backend](const std::string&) -> Backend<float>& { return backend; },
          {.version = "0.0.0 (test)", .command = "test", .created_utc = "2020-01-01T00:00:00Z"},
          &comm,
          ranks};
}

RunOptions options_of(const std::string& folder, Index lanes, Index accumulate) {
  RunOptions o;
  o.data = {"clusters:vocabulary=64,clusters=4,valid=200"};
  o.folder = folder;
  o.train.steps = 4;
  o.train.sequences = 2;
  o.train.accumulate = accumulate;
  o.train.lanes = lanes;
  o.train.lr = 5e-3;
  o.train.seed = 7;
  o.train.clip = 0.5;
  o.save_every = 2;
  o.save_minutes = 0;
  o.keep = 9;
  o.eval_every = 2;
  o.eval_tokens = 96;
  o.log_every = 1;
  o.trace = folder + ".moetrace.h5";
  return o;
}

std::string model_with(const std::string& rest) {
  return "custom:vocabulary=320,hidden=16,layers=2,heads=2,kv_heads=1,width=12,context=12," + rest;
}

// On `reference`, whose operations are single loops, where a test does not say `cpu`.
std::string device = "reference";

void start(const std::string& model, const RunOptions& o, const Share& l, Index stop_after = 0,
           const Around& around = {}) {
  const auto rank = [&](Comm& comm) {
    const auto backend = make_backend(device);
    Stopper observer(stop_after, comm.rank() == comm.size() - 1);
    train(*start_run(model_config(model), o, context_of(*backend, comm, l.options), observer),
          observer);
  };
  as_threads(l.ranks, rank, Comm::default_patience, around);
}

// Loses a drawn time before what it sends, and now and then does not see yet what has come: so
// ranks' rows are computed in drawn orders.
class SlowFlow final : public Flow {
 public:
  SlowFlow(std::unique_ptr<Flow> inner, Rng rng) : inner_(std::move(inner)), rng_(rng) {}
  void send(int to, ConstBytes out) override {
    if (rng_.below(3) == 0)
      std::this_thread::sleep_for(std::chrono::microseconds(rng_.below(300)));
    inner_->send(to, out);
  }
  void look() override {
    inner_->look();
  }
  bool has_come(int from) override {
    return rng_.below(2) == 0 && inner_->has_come(from);
  }
  bool done(std::vector<int>& missing) override {
    return inner_->done(missing);
  }
  void pause(double waited) override {
    inner_->pause(waited);
  }

 private:
  std::unique_ptr<Flow> inner_;
  Rng rng_;
};

// Loses a drawn time before every exchange.
class Slow final : public Transport {
 public:
  // `flows`: whether rows cross while ranks compute
  Slow(std::shared_ptr<Transport> inner, std::uint64_t seed, bool flows)
      : inner_(std::move(inner)),
        rng_(Rng(seed).stream(std::uint64_t(inner_->rank()))),
        flows_(flows) {}
  const char* name() const override {
    return inner_->name();
  }
  int rank() const override {
    return inner_->rank();
  }
  int size() const override {
    return inner_->size();
  }
  bool exchange(std::span<const ConstBytes> send, std::span<const Bytes> receive, double patience,
                std::vector<int>& missing) override {
    if (rng_.below(4) == 0)
      std::this_thread::sleep_for(std::chrono::microseconds(rng_.below(300)));
    return inner_->exchange(send, receive, patience, missing);
  }
  std::unique_ptr<Flow> flow(std::span<const Bytes> receive) override {
    auto flow = inner_->flow(receive);
    if (!flow || !flows_)
      return nullptr;
    return std::make_unique<SlowFlow>(std::move(flow), rng_.stream(rng_.below(1 << 30)));
  }
  void end_all(int code) noexcept override {
    inner_->end_all(code);
  }

 private:
  std::shared_ptr<Transport> inner_;
  Rng rng_;
  bool flows_;
};

void resume(const std::string& folder, const Share& l, Index stop_after = 0) {
  as_threads(l.ranks, [&](Comm& comm) {
    const auto backend = make_backend(device);
    Stopper observer(stop_after, comm.rank() == comm.size() - 1);
    if (const auto run = resume_run(folder, {}, context_of(*backend, comm, l.options), observer))
      train(*run, observer);
  });
}

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// Lines of metrics.jsonl with numbers in full, without times and what is said of ranks.
std::string without_times(const std::string& lines) {
  std::istringstream in(lines);
  std::string line, out;
  while (std::getline(in, line)) {
    auto j = nlohmann::ordered_json::parse(line);
    j.erase("tokens_per_second");
    j.erase("ranks");
    out += j.dump() + "\n";
  }
  return out;
}

// Every byte of a run that may not depend on ranks, by name of the file; the run is gone then, so
// that the next one has the same paths in it.
std::map<std::string, std::string> bytes_of_run(const std::string& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = fs::relative(entry.path(), folder).string();
    if (entry.is_regular_file() && name.starts_with("checkpoint-"))
      out[name] = bytes_of(entry.path());
  }
  out["metrics.jsonl"] = without_times(bytes_of(folder + "/metrics.jsonl"));
  out["trace"] = bytes_of(folder + ".moetrace.h5");
  fs::remove_all(folder);
  fs::remove(folder + ".moetrace.h5");
  return out;
}

void check_equal(const std::map<std::string, std::string>& whole,
                 const std::map<std::string, std::string>& other) {
  REQUIRE(whole.size() == other.size());
  CHECK(whole.size() >= 7);
  CHECK(!whole.at("trace").empty());
  for (const auto& [name, bytes] : whole) {
    INFO(name);
    REQUIRE(other.contains(name));
    CHECK((other.at(name) == bytes));
  }
}

struct OneThreadHere {
  OneThreadHere() : before(threads()) {
    set_threads(1);
  }
  ~OneThreadHere() {
    set_threads(before);
  }
  int before;
};

constexpr const char* usual = "experts=4,router={sigmoid:k=2,bias=1},balance=bias";

}  // namespace

TEST_CASE("every number of ranks up to that of lanes writes the same bytes") {
  const OneThreadHere one;
  const test::Scratch scratch;
  const std::string folder = scratch / "run";
  start(model_with(usual), options_of(folder, 4, 4), {1});
  const auto whole = bytes_of_run(folder);
  for (const Share& l :
       {Share{2, {}}, Share{3, {}}, Share{4, {}}, Share{4, {.zero = 1}},
        Share{2, {.expert_ranks = 2}}, Share{4, {.expert_ranks = 2}}, Share{4, {.expert_ranks = 4}},
        Share{3, {.expert_ranks = 3}}, Share{4, {.zero = 1, .expert_ranks = 2}},
        Share{4, {.zero = 2}}, Share{3, {.zero = 3}}, Share{4, {.zero = 3, .expert_ranks = 2}},
        Share{4, {.expert_ranks = 2, .move = Move::weights}},
        Share{4, {.zero = 3, .expert_ranks = 2, .move = Move::weights}}}) {
    INFO(name_of(l));
    start(model_with(usual), options_of(folder, 4, 4), l);
    check_equal(whole, bytes_of_run(folder));
  }
  device = "reference";
}

TEST_CASE("lanes of several micro-batches, of no power of two, write the same bytes") {
  const OneThreadHere one;
  const test::Scratch scratch;
  for (const auto& [lanes, accumulate, ranks] :
       {std::array<Index, 3>{3, 6, 2}, {6, 6, 4}, {5, 5, 4}, {2, 6, 2}}) {
    INFO(lanes << " lanes of " << accumulate << " micro-batches on " << ranks << " ranks");
    const RunOptions o = options_of(scratch / "run", lanes, accumulate);
    start(model_with(usual), o, {1});
    const auto whole = bytes_of_run(o.folder);
    const int ep = ranks == 4 ? 2 : int(ranks);
    for (const RankOptions& options : {RankOptions{.zero = 1, .expert_ranks = ep},
                                       {.zero = 3},
                                       {.zero = 2, .expert_ranks = ep, .move = Move::weights}}) {
      INFO(name_of({int(ranks), options}));
      start(model_with(usual), o, {int(ranks), options});
      check_equal(whole, bytes_of_run(o.folder));
    }
  }
}

TEST_CASE("whatever routes and balances, two ranks write the bytes of one") {
  const OneThreadHere one;
  const test::Scratch scratch;
  const std::vector<std::string> kinds = {
      "experts=4,router={softmax:k=2,jitter=0.1},balance={switch:coef=0.01;z:coef=0.001}",
      "experts=4,router={softmax:k=2,bias=1,temperature=2..0.5},balance={quantile:ema=0.5}",
      "experts=5,router={softmax:k=1,norm=0},capacity={position:factor=1},balance=switch,shared_"
      "width=8",
      "experts=4,router={soft:slots=2},balance=none",
      "experts=4,router={noisy:k=2},balance={importance:coef=0.1;load:coef=0.1}"};
  const RunOptions o = options_of(scratch / "run", 2, 4);
  for (const std::string& kind : kinds) {
    INFO(kind);
    start(model_with(kind), o, {1});
    const auto whole = bytes_of_run(o.folder);
    for (const Share& l : {Share{2, {}}, Share{2, {.expert_ranks = 2}}, Share{2, {.zero = 3}},
                           Share{2, {.expert_ranks = 2, .move = Move::weights}}}) {
      INFO(name_of(l));
      start(model_with(kind), o, l);
      check_equal(whole, bytes_of_run(o.folder));
    }
  }
}

TEST_CASE("balance losses over a whole step count all lanes on any number of ranks") {
  const OneThreadHere one;
  const test::Scratch scratch;
  const std::string model = model_with(
      "experts=4,router={softmax:k=2},capacity={position:factor=1},balance={switch:coef=0.5,scope="
      "global,counts=post_drop;switch:coef=0.1,scope=global;z:coef=0.01}");
  // lanes, micro-batches, ranks, ep
  for (const auto& [lanes, accumulate, ranks, ep] :
       {std::array<Index, 4>{4, 4, 4, 4}, {3, 3, 2, 2}, {2, 6, 2, 1}, {3, 6, 2, 2}}) {
    INFO(lanes << " lanes of " << accumulate << " micro-batches on " << ranks << " ranks");
    const RunOptions o = options_of(scratch / "run", lanes, accumulate);
    start(model, o, {1});
    const auto whole = bytes_of_run(o.folder);
    for (const RankOptions& options : {RankOptions{.expert_ranks = int(ep)},
                                       {.zero = 3, .expert_ranks = int(ep)},
                                       {.expert_ranks = int(ep), .move = Move::weights}}) {
      INFO(name_of({int(ranks), options}));
      start(model, o, {int(ranks), options});
      check_equal(whole, bytes_of_run(o.folder));
    }
  }
}

TEST_CASE("a run goes on with another number of ranks as if nothing had happened") {
  const OneThreadHere one;
  const test::Scratch scratch;
  const std::string folder = scratch / "run";
  start(model_with(usual), options_of(folder, 4, 4), {1});
  const auto whole = bytes_of_run(folder);
  for (const auto& [before, after] : {std::pair<Share, Share>{{2}, {1}},
                                      {{1}, {4}},
                                      {{4, {.zero = 1}}, {3, {.expert_ranks = 3}}},
                                      {{2, {.expert_ranks = 2}}, {4, {.zero = 1}}},
                                      {{3, {.zero = 3}}, {2, {.zero = 2}}}}) {
    INFO(name_of(before) << " and then " << name_of(after));
    start(model_with(usual), options_of(folder, 4, 4), before, 2);
    CHECK(!fs::exists(fs::path(folder) / "checkpoint-00000004"));
    resume(folder, after);
    check_equal(whole, bytes_of_run(folder));
  }
}

TEST_CASE("an owner without a row, experts of unequal number, and some that do not train") {
  const OneThreadHere one;
  const test::Scratch scratch;
  // all tokens go to expert 0 of 5, so that two of three owners get no row
  const std::string model = model_with("experts=5,router={synthetic_load:k=1,hot=1},balance=none");
  for (const std::string trained : {"all", "experts=1,3;norms", "norms"}) {
    INFO(trained);
    std::map<std::string, std::string> whole;
    for (const Share& l :
         {Share{1, {}}, Share{3, {.expert_ranks = 3}}, Share{3, {.zero = 1, .expert_ranks = 3}},
          Share{3, {.zero = 3}}, Share{3, {.expert_ranks = 3, .move = Move::weights}}}) {
      INFO(name_of(l));
      RunOptions o = options_of(scratch / "run", 3, 3);
      o.train.trained = trained;
      start(model, o, l);
      if (whole.empty())
        whole = bytes_of_run(o.folder);
      else
        check_equal(whole, bytes_of_run(o.folder));
    }
  }
}

TEST_CASE("of weights of experts that no token chose none is sent, and the run says so") {
  const OneThreadHere one;
  const test::Scratch scratch;
  const auto brought = [&](const std::string& experts) {
    RunOptions o = options_of(scratch / "run", 2, 2);
    o.trace.clear();
    start(model_with(experts), o, {2, {.zero = 3}});
    std::istringstream lines(bytes_of(o.folder + "/metrics.jsonl"));
    double last = 0;
    for (std::string line; std::getline(lines, line);) {
      const auto j = nlohmann::json::parse(line);
      if (j.contains("ranks"))
        last = j.at("ranks").at("experts_brought").get<double>();
    }
    fs::remove_all(o.folder);
    return last;
  };
  const double hot = brought("experts=5,router={synthetic_load:k=1,hot=1},balance=none");
  CHECK(hot <= 0.2);  // one of five
  CHECK(hot > 0.1);
  CHECK(brought("experts=4,router={soft:slots=2},balance=none") > 0.9);
}

TEST_CASE("what a rank holds grows less with every share, and what crosses is what is fewer") {
  const ModelConfig config = model_config("small:experts=16");
  const TrainOptions t{.sequences = 2, .length = 128, .accumulate = 4, .lanes = 4};
  double before = step_memory(config, t, {}, 4).all();
  for (const int zero : {1, 2, 3}) {
    const double now = step_memory(config, t, {.zero = zero}, 4).all();
    INFO("zero " << zero);
    CHECK(now < before);
    before = now;
  }
  CHECK(step_memory(config, t, {.expert_ranks = 4}, 4).weights <
        step_memory(config, t, {}, 4).weights);
  const auto backend = make_backend("reference");
  const auto cheaper = [&](int width, Index length) {
    Decoder<float> model(
        model_config(concat("custom:vocabulary=40,hidden=16,layers=1,heads=2,kv_heads=1,experts=4,"
                            "context=512,router={softmax:k=2},balance=none,width=",
                            width)),
        *backend);
    const TrainOptions o{.sequences = 1, .length = length, .accumulate = 2, .lanes = 2};
    return move_cost(*model.moe_layers()[0], o, 2).cheaper();
  };
  // rows of an expert in a micro-batch against 9/4 of its width
  CHECK(cheaper(64, 256) == Move::tokens);   // 128 and 144
  CHECK(cheaper(64, 320) == Move::weights);  // 160
}

TEST_CASE("whoever comes late, the bytes are the same") {
  const OneThreadHere one;
  const test::Scratch scratch;
  RunOptions o = options_of(scratch / "run", 4, 4);
  o.train.steps = 2;
  start(model_with(usual), o, {1});
  const auto whole = bytes_of_run(o.folder);
  // 200 of them: MOE_SCHEDULES=200, as scripts/ranks.sh has it
  const char* asked = std::getenv("MOE_SCHEDULES");
  const std::uint64_t schedules = asked ? std::strtoull(asked, nullptr, 10) : 12;
  for (std::uint64_t seed = 0; seed < schedules; ++seed) {
    INFO("schedule " << seed);
    const Share l{4,
                  {.zero = int(seed % 4),
                   .expert_ranks = seed % 3 == 0 ? 4 : 2,
                   .move = seed % 2 == 0 ? Move::tokens : Move::weights}};
    start(model_with(usual), o, l, 0, [seed](std::shared_ptr<Transport> t) {
      return std::make_shared<Slow>(std::move(t), seed, seed % 4 != 3);
    });
    check_equal(whole, bytes_of_run(o.folder));
  }
}

TEST_CASE("more ranks than lanes, and micro-batches that lanes cannot share, are refused") {
  const OneThreadHere one;
  const test::Scratch scratch;
  const auto sentence = [&](Index lanes, Index accumulate, int ranks, int ep = 1, int zero = 0) {
    const std::string folder = scratch / "refused";
    try {
      RunOptions o = options_of(folder, lanes, accumulate);
      o.train.noise_scale = zero == 2;
      start(model_with(usual), o, {ranks, {.zero = zero, .expert_ranks = ep}});
    } catch (const Error& e) {
      CHECK(e.code() == Exit::usage);
      CHECK(!fs::exists(folder));
      return std::string(e.what());
    }
    return std::string("not refused");
  };
  CHECK_THAT(sentence(2, 2, 3), Catch::Contains("this run has 2 lanes"));
  CHECK_THAT(sentence(1, 2, 2), Catch::Contains("this run has 1 lane,"));
  CHECK_THAT(sentence(2, 3, 2), Catch::Contains("cannot be shared by 2 lanes"));
  CHECK_THAT(sentence(4, 4, 4, 3), Catch::Contains("--ep must divide their number"));
  CHECK_THAT(sentence(6, 6, 6, 6),
             Catch::Contains("--ep 6 is more ranks than a layer has experts, 4"));
  CHECK_THAT(sentence(2, 2, 2, 1, 4), Catch::Contains("--zero 4 is not 0, 1, 2 or 3"));
  CHECK_THAT(sentence(2, 2, 2, 1, 2), Catch::Contains("--zero 2 nobody holds them"));
}

TEST_CASE("a loss that is not finite on one rank ends all, and the checkpoint stays") {
  const OneThreadHere one;
  const test::Scratch scratch;
  RunOptions o = options_of(scratch / "nan", 2, 2);
  o.train.lr = 1e30;
  o.train.clip = 0;
  o.save_every = 1;
  try {
    start(model_with(usual), o, {2});
    FAIL("a learning rate of 1e30 passed");
  } catch (const Error& e) {
    CHECK(e.code() == Exit::numeric);
    CHECK_THAT(e.safe(), Catch::Contains("is kept in"));
  }
  CHECK(fs::exists(scratch / "nan/checkpoint-00000000/MANIFEST.json"));
}
