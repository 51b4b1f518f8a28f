// Every format of exporters.def, exported and imported again: the same experts, and whatever else
// the format says that it carries. Traces with few things and with many, with layers that are
// dense, with slots that are empty or were dropped, with padding, and with counts alone.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "lib/export/export.h"
#include "lib/files/json.h"
#include "lib/trace/writer.h"
#include "tests/import/made.h"
#include "tests/page.h"

using namespace moe;
using namespace moe::test;

namespace {

struct Shape {
  std::vector<int> layers{0, 1};
  int experts = 8;
  Index k = 2;
  std::vector<std::uint32_t> lengths{5, 1, 7};  // of the sequences
  bool weights = false, wide = false, dropped = false, tokens = false, domains = false,
       phases = false, gaps = false, late = false /*positions begin at 3*/, padding = false,
       modalities = false;
};

std::uint8_t flags_of(const Shape& s, std::uint32_t q, std::uint32_t at) {
  const bool padding = s.padding && at == 2;
  const int phase = !s.phases ? 0 : at < 3 ? token_flag::prompt : token_flag::decode;
  return std::uint8_t(phase | (padding && q % 2 == 0 ? token_flag::padding : 0));
}

// Token t of all: its experts are distinct and differ from layer to layer.
TraceRows row_of(const Shape& s, std::uint32_t t, std::uint32_t q, std::uint32_t at) {
  TraceRows r;
  r.token_id = {s.tokens ? 100 + t : withheld_token};
  r.position = {at + (s.late ? 3 : 0)};
  r.flags = {flags_of(s, q, at)};
  if (s.modalities)
    r.modality = {t % 5 == 4 ? std::uint8_t(modality::unknown) : std::uint8_t(t % 5)};
  for (std::size_t l = 0; l < s.layers.size(); ++l) {
    LayerRows& own = r.layer.emplace_back();
    own.expert = Matrix<int>(1, s.k);
    if (s.weights)
      own.weight = Matrix<float>(1, s.k);
    if (s.dropped)
      own.dropped = Matrix<std::uint8_t>(1, s.k);
    for (Index k = 0; k < s.k; ++k) {
      own.expert(0, k) = int((t * 5 + l * 3 + std::uint32_t(k)) % std::uint32_t(s.experts));
      if (s.weights)
        own.weight(0, k) = s.wide ? 1.0f / float(t + 3 + k) : 0.5f / float(1 << (t % 4 + k));
      if (s.dropped)
        own.dropped(0, k) = (t + k + Index(l)) % 3 == 0;
    }
    if (s.gaps && t % 3 == 1)
      own.expert(0, s.k - 1) = -1;
  }
  return r;
}

TraceHeader header_of(const Shape& s) {
  TraceHeader h;
  for (const int number : s.layers) {
    TraceLayer l;
    l.index = number;
    l.experts = s.experts;
    l.top_k = int(s.k);
    h.layers.push_back(l);
  }
  h.wide_weights = s.wide;
  h.order = "weight_desc";
  if (s.modalities)
    h.modalities = {"touch", "text", "image", "a picture"};
  if (s.domains)
    h.domains = {"prose", "a, \"quoted\" label", "\xC3\xA9t\xC3\xA9"};
  return h;
}

void write_trace(const Shape& s, const std::filesystem::path& path) {
  TraceWriterOptions w;
  w.fields = {.weights = s.weights,
              .dropped = s.dropped,
              .kept = false,
              .entropy = false,
              .margin = false,
              .logsumexp = false,
              .modality = s.modalities};
  TraceWriter writer(path, header_of(s), w);
  writer.step({0, 0, 0, Phase::eval});
  std::uint32_t t = 0;
  for (std::uint32_t q = 0; q < s.lengths.size(); ++q) {
    writer.sequence(s.domains && q != 1 ? std::uint16_t(q) : no_domain);
    for (std::uint32_t at = 0; at < s.lengths[q]; ++at)
      writer.append(row_of(s, t++, q, at));
  }
  writer.finish();
}

// A token as it can be compared, without what a format does not carry.
struct Token {
  std::string experts, weights, dropped, domain, modality;
  std::uint32_t id = 0, position = 0, sequence = 0;
  int phase = 0;
  bool operator==(const Token&) const = default;
};

std::string weight_text(const LayerRows& l, Index t) {
  std::string out;
  for (Index k = 0; k < l.weight.cols(); ++k)
    out += l.expert(t, k) < 0 ? "- " : concat(l.weight(t, k), " ");
  return out;
}

std::string dropped_text(const LayerRows& l, Index t) {
  std::string out;
  for (Index k = 0; k < l.expert.cols(); ++k)
    out += !l.dropped.empty() && l.expert(t, k) >= 0 && l.dropped(t, k) ? '1' : '0';
  return out;
}

std::string expert_text(std::span<const int> ids) {
  std::string out;
  for (const int id : ids)
    out += concat(id, " ");
  return out;
}

Token token_of(const TraceReader& trace, const TraceRows& r, std::size_t t,
               const ExportCarries& c) {
  Token out;
  for (std::size_t l = 0; l < r.layer.size(); ++l) {
    if (c.layer_numbers)
      out.experts += concat("layer ", trace.header().layers[l].index, ": ");
    out.experts += expert_text(r.layer[l].expert.row(Index(t))) + "| ";
    if (c.weights)
      out.weights += weight_text(r.layer[l], Index(t)) + "| ";
    if (c.dropped)
      out.dropped += dropped_text(r.layer[l], Index(t)) + "| ";
  }
  const TraceSequence& q = trace.sequences()[r.sequence[t]];
  if (c.domains && q.domain < trace.header().domains.size())
    out.domain = trace.header().domains[q.domain];
  const auto& names = trace.header().modalities;
  if (c.modalities && !r.modality.empty() && r.modality[t] < names.size())
    out.modality = names[r.modality[t]];
  out.id = c.token_ids ? r.token_id[t] : 0;
  out.position = c.positions ? r.position[t] : 0;
  out.sequence = c.sequences ? r.sequence[t] : 0;
  out.phase = c.phases ? r.flags[t] & (token_flag::prompt | token_flag::decode) : 0;
  return out;
}

std::vector<Token> tokens_of(const std::filesystem::path& path, const ExportCarries& c) {
  const TraceReader trace(path);
  const TraceRows r = trace.read(0, trace.tokens(), trace.fields());
  std::vector<Token> out;
  for (std::size_t t = 0; t < r.tokens(); ++t) {
    if (r.valid(t))
      out.push_back(token_of(trace, r, t, c));
  }
  return out;
}

using Counts = std::vector<std::vector<std::uint64_t>>;  // [layers][experts]

Counts counts_of(const std::filesystem::path& path) {
  const TraceReader trace(path);
  const auto experts = std::size_t(trace.header().max_experts());
  Counts out(trace.header().layers.size(), std::vector<std::uint64_t>(experts));
  const TraceRows r = trace.read(0, trace.tokens(), trace.fields());
  for (std::size_t l = 0; l < r.layer.size(); ++l) {
    for (Index t = 0; t < Index(r.tokens()); ++t) {
      for (const int id : r.layer[l].expert.row(t))
        out[l][std::size_t(std::max(id, 0))] += id >= 0 && r.valid(std::size_t(t));
    }
  }
  return out;
}

std::string text_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Exported {
  std::string refusal;
  ExportResult result;
  bool says(const std::string& part) const {
    return join(result.said, "\n").find(part) != std::string::npos;
  }
};

Exported export_file(const Folder& f, const std::string& to, ExportOptions o = {},
                     const std::string& target = "out") {
  Exported out;
  o.to = to;
  try {
    out.result = export_trace(f / "t.moetrace.h5", o, f / target, true);
  } catch (const Error& e) {
    out.refusal = e.what();
    CHECK(!std::filesystem::exists(f / target));
  }
  return out;
}

void import_file(const Folder& f, int experts) {
  ImportOptions o;
  o.inputs = {f / "out"};
  o.experts = experts;
  import_trace(o, f / "back.moetrace.h5", {}, true);
}

std::vector<Shape> shapes() {
  Shape many;
  many.layers = {1, 2, 5};
  many.k = 3;
  many.weights = many.dropped = many.tokens = many.domains = many.phases = many.padding =
      many.modalities = true;
  Shape wide = many;
  wide.wide = true;
  wide.late = true;
  wide.experts = 40'000;
  Shape gaps;
  gaps.gaps = gaps.tokens = gaps.weights = true;
  Shape top_1;
  top_1.layers = {2, 3};
  top_1.k = 1;
  top_1.lengths = {9000};
  return {Shape{}, many, wide, gaps, top_1};
}

}  // namespace

