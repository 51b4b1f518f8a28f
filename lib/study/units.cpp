#include "lib/study/units.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "analysis/metric/definitions.h"
#include "lib/core/error.h"
#include "lib/core/registry.h"
#include "lib/core/spec.h"
#include "lib/core/spec_lists.h"
#include "lib/core/text.h"
#include "lib/study/measure.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr int most_nesting = 8;
constexpr std::string_view valid_ending = "_valid";
constexpr int default_steps = 2000;            // of moe train
constexpr const char* traced_tokens = "4096";  // of a trace that the study itself asks for

// {name} with letters alone: braces of specs hold more than that.
bool is_place(std::string_view inside) {
  return !inside.empty() && std::ranges::all_of(inside, [](char c) {
    return std::isalpha(static_cast<unsigned char>(c)) || c == '_';
  });
}

// `task` as of `train --task`; empty = none.
std::string on_valid_split(const std::string& data, const std::string& task = {}) {
  Spec spec(data);
  spec.set("split", "valid");
  if (!task.empty() && !spec.has("task"))
    spec.set("task", task);
  return spec.given_text();
}

class Filler {
 public:
  Filler(const Study& s, const Arm* arm) {
    for (const auto& [name, value] : s.set.all())
      values_.set(name, value);
    if (!arm)
      return;
    for (const auto& [name, value] : arm->set.all())
      values_.set(name, value);
    values_.set("options", arm->options);
  }
  void set(const std::string& name, const std::string& value) {
    values_.set(name, value);
  }
  std::string fill(std::string text) const {
    for (int depth = 0; depth < most_nesting; ++depth) {
      const std::string next = once(text);
      if (next == text)
        return text;
      text = next;
    }
    throw Error(Exit::usage, concat("the variables of '", text, "' hold one another"))
        .hint("a value that does not lead back to its own name");
  }

 private:
  std::string once(const std::string& text) const {
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t close = text[at] == '{' ? text.find('}', at) : text.npos;
      const std::string inside = close == text.npos ? "" : text.substr(at + 1, close - at - 1);
      if (!is_place(inside)) {
        out += text[at++];
        continue;
      }
      out += value_of(inside);
      at = close + 1;
    }
    return out;
  }
  // {data_valid} is {data} on the split that training has not seen.
  std::string value_of(const std::string& name) const {
    if (const std::string* value = values_.find(name))
      return *value;
    const bool unseen = name.ends_with(valid_ending);
    const std::string base = unseen ? name.substr(0, name.size() - valid_ending.size()) : "";
    if (const std::string* value = values_.find(base); unseen && value)
      return shell_quoted(on_valid_split(fill(*value)));
    std::vector<std::string> names;
    for (const auto& [known, value] : values_.all())
      names.push_back(known);
    no_such("variable of command lines", name, names);
  }

  Variables values_;
};

bool mentions(const std::vector<std::string>& commands, const std::string& part) {
  return std::ranges::any_of(commands,
                             [&](const std::string& c) { return c.find(part) != c.npos; });
}

bool has_option(const Words& words, const std::string& name) {
  return std::ranges::find(words, name) != words.end();
}

// The value behind each --data of a command, on the split that training has not seen and with its
// task.
std::vector<std::string> validation_data(const Words& train) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i + 1 < train.size(); ++i) {
    if (train[i] != "--data")
      continue;
    out.push_back(on_valid_split(train[i + 1], option_of(train, "--task")));
  }
  return out;
}

// The metrics (names of metrics.def) of the report that the study measures by; none = no report.
std::set<std::string> reported(const Study& s) {
  std::set<std::string> out;
  for (const MeasureSpec& m : s.measures) {
    if (const Measure measure(m.spec); measure.needs_report())
      out.insert(std::string(find_definition(measure.name())->metric));
  }
  return out;
}

// The last training command of a unit; null where it trains nothing.
const Words* last_training(const std::vector<Words>& commands) {
  for (auto c = commands.rbegin(); c != commands.rend(); ++c) {
    if (is_training(*c))
      return &*c;
  }
  return nullptr;
}

