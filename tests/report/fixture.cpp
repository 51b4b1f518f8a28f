#include "tests/report/fixture.h"

#include <cmath>
#include <limits>

namespace moe::test {
namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN(),
                 infinite = std::numeric_limits<double>::infinity();

double noise(int a, int b = 0, int c = 0) {  // 0..1, the same on every machine
  std::uint32_t v = std::uint32_t(a) * 2654435761u ^ std::uint32_t(b) * 2246822519u ^
                    std::uint32_t(c) * 3266489917u;
  v = (v ^ v >> 15) * 2246822519u;
  v = (v ^ v >> 13) * 3266489917u;
  return double((v ^ v >> 16) & 0xFFFFFF) / 0x1000000;
}

double share(int layer, int expert, int experts) {  // uneven load; expert 11 of layer 3 is dead
  if (layer == 3 && expert == 11 % experts)
    return 0;
  return (0.35 + noise(layer, expert) + (noise(layer, expert, 7) > 0.9 ? 1.6 : 0)) / experts;
}

Column ints(std::string name, std::vector<std::int64_t> v, std::string meaning = "") {
  return {name, "", meaning, v, "", {}, 3};
}
Column texts(std::string name, std::vector<std::string> v, std::string meaning = "") {
  return {name, "", meaning, v, "", {}, 3};
}
Column doubles(std::string name, std::string unit, std::string meaning, std::string metric,
               std::vector<double> v, std::vector<double> chance = {}, int digits = 3) {
  return {name, unit, meaning, v, metric, chance, digits};
}

Column load_share(std::vector<double> v, std::vector<double> chance) {
  Column out = doubles("share", "", "assignments to this expert over all of the layer",
                       "load_fraction", std::move(v), std::move(chance));
  out.around_chance = true;
  return out;
}

Table load_map(int layers, int experts) {
  std::vector<std::int64_t> layer, expert;
  std::vector<double> v, chance;
  for (int l = 0; l < layers; ++l) {
    for (int e = 0; e < experts; ++e) {
      layer.push_back(l);
      expert.push_back(e);
      v.push_back(share(l, e, experts));
      chance.push_back(1.0 / experts);
    }
  }
  return {"load",
          "Load of every expert",
          "Each row is a layer. An even router gives every expert the same share; a black cell is "
          "an expert that nothing reaches.",
          Chart::heatmap,
          {ints("layer", layer), ints("expert", expert), load_share(v, chance)},
          "balance",
          true,
          {}};
}

std::vector<double> shifted(std::vector<double> values, double by) {
  for (double& v : values)
    v += by;
  return values;
}

Table balance() {
  const int L = 8;
  std::vector<std::int64_t> layer, dead;
  std::vector<double> cv, gini, entropy, ratio;
  const std::vector<double> null_cv(L, 0.021);
  const std::vector<double> null_gini(L, 0.012);
  const std::vector<double> null_entropy(L, 1.0);
  for (int l = 0; l < L; ++l) {
    layer.push_back(l);
    dead.push_back(l == 3);
    cv.push_back(0.3 + 0.25 * noise(l, 1));
    gini.push_back(0.18 + 0.1 * noise(l, 2));
    entropy.push_back(0.94 + 0.04 * noise(l, 3));
    ratio.push_back(l == 3 ? infinite : 3 + 5 * noise(l, 4));
  }
  Column dead_column = ints("dead experts", dead, "experts that no token chose");
  dead_column.metric = "load_dead_fraction";
  Table t{
      "balance",
      "Balance by layer",
      "Higher CV and Gini and lower entropy mean a less even load. Random routing of as many "
      "tokens gives the dashed line.",
      Chart::lines,
      {ints("layer", layer),
       doubles("CV", "", "standard deviation of the load over its mean", "load_cv", cv, null_cv),
       doubles("Gini", "", "0 = even, 1 = one expert has all", "load_gini", gini, null_gini),
       doubles("entropy", "of ln E", "entropy of the load over that of an even load",
               "load_entropy_norm", entropy, null_entropy),
       doubles("max/min", "x", "busiest over idlest expert; infinite where one is dead",
               "load_max_over_min", ratio, {}, 1),
       dead_column},
      "balance",
      false,
      {"Layer 3 has a dead expert: its max/min is infinite."}};
  t.columns[1].low = shifted(cv, -0.04);
  t.columns[1].high = shifted(cv, 0.05);
  return t;
}

Table first_layer() {
  std::vector<std::int64_t> expert, count;
  for (int e = 0; e < 16; ++e) {
    expert.push_back(e);
    count.push_back(std::int64_t(120000 * share(0, e, 16)));
  }
  Column c{"assignments", "", "tokens that chose this expert", count, "load_counts", {7500}, 3};
  for (const auto n : count) {
    c.low.push_back(double(n) * 0.9 - 150);
    c.high.push_back(double(n) * 1.1 + 150);
  }
  return {"histogram",
          "Load of layer 0",
          "One bar an expert; the dashed line is an even load.",
          Chart::bars,
          {ints("expert", expert), c},
          "balance",
          false,
          {}};
}

Table domains() {
  const std::vector<std::string> name{"English", "中文", "mathematics", "code"};
  std::vector<std::int64_t> expert;
  for (int e = 0; e < 16; ++e)
    expert.push_back(e);
  Table t{"domains",
          "Hit rate by domain, layer 4",
          "Share of a domain's tokens that reach the expert. Bars of equal height: the expert does "
          "not care about the domain.",
          Chart::bars,
          {ints("expert", expert)},
          "specialisation",
          false,
          {}};
  for (int d = 0; d < 4; ++d) {
    std::vector<double> v;
    for (int e = 0; e < 16; ++e)
      v.push_back(0.05 + 0.1 * noise(d, e, 5) + ((e + d * 4) % 16 < 2 ? 0.35 : 0));
    t.columns.push_back(doubles(name[d], "", "share of the tokens of " + name[d], "domain_hit_rate",
                                v, std::vector<double>(16, 0.125)));
  }
  return t;
}

Table vocabulary() {
  return {"vocabulary",
          "Top tokens of the experts of layer 4",
          "The tokens that come most often to an expert.",
          Chart::none,
          {ints("expert", {0, 1, 2, 3}),
           texts("tokens",
                 {"the, of, and, to", "日 月 山 水 風", "\\frac, =, +, <<", "int, return, {, ;"},
                 "most frequent first"),
           doubles("share", "", "of its assignments that these tokens make up", "vocab_spec_expert",
                   {0.412, 0.3871, 0.00002, none}, {0.125, 0.125, 0.125, 0.125})},
          "specialisation",
          false,
          {}};
}

Table pairs(const std::string& id, int layers, int experts, bool signs) {
  std::vector<std::int64_t> layer, a, b;
  std::vector<double> v, chance;
  for (int l = 0; l < layers; ++l) {
    for (int i = 0; i < experts; ++i) {
      for (int j = 0; j < experts; ++j) {
        layer.push_back(l);
        a.push_back(i);
        b.push_back(j);
        const double x = noise(std::min(i, j) + 100 * l, std::max(i, j), signs ? 3 : 4);
        v.push_back(i == j  ? (signs ? 1 : none)
                    : signs ? 0.9 * (x - 0.4) * std::abs(x - 0.4) * 2
                            : 0.25 * x * x);
        chance.push_back(1.0 / (experts - 1));
      }
    }
  }
  Table t{id,
          signs ? "Cosine of expert weights" : "Experts chosen together",
          signs ? "Near 1: the two experts compute the same. Chance is about zero."
                : "P(column | row).",
          Chart::heatmap,
          {ints("layer", layer), ints("expert", a), ints("with", b)},
          signs ? "redundancy" : "pairs",
          true,
          {}};
  t.columns.push_back(signs ? doubles("cosine", "", "of gate, up and down taken together",
                                      "expert_weight_cosine", v)
                            : doubles("P(j|i)", "", "share of i's tokens that chose j too",
                                      "coactivation_conditional", v, chance));
  return t;
}

Table paths() {
  return {"paths",
          "Most travelled paths",
          "First choices through all layers.",
          Chart::bars,
          {texts("path", {"3→5→1→0→9→2→2→7", "0→5→1→4→9→2→12→7", "3→5→8→0→9→14→2→7",
                          "11→2→1→0→3→2→2→6", "3→5→1→0→9→2→2→1"}),
           doubles("share", "%", "of all tokens", "path_share", {1.92, 1.31, 0.87, 0.52, 0.51},
                   std::vector<double>(5, 0.02), 2)},
          "paths",
          false,
          {}};
}

Table lights() {
  Table t{
      "lights",
      "Balance at a glance",
      "The worst layer of each figure against two thresholds.",
      Chart::none,
      {texts("figure", {"load CV", "MaxVio", "dead experts", "balancedness of ranks"}),
       texts("light", {"yellow", "green", "red", "grey"}),
       doubles("worst", "", "of all layers", "", {0.54, 0.62, 0.06, 0.75}, {0.021, 0.05, 0, 0.78}),
       ints("layer", {6, 2, 3, 1}),
       texts("yellow, red",
             {"from 0.25, 0.75", "from 1, 2", "from 0.001, 0.05", "below 0.8, 0.7"})},
      "balance",
      false,
      {}};
  t.columns[1].light = true;
  t.columns[2].low = {0.48, 0.04, 0.06, 0.7};
  t.columns[2].high = {0.6, 0.7, 0.06, 0.8};
  return t;
}

TokenSample sample(const std::string& domain, const std::string& text, int layers, int experts) {
  TokenSample s{domain, {}, {}};
  for (const char c : text)
    s.piece.emplace_back(1, c);
  for (int l = 0; l < layers; ++l) {
    s.expert.emplace_back();
    for (std::size_t i = 0; i < text.size(); ++i) {
      s.expert[l].push_back(
          int(noise(l, static_cast<unsigned char>(text[i]), int(i) / 3) * experts));
    }
  }
  return s;
}

constexpr const char* poem =
    "春眠不覺曉，處處聞啼鳥。\n夜來風雨聲，花落知多少。\n白日依山盡，黃河入海流。\n欲窮千里目，更上"
    "一層樓。\n";
constexpr const char* sonnet =
    "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\nRough "
    "winds do shake the darling buds of May,\nAnd summer's lease hath all too short a date;\n";
constexpr const char* program =
    "int main(int argc, char** argv) {\n\tif (argc < 2) return usage(\"<file>\");\n\treturn "
    "run(argv[1]);\n}\n";

std::vector<Tile> tiles() {
  const Table lamps = lights();
  const Table by_layer = balance();
  std::vector<Tile> out;
  for (std::size_t i = 0; i < 4; ++i) {
    Column worst = lamps.columns[2];
    worst.cells = std::vector<double>{std::get<std::vector<double>>(worst.cells)[i]};
    worst.chance = {worst.chance[i]};
    worst.low = {worst.low[i]};
    worst.high = {worst.high[i]};
    out.push_back({.name = std::get<std::vector<std::string>>(lamps.columns[0].cells)[i],
                   .light = std::get<std::vector<std::string>>(lamps.columns[1].cells)[i],
                   .metric = "load_cv",
                   .table = "balance",
                   .layer = std::get<std::vector<std::int64_t>>(lamps.columns[3].cells)[i],
                   .worst = worst,
                   .by_layer = std::get<std::vector<double>>(by_layer.columns[1].cells),
                   .chance = by_layer.columns[1].chance,
                   .low_is_bad = i == 3,
                   .turns = i == 3 ? "below 0.8, 0.7" : "from 0.25, 0.75"});
  }
  return out;
}

std::vector<Finding> findings() {
  return {
      {"Layer 3 leaves 1 of 16 experts without a token; its max/min is infinite.",
       {{.table = "balance", .column = "layer", .row = 3},
        {.table = "balance", .column = "dead experts", .metric = "load_dead_fraction", .row = 3}}},
      {"The load is uneven in every layer: CV 0.31 to 0.54, where random routing of as many tokens "
       "gives 0.02.",
       {{.table = "balance",
         .column = "CV",
         .metric = "load_cv",
         .rows = 8,
         .use = Quote::Use::basis},
        {.table = "balance", .column = "CV", .metric = "load_cv", .use = Quote::Use::chance}}},
      {"Layer 4 separates 中文 from English most: 0.84 bits of mutual information (chance 0.00).",
       {}},
      {"Experts 2 and 9 of layer 6 have the most alike weights (cosine 0.61), below the limit of "
       "0.8.",
       {}}};
}

}  // namespace

