// A run that is profiled: the parts of a step add up to what it took, no other byte changes, and
// the file of spans is what Perfetto reads.
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lib/checkpoint/folder.h"
#include "lib/comm/threads.h"
#include "lib/core/error.h"
#include "lib/core/profile.h"
#include "lib/run/start_run.h"
#include "tests/files/scratch.h"

using namespace moe;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// Paths of files that go away.
class Scratch {
 public:
  std::string operator/(const std::string& name) const {
    return (folder_ / name).string();
  }

 private:
  test::Scratch folder_;
};

class Listener final : public TrainingObserver {
 public:
  explicit Listener(Index stop_after = 0) : stop_after_(stop_after) {}
  void note(const std::string& s) override {
    if (s.find("profile") != s.npos)
      notes.push_back(s);
  }
  void stepped(const StepReport& r) override {
    done_ = r.result.step;
  }
  bool wants_stop() override {
    return stop_after_ > 0 && done_ >= stop_after_;
  }
  std::vector<std::string> notes;

 private:
  Index stop_after_, done_ = 0;
};

RunOptions options_of(const std::string& folder) {
  RunOptions o;
  o.data = {"clusters:vocabulary=64,clusters=4,valid=200"};
  o.folder = folder;
  o.train.steps = 6;
  o.train.sequences = 3;
  o.train.accumulate = 2;
  o.train.seed = 7;
  o.save_every = 3;
  o.keep = 9;
  o.eval_every = 3;
  o.eval_tokens = 96;
  o.log_every = 2;
  return o;
}

const char* model =
    "custom:vocabulary=320,hidden=16,layers=3,heads=2,kv_heads=1,width=12,experts=4,context=12,"
    "router={softmax:k=2},balance=switch,shared_width=8,dense_layers=1,dense_width=20";

RunContext on(Backend<float>& backend, const ProfileOptions& profile, Comm* comm = nullptr) {
  return {[&backend](const std::string&) -> Backend<float>& { return backend; },
          {.version = "0.0.0 (test)", .command = "test", .created_utc = "2020-01-01T00:00:00Z"},
          comm,
          {},
          profile};
}

void run(const RunOptions& o, const ProfileOptions& profile, Listener& listener) {
  const auto backend = make_backend("reference");
  train(*start_run(model_config(model), o, on(*backend, profile), listener), listener);
}

std::string text_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  REQUIRE(!text.str().empty());
  return text.str();
}

std::vector<json> lines_of(const std::string& folder) {
  std::istringstream in(text_of(folder + "/metrics.jsonl"));
  std::vector<json> out;
  for (std::string line; std::getline(in, line);)
    out.push_back(json::parse(line));
  return out;
}

struct Span {
  double begin, end;
  std::string name, part;
};

// Complete events by track, in the order of the file.
std::map<int, std::vector<Span>> tracks_of(const json& file) {
  std::map<int, std::vector<Span>> out;
  for (const json& e : file.at("traceEvents")) {
    if (e.at("ph") == "M") {
      CHECK(e.at("args").at("name").is_string());
      continue;
    }
    CHECK(e.at("ph") == "X");
    CHECK(e.at("pid") == 0);
    const double begin = e.at("ts");
    out[e.at("tid")].push_back(
        {begin, begin + e.at("dur").get<double>(), e.at("name"), e.at("cat")});
  }
  return out;
}

// Whether each span lies wholly inside those that are open where it begins, as viewers demand.
bool nests(const std::vector<Span>& track) {
  constexpr double rounding = 1e-6;  // microseconds
  std::vector<const Span*> open;
  for (const Span& s : track) {
    while (!open.empty() && open.back()->end <= s.begin + rounding)
      open.pop_back();
    if (!open.empty() && s.end > open.back()->end + rounding)
      return false;
    open.push_back(&s);
  }
  return true;
}

}  // namespace

TEST_CASE("a profiled run says where a step's time went, and computes the same bytes") {
  const Scratch scratch;
  Listener listener;
  run(options_of(scratch / "plain"), {}, listener);
  const auto began = std::chrono::steady_clock::now();
  run(options_of(scratch / "timed"), {.split = true}, listener);
  const double wall =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  CHECK(listener.notes.empty());

  std::vector<json> plain = lines_of(scratch / "plain");
  std::vector<json> timed = lines_of(scratch / "timed");
  REQUIRE(plain.size() == timed.size());
  double seconds = 0;
  std::vector<int> steps;
  for (std::size_t i = 0; i < timed.size(); ++i) {
    CHECK(!plain[i].contains("profile"));
    CHECK(timed[i].contains("profile") == timed[i].contains("lr"));
    if (timed[i].contains("profile")) {
      const json split = timed[i]["profile"];
      double sum = 0;
      for (const auto& [part, value] : split.items())
        sum += part == "steps" || part == "seconds" ? 0.0 : value.get<double>();
      CHECK(sum == Approx(split.at("seconds").get<double>()).epsilon(1e-9));
      for (const char* part : {"routing", "plan", "exchange", "products", "mixer", "output",
                               "optimiser", "data", "rest"})
        CHECK(split.at(part).get<double>() > 0);
      CHECK(split.at("ranks") == 0);
      seconds += split.at("seconds").get<double>() * split.at("steps").get<double>();
      steps.push_back(split.at("steps"));
    }
    timed[i].erase("profile");
    for (json* line : {&plain[i], &timed[i]})
      line->erase("tokens_per_second");
    CHECK(plain[i] == timed[i]);
  }
  CHECK(steps == std::vector<int>{1, 1, 2, 2});  // lines of the steps 1, 2, 4, 6
  CHECK(seconds > 0);
  CHECK(seconds < wall);
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "state.json"}) {
    INFO(file);
    CHECK(text_of(scratch / ("plain/" + checkpoint_name(6) + "/" + file)) ==
          text_of(scratch / ("timed/" + checkpoint_name(6) + "/" + file)));
  }
}