TEST_CASE("every exported format is imported again as the same routing") {
  for (const auto& entry : exporters().entries()) {
    const std::string name(entry.name);
    const ExportCarries carries = entry.make()->carries();
    int number = 0;
    for (const Shape& s : shapes()) {
      INFO(name << ", shape " << number++);
      const Folder f;
      write_trace(s, f / "t.moetrace.h5");
      const Exported out = export_file(f, name);
      REQUIRE(out.refusal == "");
      CHECK(out.result.layers == s.layers.size());
      if (!carries.rows) {
        CHECK((Json::parse(text_of(f / "out")).get<Counts>() == counts_of(f / "t.moetrace.h5")));
        continue;
      }
      import_file(f, carries.experts ? 0 : s.experts);
      CHECK(
          (tokens_of(f / "back.moetrace.h5", carries) == tokens_of(f / "t.moetrace.h5", carries)));
      if (carries.order && name == "npz")
        CHECK(TraceReader(f / "back.moetrace.h5").header().order == "weight_desc");
      if (carries.experts)
        CHECK(TraceReader(f / "back.moetrace.h5").header().max_experts() == s.experts);
    }
  }
}

TEST_CASE("what a format has no place for is said") {
  const Folder f;
  write_trace(shapes()[1], f / "t.moetrace.h5");
  const Exported replay = export_file(f, "replay-npy");
  CHECK(replay.says("replay-npy has no place for combine weights"));
  CHECK(replay.says("token ids"));
  CHECK(replay.says("modalities"));
  CHECK(replay.says("3 hidden layers without experts are -1"));
  CHECK(replay.says("--sequence N takes one"));
  CHECK(replay.says("2 padding rows are left out"));
  const Exported npz = export_file(f, "npz");
  CHECK(!npz.says("no place"));
  CHECK(export_file(f, "eplb-json").says("counts alone"));
}