Report realistic() {
  Report r;
  r.title = "Routing of runs/a at step 2,000";
  r.facts = {{"command", "moe report a.moetrace.h5 -o report.html"},
             {"version", "0.1.0 (ad6f26b)"},
             {"model", "tiny, 8 layers"},
             {"experts", "16, k = 2"},
             {"tokens", "60,000"},
             {"router", "softmax:k=2,norm=1"},
             {"seed", "7"},
             {"backend", "cpu"},
             {"data", "text:path=corpus,split=valid (English, 中文, mathematics, code)"}};
  r.findings = findings();
  r.tables = {load_map(8, 16), balance(),
              first_layer(),   domains(),
              vocabulary(),    pairs("coactivation", 4, 16, false),
              paths(),         pairs("cosine", 2, 16, true),
              lights()};
  for (int l = 0; l < 8; ++l)
    r.layers.push_back(l);
  r.samples = {sample("中文", poem, 8, 16), sample("English", sonnet, 8, 16),
               sample("code", program, 8, 16)};
  r.subject = "runs/a, 60,000 tokens, 8 MoE layers x 16 experts, k=2";
  r.tiles = tiles();
  r.findings[0].priority = Priority::red;
  r.findings[3].priority = Priority::chance;
  return r;
}

namespace {

Table odd() {
  Column whole{
      "count",         "", "how many", std::vector<std::int64_t>{-3, 1234567, 0}, "load_counts",
      {1.5, 1.5, 1.5}, 3};
  Table t{"odd",
          "Odd <values>",
          "A sentence about it.",
          Chart::bars,
          {texts("name", {"<script>x</script>", "a|b,\"c\"\nd", "中\xE6"}, "a name"), whole,
           doubles("ratio", "x", "of what to what", "ratio", {none, infinite, -infinite},
                   {0.5, none, infinite}, 2),
           doubles("tiny", "", "", "tiny", {1e-7, 0, 0.5}, {}, 2)},
          "first",
          false,
          {"a <warning>"}};
  t.columns[3].chance = {0.5, 0.01, 0.45};
  t.columns[3].low = {none, 0, 0.4};
  t.columns[3].high = {none, 0.02, 0.6};
  return t;
}

std::vector<Table> awkward_tables() {
  return {odd(),
          {"map",
           "Small map",
           "",
           Chart::heatmap,
           {ints("layer", {0, 0, 1, 1}), ints("expert", {0, 1, 0, 1}),
            doubles("share", "", "", "load_fraction", {0.25, 0.75, none, infinite}, {0.5}, 2)},
           "second",
           true,
           {}},
          {"line",
           "Two lines",
           "",
           Chart::lines,
           {ints("layer", {0, 1, 2}), doubles("a", "", "", "m", {0.1, none, 0.3}, {0.2}),
            doubles("b", "", "", "m", {infinite, 0.2, 0.1})},
           "second",
           false,
           {}},
          {"hollow",
           "No rows",
           "",
           Chart::bars,
           {ints("x", {}), doubles("y", "", "", "m", {})},
           "second",
           false,
           {}},
          {"bare", "No columns", "", Chart::none, {}, "", false, {}}};
}

}  // namespace

