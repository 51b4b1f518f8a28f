// A whole run as a library: what the observer hears, the losses that come back, two runs in one
// process, a stopped and resumed run that ends with the same bytes, and what is left after an
// error.
#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lib/core/error.h"
#include "lib/run/start_run.h"
#include "lib/trace/reader.h"
#include "tests/files/scratch.h"

using namespace moe;
namespace fs = std::filesystem;

namespace {

// Writes down all it hears; asks to stop after step `stop_after` (0 = never).
class Witness final : public TrainingObserver {
 public:
  explicit Witness(Index stop_after = 0) : stop_after_(stop_after) {}
  void note(const std::string& s) override {
    notes.push_back(s);
  }
  void warning(const std::string& s) override {
    warnings.push_back(s);
  }
  void started(Index done, Index horizon) override {
    starts.emplace_back(done, horizon);
  }
  void stepped(const StepReport& r) override {
    steps.push_back(r.result.step);
    if (r.logged)
      logged.push_back(r.result.step);
    CHECK(r.tokens_per_second > 0);
  }
  void recorded(Index step, std::uint64_t rows) override {
    recorded_rows.emplace_back(step, rows);
  }
  void validated(Index step, const std::vector<DomainLoss>& losses) override {
    validations.push_back(step);
    CHECK(losses.size() == 1);
  }
  void saved(Index step, const fs::path& checkpoint) override {
    saves.push_back(step);
    CHECK(fs::exists(checkpoint / "model.safetensors"));
  }
  bool wants_stop() override {
    return stop_after_ > 0 && !steps.empty() && steps.back() >= stop_after_;
  }

  std::vector<std::string> notes, warnings;
  std::vector<std::pair<Index, Index>> starts;
  std::vector<Index> steps, logged, validations, saves;
  std::vector<std::pair<Index, std::uint64_t>> recorded_rows;

 private:
  Index stop_after_;
};

ModelConfig small() {
  return model_config(
      "custom:vocabulary=320,hidden=16,layers=2,heads=2,kv_heads=1,width=12,experts=4,context=12,"
      "router={sigmoid:k=2,bias=1},balance=bias");
}

RunOptions options_of(const std::string& folder) {
  RunOptions o;
  o.data = {"clusters:vocabulary=64,clusters=4,valid=200"};
  o.folder = folder;
  o.train.steps = 6;
  o.train.sequences = 3;
  o.train.accumulate = 2;
  o.train.lr = 5e-3;
  o.train.seed = 7;
  o.save_every = 2;
  o.keep = 9;
  o.eval_every = 3;
  o.eval_tokens = 96;
  o.log_every = 1;
  o.options = R"({"steps":"6"})";
  return o;
}

RunContext on(Backend<float>& backend) {
  return {[&backend](const std::string&) -> Backend<float>& { return backend; },
          {.version = "0.0.0 (test)", .command = "test", .created_utc = "2020-01-01T00:00:00Z"}};
}

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  REQUIRE(!text.str().empty());
  return text.str();
}

// Lines of metrics.jsonl without the speed, which is the clock's.
std::vector<nlohmann::json> metrics_of(const std::string& folder) {
  std::ifstream in(folder + "/metrics.jsonl");
  std::vector<nlohmann::json> out;
  std::string line;
  while (std::getline(in, line)) {
    out.push_back(nlohmann::json::parse(line));
    out.back().erase("tokens_per_second");
  }
  return out;
}
std::vector<double> numbers_of(const std::string& folder, const char* key) {
  std::vector<double> out;
  for (const auto& line : metrics_of(folder)) {
    if (line.contains(key))
      out.push_back(line[key]);
  }
  return out;
}

}  // namespace

