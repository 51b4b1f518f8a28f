// Several ranks compute the bytes of one: checkpoints, moments, states, metrics and traces of whole
// runs, for every number of ranks up to that of lanes, however the ranks share what they hold, and
// wherever a run is stopped and goes on with another number.
#include <array>
#include <cmath>
#include <cstdlib>

#include "lib/checkpoint/safetensors.h"
#include "lib/core/error.h"
#include "lib/run/same_on_ranks.h"
#include "lib/run/step_memory.h"
#include "tests/training/rank_runs.h"

using namespace moe;
using namespace moe::test;

TEST_CASE("every number of ranks up to that of lanes writes the same bytes") {
  const OneThreadHere one;
  const Scratch scratch;
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
}

namespace {

struct OnDevice {
  explicit OnDevice(const std::string& other) {
    device = other;
  }
  ~OnDevice() {
    device = "reference";
  }
};

}  // namespace

// Passes of up to 16 tokens that leave nothing for a backward pass have products of their own.
TEST_CASE("experts of another rank compute few tokens as those at home do") {
  const OneThreadHere one;
  const Scratch scratch;
  const std::string model =
      "custom:vocabulary=320,hidden=48,layers=2,heads=2,kv_heads=1,width=72,context=24," +
      std::string(usual);
  for (const std::string name : {"cpu", "cpu:dtype=bf16"}) {
    const OnDevice on(name);
    RunOptions o = options_of(scratch / "run", 2, 2);
    o.train.sequences = 1;
    for (const Index length : {1, 16, 24}) {
      INFO(name << ", sequences of " << length << " tokens");
      o.length = length;
      o.eval_tokens = 5 * length;
      start(model, o, {1});
      const auto whole = bytes_of_run(o.folder);
      for (const Share& l : {Share{2, {.expert_ranks = 2}}, Share{2, {.zero = 3}},
                             Share{2, {.expert_ranks = 2, .move = Move::weights}}}) {
        INFO(name_of(l));
        start(model, o, l);
        check_equal(whole, bytes_of_run(o.folder));
      }
    }
  }
}

TEST_CASE("lanes of several micro-batches, of no power of two, write the same bytes") {
  const OneThreadHere one;
  const Scratch scratch;
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
  const Scratch scratch;
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
  const Scratch scratch;
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
  const Scratch scratch;
  const std::string folder = scratch / "run";
  RunOptions o = options_of(folder, 4, 4);
  o.save_every = 1;
  start(model_with(usual), o, {1});
  const auto whole = bytes_of_run(folder);
  const std::vector<std::pair<Share, Share>> pairs = {{{2}, {1}},
                                                      {{1}, {4}},
                                                      {{4, {.zero = 1}}, {3, {.expert_ranks = 3}}},
                                                      {{2, {.expert_ranks = 2}}, {4, {.zero = 1}}},
                                                      {{3, {.zero = 3}}, {2, {.zero = 2}}}};
  for (Index point = 0; point < 10; ++point) {
    const auto& [before, after] = pairs[std::size_t(point % 5)];
    const Index step = 1 + point % 3;
    INFO(name_of(before) << " and from step " << step << " on " << name_of(after));
    start(model_with(usual), o, before, step);
    CHECK(!fs::exists(fs::path(folder) / "checkpoint-00000004"));
    resume(folder, after);
    check_equal(whole, bytes_of_run(folder));
  }
}

namespace {

// Of one step: with beta1 = 0 its first moments are its gradients, and nothing is clipped.
struct OneStep {
  std::map<std::string, std::vector<float>> gradient;
  std::vector<double> norm, loss;  // as each rank has them

  double root_of_squares() const {
    double sum = 0;
    for (const auto& [name, numbers] : gradient) {
      for (const float g : numbers)
        sum += double(g) * double(g);
    }
    return std::sqrt(sum);
  }
};

class Seen final : public TrainingObserver {
 public:
  Seen(double& norm, double& loss) : norm_(norm), loss_(loss) {}
  void stepped(const StepReport& r) override {
    norm_ = r.result.gradient_norm;
    loss_ = r.result.total_loss;
  }