// A trace of the run and its report, where none of the commands makes them.
void add_report(std::vector<Words>& commands, const std::set<std::string>& metrics,
                const fs::path& folder) {
  const std::string trace = (folder / "trace.moetrace.h5").string();
  const std::string report = (folder / report_file).string();
  const auto writes = [&](const std::string& file) {
    return std::ranges::any_of(commands, [&](const Words& c) {
      return option_of(c, "-o") == file || option_of(c, "--trace") == file;
    });
  };
  if (writes(report))
    return;
  if (!writes(trace)) {
    const Words* train = last_training(commands);
    if (!train)
      return;  // an arm that trains nothing has no such value
    Words words = {"trace", option_of(*train, "-o")};
    for (const std::string& data : validation_data(*train)) {
      words.emplace_back("--data");
      words.push_back(data);
    }
    words.insert(words.end(), {"--tokens", traced_tokens, "-o", trace});
    commands.push_back(std::move(words));
  }
  Words words = {"report", trace, "-o", report};
  for (const std::string& metric : metrics)
    words.insert(words.end(), {"--metric", metric});
  commands.push_back(std::move(words));
}

Words words_of(const std::string& command, const Filler& filler) {
  Words words = shell_words(filler.fill(command));
  if (!words.empty() && words[0] == "moe")
    words.erase(words.begin());
  if (words.empty())
    throw Error(Exit::usage, "a command line of the study is empty").hint("train --data ...");
  if (words[0] == "study")
    throw Error(Exit::usage, "a study cannot run another").hint("its arms in this one");
  return words;
}

Filler filler_of(const Study& s, const Arm* arm, std::uint64_t seed, const fs::path& folder,
                 const fs::path& shared) {
  Filler filler(s, arm);
  filler.set("seed", concat(seed));
  filler.set("dir", shell_quoted(folder.string()));
  filler.set("run", shell_quoted((folder / "run").string()));
  filler.set("trace", shell_quoted((folder / "trace.moetrace.h5").string()));
  filler.set("shared", shell_quoted(shared.string()));
  return filler;
}

// What a training command leaves to the study.
void complete(Words& words, std::uint64_t seed, const fs::path& folder) {
  if (!is_training(words))
    return;
  if (!has_option(words, "--seed"))
    words.insert(words.end(), {"--seed", concat(seed)});
  if (!has_option(words, "-o") && !has_option(words, "--output"))
    words.insert(words.end(), {"-o", (folder / "run").string()});
}

const std::vector<std::string>& lines_of(const Study& s, const Arm* arm) {
  if (!arm)
    return s.shared;
  return arm->commands.empty() ? s.commands : arm->commands;
}

Unit unit_of(const Study& s, const Arm* arm, std::uint64_t seed, const fs::path& folder,
             const fs::path& shared) {
  Unit u{.arm = arm ? arm->name : "", .seed = seed, .folder = folder};
  const Filler filler = filler_of(s, arm, seed, folder, shared);
  const std::vector<std::string>& lines = lines_of(s, arm);
  // options that no line has a place for go to the first that trains
  bool left = arm && !arm->options.empty() && !mentions(lines, "{options}");
  for (const std::string& line : lines) {
    Words words = words_of(line, filler);
    if (left && is_training(words)) {
      const Words more = shell_words(filler.fill("{options}"));
      words.insert(words.end(), more.begin(), more.end());
      left = false;
    }
    complete(words, seed, folder);
    u.commands.push_back(std::move(words));
  }
  if (left) {
    throw Error(Exit::usage,
                concat("the options of the arm '", arm->name, "' stand nowhere: no command trains"))
        .hint("{options} in a command line");
  }
  u.asked = int(u.commands.size());
  if (const auto metrics = reported(s); arm && !metrics.empty())
    add_report(u.commands, metrics, folder);
  return u;
}

fs::path shared_folder(const fs::path& folder, std::uint64_t seed) {
  return folder / "shared" / concat("seed-", seed);
}

