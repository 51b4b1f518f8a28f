// OLMoE's routing analysis (scripts/run_moe_analysis.py): JSON lines of input_ids,
// predicted_token_ids and exp_ids [token][choice][layer], by falling logit; the layer is the last
// axis, also where it is as long as another one.
#include "lib/core/text.h"
#include "lib/import/responses.h"

namespace moe {
namespace {

struct Line {
  std::vector<std::int32_t> tokens, predicted, ids;
  std::vector<Index> shape;
};

Line parse(std::string_view text, const std::string& where) {
  Line l;
  JsonCursor json(text, where);
  json.members([&](const std::string& key) {
    if (key == "input_ids")
      json.wholes("input_ids", {"tokens"}, l.tokens);
    else if (key == "predicted_token_ids" && !json.null())
      json.wholes("predicted_token_ids", {"tokens"}, l.predicted);
    else if (key == "exp_ids")
      l.shape = json.wholes("exp_ids", {"tokens", "choices", "layers"}, l.ids);
    else if (key != "predicted_token_ids")
      json.skip();
  });
  json.end();
  if (l.shape.empty())
    json.refuse("has no exp_ids");
  const auto n = Index(l.tokens.size());
  if (l.shape[0] != n)
    json.refuse(concat("has exp_ids of ", l.shape[0], " tokens, and input_ids of ", n));
  if (!l.predicted.empty() && Index(l.predicted.size()) != n)
    json.refuse(
        concat("has predicted_token_ids of ", l.predicted.size(), " tokens, and input_ids of ", n));
  return l;
}

class Olmoe final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return in.any_mentions("\"exp_ids\"");
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "transformers";
    sink.facts.order = "key_desc";
    for (const ImportFile& f : in.files()) {
      each_json(f, [&](std::string_view json, const std::string& where) {
        say(sink, parse(json, where), where, in.domain_of(f));
      });
    }
  }

 private:
  static void say(ImportSink&, const Line&, const std::string& where, const std::string& domain);
};

void Olmoe::say(ImportSink& sink, const Line& l, const std::string& where,
                const std::string& domain) {
  const Index rows = l.shape[0];
  if (rows == 0)
    return;
  const Index choices = l.shape[1];
  const Index layers = l.shape[2];
  std::vector<int> numbers;
  for (Index i = 0; i < layers; ++i)
    numbers.push_back(int(i));
  ImportBlock b = make_block(numbers, rows, choices, where);
  const std::int32_t* from = l.ids.data();
  for (Index t = 0; t < rows; ++t) {
    for (Index k = 0; k < choices; ++k) {
      for (Index i = 0; i < layers; ++i)
        b.rows.layer[i].expert(t, k) = *from++;
    }
  }
  b.rows.token_id.assign(l.tokens.begin(), l.tokens.end());
  b.rows.predicted_id.assign(l.predicted.begin(), l.predicted.end());
  sink.sequence(domain);
  sink.rows(std::move(b));
}

}  // namespace

std::unique_ptr<Importer> make_olmoe_importer() {
  return std::make_unique<Olmoe>();
}

}  // namespace moe
