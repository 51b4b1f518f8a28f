// speculative-moe's profile: JSON lines {dataset, problem_id, layer, token_idx, experts,
// gating_probs}, layer by layer within a problem; decode only. Its recorder threw tokens away whose
// weights were exactly 0.5 and 0.5, so tokens may be missing without a trace.
#include "lib/core/text.h"
#include "lib/files/json_cursor.h"
#include "lib/files/mapped_lines.h"
#include "lib/import/inputs.h"
#include "lib/import/pass_gather.h"

namespace moe {
namespace {

struct Line {
  std::string dataset, problem;
  GatheredRow row;
};

void check(JsonCursor& json, const Line& l) {
  const GatheredRow& row = l.row;
  if (row.token < 0 || row.layer < 0 || row.ids.empty())
    json.refuse("has no layer, token_idx or experts");
  if (row.token > UINT32_MAX)
    json.refuse(concat("has token ", row.token));
  if (row.weights.size() != row.ids.size()) {
    json.refuse(
        concat("has ", row.ids.size(), " experts and ", row.weights.size(), " gating_probs"));
  }
}

Line parse(std::string_view text, const std::string& where) {
  Line l;
  l.row.where = where;
  l.row.flags = token_flag::decode;
  l.row.token = -1;
  l.row.layer = -1;
  JsonCursor json(text, where);
  json.members([&](const std::string& key) {
    if (key == "dataset")
      l.dataset = json.text();
    else if (key == "problem_id")
      l.problem = json.raw();
    else if (key == "layer")
      l.row.layer = int(std::min<std::int64_t>(json.whole(), 1 << 20));
    else if (key == "token_idx")
      l.row.token = json.whole();
    else if (key == "experts")
      json.wholes("experts", {"ids"}, l.row.ids);
    else if (key == "gating_probs")
      json.reals("gating_probs", {"weights"}, l.row.weights);
    else
      json.skip();
  });
  json.end();
  check(json, l);
  return l;
}

class Speculative final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return in.any_mentions("\"gating_probs\"") && in.any_mentions("\"token_idx\"");
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "vllm";
    for (const ImportFile& f : in.files())
      read_file(f, sink);
    sink.say("decode tokens only");
    sink.say(
        "tokens whose weights were exactly 0.5 and 0.5 are missing: the recorder threw them "
        "away");
  }

 private:
  static void read_file(const ImportFile&, ImportSink&);
};

void Speculative::read_file(const ImportFile& f, ImportSink& sink) {
  PassGather gather(sink, false);
  MappedLines lines(f.path);
  std::string_view text;
  std::string dataset;
  std::string problem;
  bool begun = false;
  while (lines.next(text)) {
    if (text.find_first_not_of(" \t") == text.npos)
      continue;
    Line line = parse(text, lines.where());
    if (!begun || line.dataset != dataset || line.problem != problem) {
      gather.flush();
      sink.sequence(line.dataset);
      dataset = line.dataset;
      problem = line.problem;
      begun = true;
    }
    gather.add(std::move(line.row));
  }
  gather.flush();
}

}  // namespace

std::unique_ptr<Importer> make_speculative_importer() {
  return std::make_unique<Speculative>();
}

}  // namespace moe