// Only what trains the arm's model: as short as a round is, without looking at it meanwhile.
std::vector<Words> cut_to(const std::vector<Words>& commands, int steps, const fs::path& folder) {
  const Words* train = last_training(commands);
  if (!train)
    return {};
  Words words = *train;
  set_option(words, "--steps", concat(steps));
  set_option(words, "-o", (folder / "run").string());
  set_option(words, "--log-every", "1");
  set_option(words, "--eval-every", "0");
  set_option(words, "--eval-tokens", "1");
  set_option(words, "--save-every", "0");
  return {words};
}

}  // namespace

std::string Unit::name() const {
  return concat(arm.empty() ? "shared" : arm, ", seed ", seed);
}

bool is_training(const Words& words) {
  return !words.empty() && words[0] == "train" && !has_option(words, "--resume");
}

std::string option_of(const Words& words, const std::string& name) {
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    if (words[i] == name)
      return words[i + 1];
    if (words[i].starts_with(name + "="))
      return words[i].substr(name.size() + 1);
  }
  return "";
}

void set_option(Words& words, const std::string& name, const std::string& value) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == name && i + 1 < words.size()) {
      words[i + 1] = value;
      return;
    }
    if (words[i].starts_with(name + "=")) {
      words[i] = concat(name, "=", value);
      return;
    }
  }
  words.insert(words.end(), {name, value});
}

std::string folder_name(const std::string& arm) {
  std::string out;
  for (const char c : arm) {
    const bool plain =
        std::isalnum(static_cast<unsigned char>(c)) || c == '=' || c == '.' || c == '-' || c == '_';
    if (plain)
      out += c;
    else if (!out.empty() && out.back() != '_')
      out += '_';
  }
  while (!out.empty() && (out.front() == '.' || out.front() == '-'))
    out.erase(0, 1);
  return out.empty() ? "arm" : out;
}

std::vector<Unit> units_of(const Study& s, const fs::path& folder) {
  std::vector<std::string> names;
  for (const Arm& a : s.arms) {
    std::string name = folder_name(a.name);
    // arms whose names differ in signs alone
    while (std::ranges::find(names, name) != names.end())
      name += "_";
    names.push_back(name);
  }
  std::vector<Unit> out;
  for (const std::uint64_t seed : s.seeds) {
    const fs::path shared = shared_folder(folder, seed);
    if (!s.shared.empty())
      out.push_back(unit_of(s, nullptr, seed, shared, shared));
    for (std::size_t a = 0; a < s.arms.size(); ++a) {
      const fs::path own = folder / "arms" / names[a] / concat("seed-", seed);
      out.push_back(unit_of(s, &s.arms[a], seed, own, shared));
    }
  }
  return out;
}

std::vector<Unit> timing_units(const Study& s, const fs::path& folder, int round) {
  std::vector<Unit> all;
  for (Unit& u : units_of(s, folder)) {
    if (u.arm.empty() || u.seed != s.seeds[0])
      continue;
    const fs::path own =
        folder / "timing" / concat("round-", round) / u.folder.parent_path().filename();
    u.commands = cut_to(u.commands, s.timing.steps, own);
    u.folder = own;
    u.seed = std::uint64_t(round);
    if (!u.commands.empty())
      all.push_back(std::move(u));
  }
  if (!all.empty())
    std::ranges::rotate(all, all.begin() + (round - 1) % std::ptrdiff_t(all.size()));
  return all;
}

Unit probe_of(const Study& s, const Unit& unit, const fs::path& folder, int steps) {
  const Arm* arm = unit.arm.empty() ? nullptr : &s.arm(unit.arm);
  const fs::path own = folder / (arm ? folder_name(unit.arm) : "shared");
  Unit out = unit_of(s, arm, unit.seed, own, folder / "shared");
  for (Words& words : out.commands) {
    if (!is_training(words))
      continue;
    const std::string asked = option_of(words, "--steps");
    const int wanted = asked.empty() ? default_steps : std::atoi(asked.c_str());
    set_option(words, "--steps", concat(std::min(steps, wanted)));
    set_option(words, "--log-every", "1");
  }
  return out;
}

}  // namespace moe