 private:
  double &norm_, &loss_;
};

OneStep one_step(const Scratch& scratch, const std::string& model, Index lanes, const Share& l) {
  RunOptions o = options_of(scratch / "run", lanes, 4);
  o.trace.clear();
  o.train.steps = 1;
  o.train.beta1 = 0;
  o.train.clip = 0;
  OneStep out{.gradient = {},
              .norm = std::vector<double>(std::size_t(l.ranks)),
              .loss = std::vector<double>(std::size_t(l.ranks))};
  as_threads(l.ranks, [&](Comm& comm) {
    const auto backend = make_backend(device);
    Seen observer(out.norm[std::size_t(comm.rank())], out.loss[std::size_t(comm.rank())]);
    train(*start_run(model_config(model), o, context_of(*backend, comm, l.options), observer),
          observer);
  });
  const Tensors moments(fs::path(o.folder) / "checkpoint-00000001/optimizer.safetensors");
  for (const TensorInfo& t : moments.list()) {
    if (!t.name.ends_with(".m"))
      continue;
    const Matrix<float> numbers = moments.get(t.name).to_float();
    out.gradient[t.name].assign(numbers.flat().begin(), numbers.flat().end());
  }
  fs::remove_all(o.folder);
  return out;
}

double largest_difference(const OneStep& a, const OneStep& b) {
  double out = 0;
  for (const auto& [name, numbers] : a.gradient) {
    const std::vector<float>& others = b.gradient.at(name);
    for (std::size_t i = 0; i < numbers.size(); ++i)
      out = std::max(out, std::abs(double(numbers[i]) - double(others[i])));
  }
  return out;
}

}  // namespace

TEST_CASE("gradients of every parameter and their norm are those of one process") {
  const OneThreadHere one;
  const Scratch scratch;
  const std::string model = model_with(
      "experts=4,router={softmax:k=2},balance={switch:coef=0.01},shared_width=8,expert_bias=1");
  const OneStep plain = one_step(scratch, model, 1, {1});  // no lanes: other sums
  const OneStep whole = one_step(scratch, model, 4, {1});
  CHECK(plain.gradient.size() > 20);
  CHECK(largest_difference(plain, whole) < 1e-5 * whole.norm[0]);
  CHECK(whole.norm[0] == Approx(plain.norm[0]).epsilon(1e-6));
  CHECK(whole.norm[0] == Approx(whole.root_of_squares()).epsilon(1e-6));
  for (const Share& l : {Share{4, {}}, Share{4, {.expert_ranks = 4}}, Share{4, {.expert_ranks = 2}},
                         Share{4, {.zero = 3, .expert_ranks = 2}}, Share{2, {.zero = 1}},
                         Share{4, {.expert_ranks = 4, .send = Send::once}},
                         Share{4, {.expert_ranks = 4, .move = Move::weights}}}) {
    INFO(name_of(l));
    const OneStep ranks = one_step(scratch, model, 4, l);
    CHECK(ranks.gradient == whole.gradient);
    for (const double norm : ranks.norm)
      CHECK(norm == whole.norm[0]);  // every digit
    for (const double loss : ranks.loss)
      CHECK(loss == whole.loss[0]);
  }
}

TEST_CASE("micro-batches of one token that choose different experts") {
  const OneThreadHere one;
  const Scratch scratch;
  RunOptions o = options_of(scratch / "run", 4, 4);
  o.train.sequences = 1;
  o.length = 1;
  o.eval_tokens = 2;  // two batches: ranks without one
  const std::string model = model_with("experts=4,router={hash:k=1,fn=modulo},balance=none");
  start(model, o, {1});
  const auto whole = bytes_of_run(o.folder);
  for (const Share& l :
       {Share{4, {}}, Share{4, {.expert_ranks = 4}}, Share{4, {.zero = 3, .expert_ranks = 2}},
        Share{4, {.zero = 3}}, Share{4, {.expert_ranks = 4, .send = Send::once}},
        Share{4, {.expert_ranks = 4, .move = Move::weights}}}) {
    INFO(name_of(l));
    start(model, o, l);
    check_equal(whole, bytes_of_run(o.folder));
  }
}

TEST_CASE("an owner without a row, experts of unequal number, and some that do not train") {
  const OneThreadHere one;
  const Scratch scratch;
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
  const Scratch scratch;
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
  const Scratch scratch;
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
      return std::make_shared<Slow>(std::move(t), seed, seed % 5 != 3);
    });
    check_equal(whole, bytes_of_run(o.folder));
  }
}