TEST_CASE("several runs in one process give the losses of their logs, and an observer stops one") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  Witness first;
  const auto a = start_run(small(), options_of(folder / "a"), on(*backend), first);
  const TrainingResult whole = train(*a, first);
  CHECK(a->finished());
  CHECK_FALSE(whole.stopped);
  CHECK(whole.first_step == 1);
  CHECK(whole.losses.size() == 6);
  CHECK(whole.losses == numbers_of(folder / "a", "loss"));
  CHECK(whole.losses[0] > whole.losses[5]);
  std::vector<double> valid;
  for (const ValidationLoss& v : whole.validations)
    valid.push_back(mean_loss(v.domains));
  CHECK(valid == numbers_of(folder / "a", "valid_loss"));
  CHECK(whole.checkpoint == fs::path(folder / "a") / "checkpoint-00000006");

  // while that run is still held: another one, with other numbers
  RunOptions other = options_of(folder / "b");
  other.train.seed = 8;
  Witness second(2);
  const auto b = start_run(small(), other, on(*backend), second);
  const TrainingResult stopped = train(*b, second);
  CHECK(stopped.stopped);
  CHECK_FALSE(b->finished());
  CHECK(stopped.losses.size() == 2);
  CHECK(stopped.losses == numbers_of(folder / "b", "loss"));
  CHECK(stopped.losses[0] != whole.losses[0]);
  CHECK(stopped.checkpoint == fs::path(folder / "b") / "checkpoint-00000002");

  // the same run again has the same numbers, whoever observes
  TrainingObserver nobody;
  const auto c = start_run(small(), options_of(folder / "c"), on(*backend), nobody);
  CHECK(train(*c, nobody).losses == whole.losses);
}

TEST_CASE("the observer hears every step, checkpoint, validation and recording") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  RunOptions o = options_of(folder / "a");
  o.log_every = 4;
  o.trace = folder / "a.h5";
  o.trace_every = 2;
  Witness w;
  const auto run = start_run(small(), o, on(*backend), w);
  CHECK(w.starts.empty());
  train(*run, w);
  CHECK(w.starts == std::vector<std::pair<Index, Index>>{{0, 6}});
  CHECK(w.steps == std::vector<Index>{1, 2, 3, 4, 5, 6});
  CHECK(w.logged == std::vector<Index>{1, 4, 6});  // the first, every fourth, the last
  CHECK(w.validations == std::vector<Index>{3, 6});
  CHECK(w.saves == std::vector<Index>{0, 2, 4, 6});
  // two micro-batches of 3 x 12 tokens in every other step
  CHECK(w.recorded_rows == std::vector<std::pair<Index, std::uint64_t>>{
                               {1, 36}, {1, 72}, {3, 108}, {3, 144}, {5, 180}, {5, 216}});
  CHECK(w.notes.size() == 1);  // the entropy of the data
  CHECK(w.warnings.empty());
  const TraceReader trace(folder / "a.h5");
  CHECK(trace.tokens() == 216);
  CHECK(trace.header().command == "test");
  CHECK(trace.header().config == R"({"steps":"6"})");
  CHECK(trace.header().producer == "moe 0.0.0 (test)");
}

TEST_CASE("a run that was stopped and resumed is the run that was not") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  RunOptions o = options_of(folder / "whole");
  o.trace = folder / "whole.h5";
  TrainingObserver nobody;
  TrainingResult whole;
  {
    const auto run = start_run(small(), o, on(*backend), nobody);
    whole = train(*run, nobody);
  }
  o.folder = folder / "parts";
  o.trace = folder / "parts.h5";
  std::vector<double> losses;
  {
    Witness w(3);
    const auto run = start_run(small(), o, on(*backend), w);
    losses = train(*run, w).losses;
    CHECK(losses.size() == 3);
  }
  for (const Index stop_after : {4, 0}) {
    Witness w(stop_after);
    const auto run = resume_run(folder / "parts", {}, on(*backend), w);
    REQUIRE(run);
    const TrainingResult r = train(*run, w);
    CHECK(r.first_step == Index(losses.size()) + 1);
    CHECK(w.starts[0].first == Index(losses.size()));
    losses.insert(losses.end(), r.losses.begin(), r.losses.end());
  }
  CHECK(losses == whole.losses);
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "config.json"}) {
    INFO(file);
    const std::string name = std::string("/checkpoint-00000006/") + file;
    CHECK(bytes_of(folder / ("whole" + name)) == bytes_of(folder / ("parts" + name)));
  }
  CHECK(metrics_of(folder / "parts") == metrics_of(folder / "whole"));
  const TraceReader a(folder / "whole.h5");
  const TraceReader b(folder / "parts.h5");
  REQUIRE(a.tokens() == b.tokens());
  const TraceRows rows_a = a.read(0, a.tokens(), a.fields());
  const TraceRows rows_b = b.read(0, b.tokens(), b.fields());
  CHECK(rows_a.token_id == rows_b.token_id);
  for (std::size_t l = 0; l < 2; ++l) {
    CHECK(rows_a.layer[l].expert == rows_b.layer[l].expert);
    CHECK(rows_a.layer[l].entropy == rows_b.layer[l].entropy);
  }

  // and it has nothing left to do
  Witness w;
  CHECK(resume_run(folder / "parts", {}, on(*backend), w) == nullptr);
  CHECK(w.notes ==
        std::vector<std::string>{concat((folder / "parts").native(), " is done: step 6 of 6")});
}