TEST_CASE("one sequence, domain or phase is exported alone") {
  const Folder f;
  const Shape s = shapes()[1];
  write_trace(s, f / "t.moetrace.h5");
  ExportOptions o;
  o.sequence = 2;
  CHECK(export_file(f, "replay-npy", o).result.tokens == 6);
  o = {};
  o.domain = "prose";
  CHECK(export_file(f, "npz", o).result.tokens == 4);
  o = {};
  o.phase = "decode";
  CHECK(export_file(f, "csv", o).result.tokens == 6);
  o.phase = "train";
  CHECK_THAT(export_file(f, "csv", o, "none").refusal, Catch::Contains("no token of that choice"));
  o = {};
  o.sequence = 3;
  CHECK_THAT(export_file(f, "csv", o, "none").refusal,
             Catch::Contains("no sequence 3: the trace has 3"));
  o = {};
  o.domain = "prosa";
  CHECK_THAT(export_file(f, "csv", o, "none").refusal, Catch::Contains("no domain named 'prosa'"));
}

TEST_CASE("counts alone become counts, and nothing else") {
  const Folder f;
  ImportOptions o;
  o.inputs = {f.put("a.json", "[[3, 0, 5, 1], [2, 2, 2, 3]]"),
              f.put("b.json", "[[1, 1, 0, 0], [0, 0, 1, 1]]")};
  import_trace(o, f / "t.moetrace.h5", {}, false);
  for (const auto& entry : exporters().entries()) {
    INFO(entry.name);
    const std::string name(entry.name);
    const Exported out = export_file(f, name, {}, name);
    if (entry.make()->carries().rows) {
      CHECK_THAT(out.refusal, Catch::Contains("counts of tokens per expert and no tokens"));
      continue;
    }
    CHECK(out.refusal == "");
    CHECK((Json::parse(text_of(f / name)).get<Counts>() == Counts{{4, 1, 5, 1}, {2, 2, 3, 4}}));
    ExportOptions part;
    part.phase = "decode";
    CHECK_THAT(export_file(f, name, part, "part").refusal, Catch::Contains("counts alone"));
  }
}

TEST_CASE("what a format cannot express is refused") {
  const Folder f;
  TraceHeader h = header_of(Shape{});
  h.layers[1].experts = 6;
  TraceWriterOptions w;
  w.fields = {.weights = false,
              .dropped = false,
              .kept = false,
              .entropy = false,
              .margin = false,
              .logsumexp = false};
  {
    TraceWriter writer(f / "t.moetrace.h5", h, w);
    writer.step({});
    writer.sequence(no_domain);
    TraceRows r = row_of(Shape{}, 0, 0, 0);
    r.layer[0].expert(0, 1) = r.layer[0].expert(0, 0);
    writer.append(r);
    writer.append(row_of(Shape{}, 0, 0, 1));
    writer.finish();
  }
  CHECK_THAT(export_file(f, "eplb-json").refusal,
             Catch::Contains("8 experts in layer 0 and 6 in layer 1"));
  CHECK_THAT(export_file(f, "replay-npy").refusal, Catch::Contains("would shift what is replayed"));
  const Exported rows = export_file(f, "jsonl");
  CHECK(rows.result.tokens == 1);
  CHECK(rows.says("1 tokens that have one expert in several slots"));
  ExportOptions o;
  CHECK_THAT(export_file(f, "pt", o, "none").refusal, Catch::Contains("no export format named"));
}

TEST_CASE("docs/export.md names every format") {
  std::set<std::string> named;
  for (const auto& row : table_of("export.md", {"`--to`", "what it is"})) {
    for (const std::string& name : code_spans(row.at(0)))
      named.insert(name);
  }
  std::set<std::string> known;
  for (const auto& entry : exporters().entries())
    known.insert(std::string(entry.name));
  CHECK(named == known);
}
