#include "lib/study/study.h"

#include <algorithm>
#include <set>

#include "lib/core/error.h"
#include "lib/core/registry.h"
#include "lib/core/spec.h"
#include "lib/core/text.h"
#include "lib/study/claim.h"
#include "lib/study/grid.h"
#include "lib/study/measure.h"
#include "lib/study/toml.h"

namespace moe {

const std::string* Variables::find(std::string_view name) const {
  for (const auto& [key, value] : values_) {
    if (key == name)
      return &value;
  }
  return nullptr;
}

void Variables::set(const std::string& name, const std::string& value) {
  for (auto& [key, held] : values_) {
    if (key == name) {
      held = value;
      return;
    }
  }
  values_.emplace_back(name, value);
}

const Arm& Study::arm(std::string_view wanted) const {
  std::vector<std::string> names;
  for (const Arm& a : arms) {
    if (a.name == wanted)
      return a;
    names.push_back(a.name);
  }
  no_such("arm", wanted, names);
}

namespace {

constexpr int most_arms = 200;
constexpr int most_seeds = 1000;
constexpr int default_seeds = 3;

std::vector<std::uint64_t> first_seeds(int n) {
  std::vector<std::uint64_t> out;
  for (int s = 1; s <= n; ++s)
    out.push_back(std::uint64_t(s));
  return out;
}

// seeds = 3, or seeds = [1, 5, 9].
std::vector<std::uint64_t> read_seeds(TomlTable& t, std::vector<std::uint64_t> fallback) {
  if (!t.has("seeds"))
    return fallback;
  const std::vector<std::int64_t> given = t.whole_numbers("seeds");
  for (const std::int64_t s : given) {
    if (s < 0)
      t.refuse("seeds", concat("a seed cannot be ", s));
  }
  if (t.is_list("seeds")) {
    std::vector<std::uint64_t> out(given.begin(), given.end());
    if (out.empty() || std::set<std::uint64_t>(out.begin(), out.end()).size() != out.size())
      t.refuse("seeds", "seeds are at least one, each once");
    return out;
  }
  if (given[0] < 1 || given[0] > most_seeds)
    t.refuse("seeds", concat("between 1 and ", most_seeds, " seeds, not ", given[0]));
  return first_seeds(int(given[0]));
}

void read_variables(TomlTable t, Variables& out) {
  for (const std::string& key : t.keys())
    out.set(key, t.value_text(key));
  t.done();
}

Arm read_arm(TomlTable t) {
  Arm a;
  a.name = t.text("name");
  a.options = t.text("options", "");
  a.commands = t.texts("commands");
  if (t.has("set"))
    read_variables(t.table("set"), a.set);
  t.done();
  if (a.name.empty() || a.name.find_first_of("[]") != a.name.npos)
    t.refuse("name", "an arm's name is not empty and has no brackets");
  return a;
}

// A measure is a word, or a table that also says what to call it.
MeasureSpec read_measure(TomlTable t) {
  MeasureSpec m;
  m.spec = t.text("of");
  m.name = t.text("name", Spec(m.spec).name());
  m.title = t.text("title", "");
  t.done();
  return m;
}

Claim read_claim(TomlTable t) {
  Claim c;
  c.says = t.text("says");
  c.holds = t.text("holds");
  c.matters = t.number("matters", 0);
  t.done();
  if (c.matters < 0)
    t.refuse("matters", "the smallest difference that matters is not negative");
  return c;
}

void read_timing(TomlTable t, TimingRounds& out) {
  out.rounds = int(t.whole("rounds", 5));
  out.steps = int(t.whole("steps", out.steps));
  t.done();
  if (out.rounds < 2 || out.steps < 4)
    t.refuse("rounds", "times take at least 2 rounds of 4 steps");
}

// The measures as a list of words, and as tables of their own.
void read_measures(TomlTable& t, Study& s) {
  for (const std::string& spec : t.texts("measures"))
    s.measures.push_back({Spec(spec).name(), spec, ""});
  for (TomlTable& m : t.tables("measure"))
    s.measures.push_back(read_measure(std::move(m)));
}

void read_arms(TomlTable& t, Study& s) {
  for (TomlTable& a : t.tables("arm"))
    s.arms.push_back(read_arm(std::move(a)));
  if (!t.has("factors"))
    return;
  if (!s.arms.empty())
    t.refuse("factors", "a study has [[arm]] tables or [factors], not both");
  TomlTable grid = t.table("factors");
  std::vector<Factor> factors;
  for (const std::string& key : grid.keys())
    factors.push_back({key, grid.value_texts(key)});
  grid.done();
  s.arms = grid_of(factors, s.commands);
}

// The values of [quick], which stand over those of [set] where they are wanted.
void read_quick(TomlTable& t, Study& s, bool wanted) {
  if (!t.has("quick")) {
    if (wanted)
      throw Error(Exit::usage, "this study has no [quick] values").hint("--set steps=10 --seeds 2");
    return;
  }
  TomlTable quick = t.table("quick");
  const std::vector<std::uint64_t> seeds = read_seeds(quick, s.seeds);
  if (wanted)
    s.seeds = seeds;
  for (const std::string& key : quick.keys()) {
    if (key == "seeds")
      continue;
    const std::string value = quick.value_text(key);
    if (!s.set.find(key))
      quick.refuse(key, concat("[quick] gives '", key, "', and [set] has no such variable"));
    if (wanted)
      s.set.set(key, value);
  }
  quick.done();
}

Study read_study(TomlTable& t, const StudyChanges& changes) {
  Study s;
  s.about = t.text("about");
  s.question = t.text("question");
  s.toy = t.text("toy", "");
  s.literature = t.text("literature", "");
  s.waits_for = t.text("waits_for", "");
  s.picture = t.text("picture", "");
  s.baseline = t.text("baseline", "");
  s.seeds = read_seeds(t, first_seeds(default_seeds));
  s.shared = t.texts("shared");
  s.commands = t.texts("commands");
  if (t.has("set"))
    read_variables(t.table("set"), s.set);
  if (t.has("timing"))
    read_timing(t.table("timing"), s.timing);
  read_arms(t, s);
  read_measures(t, s);
  for (TomlTable& c : t.tables("claim"))
    s.claims.push_back(read_claim(std::move(c)));
  read_quick(t, s, changes.quick);
  t.done();
  return s;
}

[[noreturn]] void refuse(const Study& s, const std::string& sentence, const char* hint) {
  throw Error(Exit::input, concat("the study ", s.name, ": ", sentence)).hint(hint);
}

void refuse_measures(const Study& s) {
  std::set<std::string> names;
  bool times = false;
  for (const MeasureSpec& m : s.measures) {
    if (!names.insert(m.name).second)
      refuse(s, concat("two measures are called '", m.name, "'"),
             "[[measure]] with a name of its own for one of them");
    times = Measure(m.spec).is_time() || times;  // refuses what it does not know
  }
  if (!s.picture.empty() && !names.contains(s.picture))
    no_such("measure", s.picture, {names.begin(), names.end()});
  for (const Claim& c : s.claims)
    Condition(c.holds).refuse_unknown(s);
  if (times && s.timing.rounds == 0)
    refuse(s, "it measures time, and has no [timing]", "[timing] with rounds = 5");
}

// What is wrong between the parts, where each of them is well formed.
void refuse_contradictions(const Study& s) {
  const auto fail = [&](const std::string& sentence, const char* hint) {
    refuse(s, sentence, hint);
  };
  if (s.arms.empty())
    fail("there is no arm to run", "[[arm]] tables, or [factors] for a grid");
  if (s.arms.size() > std::size_t(most_arms))
    fail(concat("it has ", s.arms.size(), " arms, more than ", most_arms), "fewer levels");
  if (s.measures.empty())
    fail("nothing is measured", "measures = [\"loss\"]");
  std::set<std::string> names;
  for (const Arm& a : s.arms) {
    if (!names.insert(a.name).second)
      fail(concat("two arms are called '", a.name, "'"), "names that differ");
    if (a.commands.empty() && s.commands.empty())
      fail(concat("the arm '", a.name, "' has no command line"), "commands = [\"train ...\"]");
  }
  s.arm(s.baseline);
  refuse_measures(s);
}

}  // namespace

Study parse_study(std::string_view text, const std::string& name, const StudyChanges& changes) {
  TomlTable root = parse_toml(text, name);
  Study s = read_study(root, changes);
  s.name = name;
  for (const auto& [key, value] : changes.set) {
    if (!s.set.find(key)) {
      std::vector<std::string> names;
      for (const auto& [known, held] : s.set.all())
        names.push_back(known);
      no_such("variable of this study", key, names);
    }
    s.set.set(key, value);
  }
  if (changes.seeds > 0)
    s.seeds = first_seeds(changes.seeds);
  if (s.baseline.empty() && !s.arms.empty())
    s.baseline = s.arms[0].name;
  refuse_contradictions(s);
  return s;
}

Study study_of_line(const std::string& command, const std::vector<std::string>& factors,
                    const std::vector<std::string>& measures, int seeds) {
  Study s;
  s.name = "study";
  s.commands = {command};
  s.seeds = first_seeds(seeds > 0 ? seeds : default_seeds);
  std::vector<Factor> all;
  for (const std::string& text : factors) {
    const std::size_t at = text.find('=');
    if (at == text.npos || at == 0 || at + 1 == text.size()) {
      throw Error(Exit::usage, concat("--arm '", text, "' does not say option=value|value"))
          .hint("--arm \"router=softmax:k=1|softmax:k=2\"");
    }
    all.push_back({text.substr(0, at), split(text.substr(at + 1), '|')});
  }
  s.arms = grid_of(all, s.commands);
  if (s.arms.size() < 2)
    throw Error(Exit::usage, "--arm gives one value, and there is nothing to compare it with")
        .hint("--arm \"router=softmax:k=1|softmax:k=2\"");
  s.baseline = s.arms[0].name;
  for (const std::string& spec : measures)
    s.measures.push_back({Spec(spec).name(), spec, ""});
  std::vector<std::string> varied;
  for (const Factor& f : all)
    varied.push_back(f.name);
  s.question =
      concat("What ", varied.size() > 1 ? "do " : "does ", join(varied, " and "), " change?");
  s.about = concat("moe ", command);
  const bool times = std::ranges::any_of(
      s.measures, [](const MeasureSpec& m) { return Measure(m.spec).is_time(); });
  if (times)
    s.timing.rounds = 5;
  refuse_contradictions(s);
  return s;
}

}  // namespace moe