Report awkward() {
  Report r;
  r.title = "A <script>alert(1)</script> & \"quotes\"";
  r.facts = {{"seed", "7"}, {"file", "a,b\"c|d.h5"}, {"bad", "\xFF\x1b[31m"}};
  r.findings = {{"Expert 1 has <b>all</b> the load | really.", {}}};
  r.warnings = {"Only 3 tokens."};
  r.tables = awkward_tables();
  r.tables[2].columns[1].low = {0.05, none, 0.22};
  r.tables[2].columns[1].high = {0.18, none, 0.37};
  r.layers = {1, 3};
  r.samples = {{"<mixed>",
                {"a", "<", "\xE4", "\xB8", "\xAD", "\xE4", "b", "", "\n"},
                {{0, 1, 2, 2, 1, 0, 1, -1, 0}, {1, 1, 1, 0, 0, 0, 2, 2, -1}}}};
  return r;
}

Report large(int layers, int experts) {
  Report r;
  r.title = "Large";
  r.tables = {load_map(layers, experts), pairs("coactivation", 4, experts, false),
              pairs("cosine", 1, experts, true)};
  std::string text;
  for (int i = 0; i < 4; ++i)
    text += std::string(poem) + sonnet;
  for (int l = 0; l < layers; ++l)
    r.layers.push_back(l);
  r.samples = {sample("mixed", text, layers, experts)};
  return r;
}

}  // namespace moe::test