TEST_CASE("more ranks than lanes, and micro-batches that lanes cannot share, are refused") {
  const OneThreadHere one;
  const Scratch scratch;
  std::string model = usual;
  const auto sentence = [&](Index lanes, Index accumulate, int ranks, int ep = 1, int zero = 0) {
    const std::string folder = scratch / "refused";
    try {
      RunOptions o = options_of(folder, lanes, accumulate);
      o.train.noise_scale = zero == 2;
      if (model != usual)
        o.trace.clear();  // there is no routing
      start(model_with(model), o, {ranks, {.zero = zero, .expert_ranks = ep}});
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
  model = "dense=1";
  CHECK_THAT(sentence(2, 2, 2, 2),
             Catch::Contains("--ep 2 shares experts out, and this model has none"));
}

TEST_CASE("a loss that is not finite on one rank ends all, and the checkpoint stays") {
  const OneThreadHere one;
  const Scratch scratch;
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

namespace {

// Each rank with options of its own.
std::string refused(const std::string& folder,
                    const std::function<void(RunOptions&, RankOptions&)>& of_last) {
  try {
    as_threads(3, [&](Comm& comm) {
      const auto backend = make_backend(device);
      RunOptions o = options_of(folder, 3, 3);
      RankOptions share;
      if (comm.rank() == 2)
        of_last(o, share);
      Stopper observer(0, false);
      train(*start_run(model_config(model_with(usual)), o, context_of(*backend, comm, share),
                       observer),
            observer);
    });
  } catch (const Error& e) {
    CHECK(e.code() == Exit::environment);
    CHECK(!fs::exists(folder));
    return e.what();
  }
  return "not refused";
}

}  // namespace

TEST_CASE("a rank that was told or reads something else is refused before anything is made") {
  const OneThreadHere one;
  const Scratch scratch;
  const std::string folder = scratch / "run";
  using namespace std::string_literals;
  CHECK_THAT(refused(folder, [](RunOptions& o, RankOptions&) { o.train.seed = 8; }),
             Catch::Contains("train.seed is 7 on rank 0 and 8 on rank 2"));
  CHECK_THAT(refused(folder, [](RunOptions& o, RankOptions&) { o.train.lr = 0.25; }),
             Catch::Contains("train.lr is 0.005 on rank 0 and 0.25 on rank 2"));
  CHECK_THAT(refused(folder, [](RunOptions& o, RankOptions&) { o.train.accumulate = 6; }),
             Catch::Contains("train.accumulate is 3 on rank 0 and 6 on rank 2"));
  CHECK_THAT(refused(folder, [](RunOptions& o, RankOptions&) { o.trace.clear(); }),
             Catch::Contains("trace"));
  CHECK_THAT(refused(folder, [](RunOptions&, RankOptions& share) { share.zero = 1; }),
             Catch::Contains("ranks.zero is 0 on rank 0 and 1 on rank 2"));
  as_threads(2, [&](Comm& comm) {
    const Json facts = {{"same", 1}, {"data", Json::array({{{"train_tokens", 7 + comm.rank()}}})}};
    CHECK_THROWS_WITH(require_same_on_ranks(comm, About{"facts"}, facts),
                      Catch::Contains("data.0.train_tokens is 7 on rank 0 and 8 on rank 1"));
    require_same_on_ranks(comm, About{"facts"}, {{"text", "\xff\"\n"s}});
  });
}

// The horizon is that of the newest checkpoint, also where the trace has rows of an older one only.
TEST_CASE("ranks go on from an older checkpoint with one horizon") {
  const OneThreadHere one;
  const Scratch scratch;
  const RunOptions o = [&] {
    RunOptions made = options_of(scratch / "run", 2, 2);
    made.save_every = 1;
    return made;
  }();
  const auto go_on = [&](int ranks, Index horizon, Index stop_after) {
    as_threads(ranks, [&](Comm& comm) {
      const auto backend = make_backend(device);
      Stopper observer(stop_after, comm.first());
      const auto run =
          resume_run(o.folder, {.horizon = horizon}, context_of(*backend, comm, {}), observer);
      CHECK(run->horizon() == 6);
      train(*run, observer);
    });
  };
  std::map<std::string, std::string> whole;
  for (const int ranks : {1, 2}) {
    INFO(ranks << " ranks");
    start(model_with(usual), o, {1}, 2);
    std::map<std::string, std::string> part;
    for (const std::string end : {".part", ".part.journal"})
      part[o.trace + end] = bytes_of(o.trace + end);
    go_on(1, 6, 3);
    for (const auto& [name, bytes] : part)
      std::ofstream(name, std::ios::binary) << bytes;
    go_on(ranks, -1, 0);
    CHECK(fs::exists(fs::path(o.folder) / "checkpoint-00000006"));
    if (whole.empty())
      whole = bytes_of_run(o.folder);
    else
      check_equal(whole, bytes_of_run(o.folder));
  }
}

TEST_CASE("ranks of one host share its memory") {
  const auto backend = make_backend(device);
  Solo comm;
  RunContext context = context_of(*backend, comm, {});
  const ModelConfig config = model_config(model_with(usual));
  CHECK_NOTHROW(refuse_size(config, {}, context, 0));
  context.ranks_here = 1'000'000'000;
  try {
    refuse_size(config, {}, context, 0);
    FAIL("a thousand million ranks fit into this machine");
  } catch (const Error& e) {
    CHECK(e.code() == Exit::memory);
    CHECK_THAT(e.what(), Catch::Contains("for each of 1000000000 ranks"));
    CHECK_THAT(e.hint(), Catch::Contains("--zero"));
  }
}