TEST_CASE("a resumed run may have another horizon, and says so") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  TrainingObserver nobody;
  {
    const auto run = start_run(small(), options_of(folder / "a"), on(*backend), nobody);
    train(*run, nobody);
  }
  Witness w;
  const auto run = resume_run(folder / "a", {.horizon = 8}, on(*backend), w);
  REQUIRE(run);
  CHECK(w.warnings.size() == 1);
  CHECK(run->horizon() == 8);
  CHECK(train(*run, w).losses.size() == 2);
  CHECK(w.steps == std::vector<Index>{7, 8});
}

TEST_CASE("weights that are not finite are never saved, and the error names what is kept") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  RunOptions o = options_of(folder / "a");
  o.train.lr = 1e38;
  o.train.clip = 0;
  o.train.schedule = "constant:warmup=0";
  TrainingObserver nobody;
  const auto run = start_run(small(), o, on(*backend), nobody);
  try {
    train(*run, nobody);
    FAIL("it trained");
  } catch (const Error& e) {
    CHECK(e.code() == Exit::numeric);
    CHECK(e.safe() == concat("the checkpoint of step 0 is kept in ", (folder / "a").native()));
  }
  CHECK(checkpoint_steps(folder / "a") == std::vector<std::int64_t>{0});
}

TEST_CASE("a folder that is taken is refused and stays as it is") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  TrainingObserver nobody;
  const RunOptions o = options_of(folder / "a");
  auto held = start_run(small(), o, on(*backend), nobody);
  train(*held, nobody);
  const std::string before = bytes_of(folder / "a/metrics.jsonl");
  const auto refusal = [&](const auto& action) {
    try {
      action();
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(refusal([&] { start_run(small(), o, on(*backend), nobody); }) ==
        concat("the run '", (folder / "a").native(), "' exists"));
  // its lock is held as long as the run is
  RunOptions forced = o;
  forced.force = true;
  CHECK_FALSE(refusal([&] { start_run(small(), forced, on(*backend), nobody); }).empty());
  CHECK_FALSE(
      refusal([&] { resume_run(folder / "a", {.horizon = 9}, on(*backend), nobody); }).empty());
  CHECK(bytes_of(folder / "a/metrics.jsonl") == before);
  held.reset();
  const auto again = start_run(small(), forced, on(*backend), nobody);
  CHECK(train(*again, nobody).losses.size() == 6);

  // no device is opened for what is refused
  RunContext none = on(*backend);
  none.device = [](const std::string&) -> Backend<float>& {
    throw Error(Exit::environment, "opened");
  };
  CHECK(refusal([&] { resume_run(folder / "b", {}, none, nobody); }) ==
        concat("there is no run '", (folder / "b").native(), "'"));
  RunOptions valid = options_of(folder / "b");
  valid.data = {"zipf:split=valid"};
  CHECK(refusal([&] { start_run(small(), valid, none, nobody); }).starts_with("--data has split"));
  CHECK(refusal([&] { start_run(small(), options_of(folder / "b"), none, nobody); }) == "opened");
  CHECK_FALSE(fs::exists(folder / "b"));
}

TEST_CASE("checkpoints by the clock are written, and change nothing that is computed") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  const auto run = [&](const std::string& name, double minutes) {
    RunOptions o = options_of(folder / name);
    o.save_every = 0;
    o.save_minutes = minutes;
    Witness witness;
    const auto made = start_run(small(), o, on(*backend), witness);
    train(*made, witness);
    return witness.saves;
  };
  CHECK(run("never", 0) == std::vector<Index>{0, 6});
  CHECK(run("later", 1000) == std::vector<Index>{0, 6});
  CHECK(run("always", 1e-9) == std::vector<Index>{0, 1, 2, 3, 4, 5, 6});
  const std::string last = "/checkpoint-00000006/";
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    CHECK(bytes_of(folder / ("never" + last + file)) ==
          bytes_of(folder / ("always" + last + file)));
  CHECK(metrics_of(folder / "never") == metrics_of(folder / "always"));
}

