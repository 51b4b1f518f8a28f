// Every option of every router, balancer and capacity rule changes something: a very small model is
// trained for a few steps with one value and with another, and the weights, what routers hold and
// who was chosen must differ in one of the situations built for it; or the value is refused in a
// sentence. The options are those of docs/routers.md, which another test holds to the program.
#include <catch2/catch.hpp>

#include <cstring>
#include <map>

#include "lib/balance/balancer.h"
#include "lib/core/error.h"
#include "lib/core/spec.h"
#include "lib/model/config.h"
#include "lib/model/trainer.h"
#include "lib/router/capacity.h"
#include "lib/run/router_warnings.h"
#include "tests/page.h"
#include "tests/training/toy_text.h"

using namespace moe;
using namespace moe::test;

namespace {

constexpr int experts = 8;
constexpr Index steps = 5;

// What a run left, as bytes; or "refused: why".
using Outcome = std::string;

struct Bytes {
  Outcome out;

  template <class Range>
  void add(const Range& values) {
    out.append(reinterpret_cast<const char*>(std::data(values)),
               std::size(values) * sizeof(*std::data(values)));
  }
  void add_routing(const Decoder<float>::Tape& tape) {
    for (const auto& block : tape.block) {
      add(block.moe->routing.expert.flat());
      add(block.moe->routing.weight.flat());
    }
  }
};

Batch training_batch(std::uint64_t n) {
  return batch_of(n, 2, 10);
}

void bring_to_all(Decoder<float>& model) {
  std::vector<std::int64_t> counts(words, 0);
  std::vector<std::uint32_t> text;
  for (Index n = 0; n < steps; ++n) {
    for (const int id : training_batch(std::uint64_t(n)).token) {
      ++counts[std::size_t(id)];
      text.push_back(std::uint32_t(id));
    }
  }
  for (auto* layer : model.moe_layers())
    bring(layer->router(), counts, text);
}

// Router, capacity rule and balancers, as fields of a model.
Outcome trained(const std::string& fields) {
  try {
    const auto backend = make_backend("reference");
    const ModelConfig config = model_config(concat(
        "custom:vocabulary=", words,
        ",hidden=8,layers=2,heads=1,kv_heads=1,head_dim=8,width=4,context=16,experts=", experts,
        ",", fields));
    Decoder<float> model(config, *backend);
    model.initialise(1);
    bring_to_all(model);
    Solo comm;
    TrainOptions options;
    options.steps = steps;
    options.sequences = 2;
    options.length = 10;
    options.lr = 0.05;
    options.schedule = "constant";
    // scope=global is over several micro-batches
    options.accumulate = fields.find("switch") == fields.npos ? 1 : 2;
    Trainer trainer(model, options, comm);
    Bytes bytes;
    for (Index step = 0; step < steps; ++step) {
      trainer.step(training_batch, false, [&](const Batch&, const Decoder<float>::Tape& tape) {
        bytes.add_routing(tape);
      });
    }
    for (const auto* p : model.parameters())
      bytes.add(p->to_host().flat());
    for (auto* layer : model.moe_layers()) {
      for (const State& s : layer->router().state())
        bytes.add(s.second);
    }
    return bytes.out;
  } catch (const Error& e) {
    return concat("refused: ", e.what());
  }
}

bool is_refused(const Outcome& o) {
  return o.starts_with("refused: ");
}

// The situations in which a thing is tried: each has a `@` where its spec goes.
struct Kind {
  std::vector<std::string> situations;
  std::function<void(const std::string&)> make;  // refuses with the option's allowed values
};

// Values that another value of an option may be; for those of words see values_of().
std::vector<std::string> other_values(const std::string& key, const std::string& value) {
  static const std::map<std::string, std::vector<std::string>> written = {
      {"levels", {"2x4"}},         {"keep", {"2x1"}},       {"temperature", {"0.5", "3..0.5"}},
      {"router", {"sigmoid:k=2"}}, {"local", {"text:0.5"}},
  };
  if (const auto at = written.find(key); at != written.end())
    return at->second;
  double v = 0;
  try {
    v = std::stod(value);
  } catch (const std::exception&) {
    return {};
  }
  return {concat(v == 0 ? 1 : 0), concat(v + 1), concat(v / 2), concat(v / 2 + 0.3),
          concat(v + 20)};
}

// The words an option may be, in the order of the program; empty where it takes no words.
std::vector<std::string> values_of(const Kind& kind, Spec spec, const std::string& key) {
  spec.set(key, "?");
  try {
    kind.make(spec.given_text());
  } catch (const Error& e) {
    const std::string mark = key + " is one of ";
    const std::size_t at = e.hint().find(mark);
    if (at == std::string::npos)
      return {};
    std::vector<std::string> out;
    for (std::string word : split(e.hint().substr(at + mark.size()), ','))
      out.push_back(word.substr(word.find_first_not_of(' ')));
    return out;
  }
  return {};
}

// What comes of a spec in every situation.
std::vector<Outcome> outcomes(const Kind& kind, const Spec& spec) {
  std::vector<Outcome> out;
  for (const std::string& situation : kind.situations) {
    std::string fields = situation;
    fields.replace(fields.find('@'), 1, spec.given_text());
    out.push_back(trained(fields));
  }
  return out;
}

// Whether the two differ where neither is refused, or `b` is refused everywhere.
bool differ(const std::vector<Outcome>& a, const std::vector<Outcome>& b) {
  bool refused = true;
  for (std::size_t i = 0; i < a.size(); ++i) {
    refused = refused && is_refused(b[i]);
    if (!is_refused(a[i]) && !is_refused(b[i]) && a[i] != b[i])
      return true;
  }
  return refused;
}

bool all_refused(const std::vector<Outcome>& outcomes) {
  return std::ranges::all_of(outcomes, is_refused);
}

// Each word must differ from each other one.
void check_words(const Kind& kind, const Spec& base, const std::string& key,
                 const std::vector<std::string>& words_of_key) {
  std::vector<std::vector<Outcome>> found;
  for (const std::string& word : words_of_key) {
    Spec spec = base;
    spec.set(key, word);
    found.push_back(outcomes(kind, spec));
    for (std::size_t i = 0; i + 1 < found.size(); ++i) {
      INFO(spec.given_text() << " against " << words_of_key[i]);
      CHECK(differ(found[i], found.back()));
    }
  }
  CHECK_FALSE(all_refused(found.at(0)));
}

void check_number(const Kind& kind, const Spec& base, const std::string& key,
                  const std::string& value) {
  const std::vector<Outcome> before = outcomes(kind, base);
  CHECK_FALSE(all_refused(before));
  bool changes = false;
  for (const std::string& other : other_values(key, value)) {
    Spec spec = base;
    spec.set(key, other);
    const std::vector<Outcome> after = outcomes(kind, spec);
    changes = changes || (!all_refused(after) && differ(before, after));
    if (changes)
      break;
  }
  CHECK(changes);
}

// `base` with what the page says of its options, in "key=value" each.
void check_options(const Kind& kind, const std::string& base,
                   const std::vector<std::string>& options) {
  for (const std::string& option : options) {
    const std::string key = key_of(option);
    INFO(base << ": " << option);
    const Spec spec(base);
    const std::vector<std::string> allowed = values_of(kind, spec, key);
    if (!allowed.empty())
      check_words(kind, spec, key, allowed);
    else
      check_number(kind, spec, key, option.substr(key.size() + 1));
  }
}

std::vector<std::string> options_in(const std::string& cell) {
  std::vector<std::string> out;
  for (const std::string& span : code_spans(cell)) {
    if (span.find('=') != span.npos)
      out.push_back(span);
  }
  return out;
}

Kind kind_of_routers() {
  return {{"router={@},balance=none", "router={@},balance={bias:rate=0.5}"},
          [](const std::string& spec) {
            make_router(spec, experts);
          }};
}

}  // namespace