TEST_CASE("a run's spans are a trace of nested events, of the steps that were asked for") {
  const Scratch scratch;
  Listener listener;
  RunOptions o = options_of(scratch / "run");
  run(o, {.trace = scratch / "out.json", .first = 3, .last = 4}, listener);
  REQUIRE(listener.notes.size() == 1);
  const json file = json::parse(text_of(scratch / "out.json"));
  const auto tracks = tracks_of(file);
  REQUIRE(tracks.size() == 1);  // the reference computes on one thread
  const std::vector<Span>& spans = tracks.begin()->second;
  CHECK(nests(spans));
  std::map<std::string, int> count;
  std::map<std::string, std::string> part;
  for (const Span& s : spans) {
    ++count[s.name];
    part[s.name] = s.part;
    CHECK(s.end >= s.begin);
  }
  CHECK(count["step 3"] == 1);
  CHECK(count["step 4"] == 1);
  CHECK(count["step 2"] == 0);
  CHECK(count["step 5"] == 0);
  CHECK(count["micro-batch 0"] == 2);
  CHECK(count["micro-batch 1"] == 2);
  // two steps of two micro-batches; layers 1 and 2 of 3 have experts
  CHECK(count["layer 2"] == 4);
  CHECK(count["route"] == 8);
  CHECK(count["experts"] == 8);
  CHECK(count["experts backward"] == 8);
  CHECK(count["mixer"] == 12);
  CHECK(part["plan"] == "plan");
  CHECK(part["route"] == "routing");
  CHECK(part["layer 2"] == "rest");
  CHECK(part["update"] == "optimiser");
  for (const json& line : lines_of(scratch / "run"))
    CHECK(!line.contains("profile"));
}

TEST_CASE("spans of a run that stops early are written, and a resumed run counts its own steps") {
  const Scratch scratch;
  RunOptions o = options_of(scratch / "run");
  Listener stopper(3);
  run(o, {.trace = scratch / "first.json", .first = 2, .last = 5}, stopper);
  const auto steps_in = [](const std::string& path) {
    std::vector<std::string> out;
    const auto tracks = tracks_of(json::parse(text_of(path)));
    for (const Span& span : tracks.at(0)) {
      if (span.name.starts_with("step "))
        out.push_back(span.name);
    }
    return out;
  };
  CHECK(steps_in(scratch / "first.json") == std::vector<std::string>{"step 2", "step 3"});
  const auto backend = make_backend("reference");
  Listener listener;
  const auto refused = [&](ProfileOptions p) {
    return [&, p] {
      resume_run(o.folder, {}, on(*backend, p), listener);
    };
  };
  CHECK_THROWS_WITH(refused({.trace = scratch / "b.json", .first = 3, .last = 3})(),
                    "the steps 3 to 3 cannot be profiled: this run makes the steps 4 to 6");
  CHECK_THROWS_WITH(refused({.trace = scratch / "b.json", .first = 5, .last = 7})(),
                    "the steps 5 to 7 cannot be profiled: this run makes the steps 4 to 6");
  CHECK_THROWS_AS(refused({.trace = scratch / "first.json"})(), Error);
  CHECK_THROWS_AS(refused({.trace = scratch / "no-folder/b.json"})(), Error);
  // those of this process without its first
  train(*resume_run(o.folder, {}, on(*backend, {.trace = scratch / "b.json"}), listener), listener);
  CHECK(steps_in(scratch / "b.json") == std::vector<std::string>{"step 5", "step 6"});
}

TEST_CASE("of several ranks the first one writes its profile and says so") {
  const Scratch scratch;
  RunOptions o = options_of(scratch / "two");
  o.train.lanes = 2;
  const auto with_ranks = [&](const std::string& folder, const ProfileOptions& profile) {
    o.folder = folder;
    std::vector<std::string> notes;
    as_threads(2, [&](Comm& comm) {
      const auto backend = make_backend("reference");
      Listener listener;
      RunContext context = on(*backend, profile, &comm);
      context.ranks.expert_ranks = 2;
      train(*start_run(model_config(model), o, context, listener), listener);
      if (comm.first())
        notes = listener.notes;
    });
    return notes;
  };
  CHECK(with_ranks(scratch / "plain", {}).empty());
  const auto notes = with_ranks(scratch / "timed", {.split = true, .trace = scratch / "r.json"});
  REQUIRE(notes.size() == 2);
  CHECK(notes[0] == "the profile is that of rank 0 of 2: what it computes and what it waits for");
  CHECK(nests(tracks_of(json::parse(text_of(scratch / "r.json"))).at(0)));
  for (const json& line : lines_of(scratch / "timed")) {
    if (!line.contains("profile"))
      continue;
    CHECK(line["profile"].at("ranks").get<double>() > 0);
    CHECK(line["profile"].at("exchange").get<double>() > 0);
    CHECK(line["profile"].at("products").get<double>() > 0);
  }
  CHECK(text_of(scratch / ("plain/" + checkpoint_name(6) + "/model.safetensors")) ==
        text_of(scratch / ("timed/" + checkpoint_name(6) + "/model.safetensors")));
}
