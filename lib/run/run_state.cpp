#include "lib/run/run_state.h"

#include <array>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/core/text.h"
#include "lib/files/any_bytes.h"

namespace moe {

namespace fs = std::filesystem;

namespace {

Json trace_json(const RunState& s) {
  Json out = {{"path", escaped(s.trace)}, {"every", s.trace_every}, {"rows", s.trace_rows}};
  if (s.trace_ranks)
    out["ranks"] = true;
  return out;
}

Json written(const RunState& s) {
  const TrainOptions& t = s.train;
  return {{"format", "moe-state"},
          {"version", 1},
          {"step", s.step},
          {"model", s.model},
          {"data", escaped_all(s.data)},
          {"tokenizer", escaped(s.tokenizer)},
          {"device", s.device},
          {"options", Json::parse(s.options)},
          {"origin", {{"run_id", s.run_id}, {"lineage", s.lineage}}},
          {"steps_with_gradient", s.steps_with_gradient},
          {"train",
           {{"horizon", t.steps},
            {"sequences", t.sequences},
            {"length", t.length},
            {"accumulate", t.accumulate},
            {"lr", t.lr},
            {"beta1", t.beta1},
            {"beta2", t.beta2},
            {"eps", t.eps},
            {"decay", t.decay},
            {"clip", t.clip},
            {"schedule", t.schedule},
            {"seed", t.seed},
            {"trained", t.trained},
            {"lr_factor", t.lr_factor}}},
          {"trace", trace_json(s)},
          {"run",
           {{"save_every", s.save_every},
            {"save_minutes", s.save_minutes},
            {"keep", s.keep},
            {"eval_every", s.eval_every},
            {"log_every", s.log_every},
            {"eval_tokens", s.eval_tokens}}}};
}

}  // namespace

Json state_json(const RunState& s) {
  Json out = written(s);
  if (s.train.lanes > 1)
    out["train"]["lanes"] = s.train.lanes;
  if (s.train.noise_scale)
    out["train"]["noise_scale"] = true;
  return out;
}

namespace {

// A whole number that fits; JSON's own conversion rounds and wraps.
Index whole_at(const Json& j, const char* key) {
  const Json& v = j.at(key);
  const bool fits = v.is_number_integer() &&
                    (!v.is_number_unsigned() ||
                     v.get<std::uint64_t>() <= std::uint64_t(std::numeric_limits<Index>::max()));
  if (!fits)
    throw Error(Exit::input,
                concat(key, " is ", v.dump(), ", which is no whole number of 63 bits"));
  return v.get<Index>();
}

TrainOptions train_options_from(const Json& j) {
  TrainOptions o;
  o.steps = whole_at(j, "horizon");
  o.sequences = whole_at(j, "sequences");
  o.length = whole_at(j, "length");
  o.accumulate = whole_at(j, "accumulate");
  if (j.contains("lanes"))
    o.lanes = whole_at(j, "lanes");
  j.at("lr").get_to(o.lr);
  j.at("beta1").get_to(o.beta1);
  j.at("beta2").get_to(o.beta2);
  j.at("eps").get_to(o.eps);
  j.at("decay").get_to(o.decay);
  j.at("clip").get_to(o.clip);
  j.at("schedule").get_to(o.schedule);
  j.at("seed").get_to(o.seed);
  o.trained = j.value("trained", o.trained);
  o.lr_factor = j.value("lr_factor", o.lr_factor);
  o.noise_scale = j.value("noise_scale", false);
  return o;
}

void refuse_other_state(const Json& j) {
  if (j.at("format") != "moe-state")
    throw Error(Exit::input, "this is not a state of moe");
  if (const Index version = whole_at(j, "version"); version > 1) {
    throw Error(Exit::input, concat("it has version ", version, "; this moe reads version 1"))
        .hint("a newer moe");
  }
}

void origin_from(const Json& j, RunState& s) {
  if (!j.contains("origin"))  // earlier versions kept none
    return;
  j.at("origin").at("run_id").get_to(s.run_id);
  j.at("origin").at("lineage").get_to(s.lineage);
}

RunState state_from(const Json& j) {
  refuse_other_state(j);
  RunState s;
  s.step = whole_at(j, "step");
  j.at("model").get_to(s.model);
  j.at("data").get_to(s.data);
  for (std::string& spec : s.data)
    spec = unescaped(spec);
  s.tokenizer = unescaped(j.at("tokenizer").get<std::string>());
  j.at("device").get_to(s.device);
  s.options = j.at("options").dump();
  j.at("steps_with_gradient").get_to(s.steps_with_gradient);
  origin_from(j, s);
  s.train = train_options_from(j.at("train"));
  const Json& trace = j.at("trace");
  s.trace = unescaped(trace.at("path").get<std::string>());
  s.trace_every = whole_at(trace, "every");
  s.trace_ranks = trace.value("ranks", false);
  const Index rows = whole_at(trace, "rows");
  if (rows < 0)
    throw Error(Exit::input, concat("rows is ", rows));
  s.trace_rows = std::uint64_t(rows);
  const Json& run = j.at("run");
  s.save_every = whole_at(run, "save_every");
  s.save_minutes = run.value("save_minutes", 0.0);
  s.keep = whole_at(run, "keep");
  s.eval_every = whole_at(run, "eval_every");
  s.log_every = whole_at(run, "log_every");
  s.eval_tokens = whole_at(run, "eval_tokens");
  return s;
}

// Beyond these an index of this program overflows, or a step never ends.
constexpr Index most_steps = 1'000'000'000'000;
constexpr Index most_micro_batches = 1 << 20;
constexpr Index most_tokens = std::numeric_limits<int>::max();  // of a micro-batch

struct Whole {
  const char* name;
  Index value, least, most;
};
struct Real {
  const char* name;
  double value, least;
  bool least_allowed;
  double below;
};

void refuse_wholes(const RunState& s, Exit code, const std::string& where) {
  constexpr Index any = std::numeric_limits<Index>::max();
  const TrainOptions& t = s.train;
  for (const Whole& w : {Whole{"step", s.step, 0, most_steps},
                         {"the horizon", t.steps, 0, most_steps},
                         {"the sequences of a micro-batch", t.sequences, 1, most_tokens},
                         {"the length of a sequence", t.length, 1, most_tokens},
                         {"the micro-batches of a step", t.accumulate, 1, most_micro_batches},
                         {"the lanes of a step", t.lanes, 1, t.accumulate},
                         {"the steps between recorded ones", s.trace_every, 1, any},
                         {"the steps between checkpoints", s.save_every, 0, any},
                         {"the checkpoints kept", s.keep, 1, std::numeric_limits<int>::max()},
                         {"the steps between validations", s.eval_every, 0, any},
                         {"the steps between lines of metrics.jsonl", s.log_every, 1, any},
                         {"the tokens of a validation", s.eval_tokens, 0, any}}) {
    if (w.value < w.least)
      throw Error(code, concat(where, w.name, ": ", w.value, " is less than ", w.least));
    if (w.value > w.most)
      throw Error(code, concat(where, w.name, ": ", w.value, " is more than ", w.most));
  }
  if (t.sequences > most_tokens / t.length) {
    throw Error(code, concat(where, "a micro-batch of ", t.sequences, " sequences of ", t.length,
                             " tokens has more than ", most_tokens, " tokens"))
        .hint("a smaller --batch, and --accumulate for the rest");
  }
}

void refuse_lanes(const TrainOptions& t, Exit code, const std::string& where) {
  if (t.accumulate % t.lanes != 0) {
    throw Error(code, concat(where, "the ", t.accumulate,
                             " micro-batches of a step cannot be shared by ", t.lanes, " lanes"))
        .hint(concat("--accumulate ", (t.accumulate / t.lanes + 1) * t.lanes));
  }
}

void refuse_reals(const RunState& s, Exit code, const std::string& where) {
  constexpr double any = std::numeric_limits<double>::infinity();
  const TrainOptions& t = s.train;
  for (const Real& r : {Real{"lr", t.lr, 0, true, any},
                        {"beta1", t.beta1, 0, true, 1},
                        {"beta2", t.beta2, 0, true, 1},
                        {"eps", t.eps, 0, false, any},
                        {"decay", t.decay, 0, true, any},
                        {"clip", t.clip, 0, true, any},
                        {"the minutes between checkpoints", s.save_minutes, 0, true, any}}) {
    const bool enough = r.least_allowed ? r.value >= r.least : r.value > r.least;
    if (!enough || !(r.value < r.below)) {
      throw Error(code, concat(where, r.name, ": ", r.value, " is not ",
                               r.least_allowed ? "at least " : "more than ", r.least,
                               r.below < any ? concat(" and below ", r.below) : " and finite"));
    }
  }
}

}  // namespace

void refuse_impossible(const RunState& s, Exit code, const std::string& where) {
  refuse_wholes(s, code, where);
  refuse_lanes(s.train, code, where);
  refuse_reals(s, code, where);
  if (s.step > s.train.steps) {
    throw Error(code, concat(where, "step ", s.step, " is beyond the horizon of ", s.train.steps,
                             " steps"));
  }
  try {
    Schedule(s.train.schedule, s.train.steps);
  } catch (const Error& e) {
    throw Error(code, where + e.what()).hint(e.hint());
  }
}

RunState read_state(const fs::path& folder) {
  const fs::path path = folder / "state.json";
  const Json j = read_json(path);
  const std::string where = concat("'", path.string(), "': ");
  const char* verify = "moe verify on the checkpoint says whether it is whole";
  try {
    RunState s = state_from(j);
    refuse_impossible(s, Exit::input, "");
    return s;
  } catch (const Json::exception& e) {
    throw Error(Exit::input, where + e.what()).hint(verify);
  } catch (const Error& e) {
    throw Error(Exit::input, where + e.what()).hint(e.hint().empty() ? verify : e.hint());
  }
}

}  // namespace moe