TEST_CASE("every option of every router changes a training") {
  const Kind kind = kind_of_routers();
  for (const Cells& row : table_of("routers.md", {"router", "options and defaults"})) {
    const std::string name = code_spans(row.at(0)).at(0);
    if (name == "replay")
      continue;  // its file is read when the router is made: tests/cli follows traces
    check_options(kind, name, options_in(row.at(1)));
    for (const std::string& part : split(row.at(2), ';')) {
      const std::size_t colon = part.find("`:");
      if (colon == part.npos)
        continue;
      const std::string base = concat(name, ":", code_spans(part).at(0));
      check_options(kind, base, options_in(part.substr(colon + 1)));
    }
  }
}

TEST_CASE("every option of every balancer changes a training") {
  const Kind kind = {
      {"router={softmax:k=2},balance={@}", "router={softmax:k=2,bias=1},balance={@;bias:rate=0.5}",
       "router={softmax:k=2},capacity={position:factor=0.5},balance={@}",
       "router={softmax:k=2,bias=1},balance={@}", "router={noisy:k=2},balance={@}",
       "router=relu,balance={@}"},
      [](const std::string& spec) {
        make_balancer(spec);
      }};
  for (const Cells& row : table_of("routers.md", {"balancer", "options and defaults"})) {
    const std::string name = code_spans(row.at(0)).at(0);
    // more experts than there are: so that the mean is always too narrow
    const bool narrow = name == "limoe";
    for (const std::string& option : options_in(row.at(1)))
      check_options(kind, narrow && key_of(option) == "global" ? name + ":least=64" : name,
                    {option});
  }
}

TEST_CASE("every option of every capacity rule changes a training") {
  const Kind kind = {{"router={softmax:k=1,norm=0},balance=none,capacity={@}",
                      "router={softmax:k=2},balance=none,capacity={@}"},
                     [](const std::string& spec) {
                       std::string resolved;
                       make_capacity(spec, resolved);
                     }};
  for (const Cells& row : table_of("routers.md", {"capacity rule", "options and defaults"})) {
    const std::string name = code_spans(row.at(0)).at(0);
    std::vector<std::string> options = options_in(row.at(1));
    // of evaluations alone: tests/model/encdec_test.cpp
    std::erase_if(options, [](const std::string& o) { return key_of(o) == "eval_fraction"; });
    if (!options.empty())  // with little room, so that experts fill up
      check_options(kind, name + (name == "count" ? ":tokens=4" : ":factor=0.4"), options);
  }
}

TEST_CASE("a balance loss over the whole step says where it is not over all of it") {
  const ModelConfig config = model_config("nano:balance={switch:coef=0.1,scope=global}");
  const auto said = [&](Index accumulate, Index lanes) {
    const auto all = step_warnings(config, accumulate, lanes);
    return all.empty() ? std::string() : all.at(0);
  };
  CHECK_THAT(said(1, 1), Catch::Contains("equals that of scope=batch"));
  CHECK_THAT(said(4, 1), Catch::Contains("with 4 in 1 lane a micro-batch misses"));
  CHECK_THAT(said(4, 2), Catch::Contains("--lanes 4 counts all"));
  CHECK(said(4, 4).empty());
  for (const char* other : {"nano:balance={switch:coef=0.1,scope=batch}",
                            "nano:balance={switch:coef=0.1,scope=sequence}",
                            "nano:dense=1,balance={switch:coef=0.1,scope=global}"})
    CHECK(step_warnings(model_config(other), 1, 1).empty());
}
