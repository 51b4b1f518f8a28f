// Whole runs on ranks that are threads, and every byte of them that may not depend on ranks.
#pragma once
#include <catch2/catch.hpp>
#include <chrono>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "lib/comm/threads.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/model/config.h"
#include "lib/run/start_run.h"
#include "tests/comm/slow.h"
#include "tests/files/scratch.h"

namespace moe::test {

namespace fs = std::filesystem;

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

inline std::string name_of(const Share& l) {
  return concat(l.ranks, " ranks, zero=", l.options.zero, ", ep=", l.options.expert_ranks,
                l.options.move == Move::weights ? ", weights move" : "",
                l.options.send == Send::rows   ? ""
                : l.options.send == Send::once ? ", once"
                                               : ", nodes");
}

inline RunContext context_of(Backend<float>& backend, Comm& comm, const RankOptions& ranks) {
  return {[&backend](const std::string&) -> Backend<float>& { return backend; },
          {.version = "0.0.0 (test)", .command = "test", .created_utc = "2020-01-01T00:00:00Z"},
          &comm,
          ranks};
}

inline RunOptions options_of(const std::string& folder, Index lanes, Index accumulate) {
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

inline std::string model_with(const std::string& rest) {
  return "custom:vocabulary=320,hidden=16,layers=2,heads=2,kv_heads=1,width=12,context=12," + rest;
}

// On `reference`, whose operations are single loops, where a test does not say `cpu`.
inline std::string device = "reference";

inline void start(const std::string& model, const RunOptions& o, const Share& l,
                  Index stop_after = 0, const Around& around = {}) {
  const auto rank = [&](Comm& comm) {
    const auto backend = make_backend(device);
    Stopper observer(stop_after, comm.rank() == comm.size() - 1);
    train(*start_run(model_config(model), o, context_of(*backend, comm, l.options), observer),
          observer);
  };
  as_threads(l.ranks, rank, Comm::default_patience, around);
}

inline void resume(const std::string& folder, const Share& l, Index stop_after = 0) {
  as_threads(l.ranks, [&](Comm& comm) {
    const auto backend = make_backend(device);
    Stopper observer(stop_after, comm.rank() == comm.size() - 1);
    if (const auto run = resume_run(folder, {}, context_of(*backend, comm, l.options), observer))
      train(*run, observer);
  });
}

inline std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// Lines of metrics.jsonl with numbers in full, without times and what is said of ranks.
inline std::string without_times(const std::string& lines) {
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
inline std::map<std::string, std::string> bytes_of_run(const std::string& folder) {
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

inline void check_equal(const std::map<std::string, std::string>& whole,
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

inline constexpr const char* usual = "experts=4,router={sigmoid:k=2,bias=1},balance=bias";

}  // namespace moe::test