TEST_CASE("another version of the program resumes a run only where that is accepted") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  Witness first(2);
  train(*start_run(small(), options_of(folder / "a"), on(*backend), first), first);
  RunContext context = on(*backend);
  const auto resumed = [&](const std::string& version, bool accept) {
    context.provenance.version = version;
    Witness witness;
    resume_run(folder / "a", {.accept_changed_version = accept}, context, witness);
    return witness.notes;
  };
  CHECK(resumed("0.0.0 (test)", false).empty());
  const auto notes = resumed("0.0.0 (another build)", false);
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].find("begun by moe 0.0.0 (test)") != std::string::npos);
  CHECK_THROWS_WITH(resumed("0.1.0 (test)", false),
                    Catch::Contains("was begun by moe 0.0.0 (test)"));
  CHECK(resumed("0.1.0 (test)", true).empty());
  CHECK(resumed("0.1.0 (test)", false).empty());  // run.json says so from now on
}

TEST_CASE("the defaults of a run are the documented ones") {
  const RunOptions o;
  CHECK(o.tokenizer == "bytes");
  CHECK(o.length == 0);
  CHECK(o.save_every == 500);
  CHECK(o.save_minutes == 10);
  CHECK(o.keep == 2);
  CHECK(o.eval_every == 500);
  CHECK(o.eval_tokens == 65536);
  CHECK(o.log_every == 10);
  CHECK(o.trace_every == 1);
  CHECK_FALSE(o.force);
  const RunState s = state_of(small(), o);
  CHECK(s.train.length == 12);  // the model's context
  CHECK(s.keep == 2);
  CHECK(s.eval_tokens == 65536);
}

TEST_CASE("a checkpoint keeps every field of a run's state") {
  const test::Scratch folder;
  const auto backend = make_backend("cpu");
  Decoder<float> model(small(), *backend);
  model.initialise(1);
  RunState s;
  s.step = 17;
  s.train = {.steps = 101,
             .sequences = 3,
             .length = 11,
             .accumulate = 4,
             .lr = 0.125,
             .beta1 = 0.5,
             .beta2 = 0.75,
             .eps = 1e-5,
             .decay = 0.25,
             .clip = 3,
             .schedule = "wsd:warmup=1,decay=0.5,floor=0.125",
             .trained = "router;experts=1,3",
             .lr_factor = "router=0.5",
             .seed = 99};
  s.model = to_spec(model.config());
  s.data = {"zipf", "clusters"};
  s.tokenizer = "bytes";
  s.device = "cpu:dtype=bf16";
  s.options = R"({"a":"b"})";
  s.trace = "/somewhere/t.h5";
  s.trace_every = 5;
  s.trace_rows = 1234;
  s.save_every = 6;
  s.save_minutes = 2.5;
  s.keep = 7;
  s.eval_every = 8;
  s.log_every = 9;
  s.eval_tokens = 10;
  s.steps_with_gradient = {{1, 2, 3, 4}, {5, 6, 7, 8}};
  const auto tokenizer = make_tokenizer("bytes");
  save_checkpoint(folder / "a", model, nullptr, s, tokenizer_files(*tokenizer, false));
  const LoadedModel loaded = load_model(folder / "a", *backend);
  REQUIRE(loaded.state);
  const RunState& r = *loaded.state;
  CHECK(r.step == 17);
  CHECK(r.train.steps == 101);
  CHECK(r.train.sequences == 3);
  CHECK(r.train.length == 11);
  CHECK(r.train.accumulate == 4);
  CHECK(r.train.lr == 0.125);
  CHECK(r.train.beta1 == 0.5);
  CHECK(r.train.beta2 == 0.75);
  CHECK(r.train.eps == 1e-5);
  CHECK(r.train.decay == 0.25);
  CHECK(r.train.clip == 3);
  CHECK(r.train.schedule == s.train.schedule);
  CHECK(r.train.trained == s.train.trained);
  CHECK(r.train.lr_factor == s.train.lr_factor);
  CHECK(r.train.seed == 99);
  CHECK(r.model == s.model);
  CHECK(r.data == s.data);
  CHECK(r.tokenizer == "bytes");
  CHECK(r.device == s.device);
  CHECK(r.options == s.options);
  CHECK(r.trace == s.trace);
  CHECK(r.trace_every == 5);
  CHECK(r.trace_rows == 1234);
  CHECK(r.save_every == 6);
  CHECK(r.save_minutes == 2.5);
  CHECK(r.keep == 7);
  CHECK(r.eval_every == 8);
  CHECK(r.log_every == 9);
  CHECK(r.eval_tokens == 10);
  CHECK(r.steps_with_gradient == s.steps_with_gradient);
  CHECK(has_tokenizer(loaded));
  CHECK(loaded.ends == std::vector<int>{tokenizer->boundary()});
}
