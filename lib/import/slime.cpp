// Rollouts of slime and miles (--save-debug-rollout-data with routing replay): {samples: [dict]},
// a dict has tokens, response_length and rollout_routed_experts [tokens - 1, hidden layers, K], a
// tensor or, in older versions, a NumPy array.
#include "lib/core/text.h"
#include "lib/import/responses.h"

namespace moe {
namespace {

const char* const as_saved = "a rollout saved with --use-rollout-routing-replay";

std::vector<std::int32_t> tokens_of(const PickleValue& v, const std::string& where) {
  std::vector<std::int32_t> out;
  const auto add = [&](std::int64_t id) {
    if (id < 0 || id > INT32_MAX)
      refuse_import(where, concat("has the token id ", id), as_saved);
    out.push_back(std::int32_t(id));
  };
  if (v.is(PickleKind::array)) {
    v.array().must_be_whole();
    v.array().must_have(1, "[tokens]");
    for (Index i = 0; i < v.array().shape[0]; ++i)
      add(v.array().whole(v.array().place(i)));
    return out;
  }
  for (Index i = 0; i < v.size(); ++i)
    add(v.item(i).whole());
  return out;
}

class Slime final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    const ImportFile& f = in.first();
    return f.kind == FileKind::torch && f.torch->root().is(PickleKind::dict) &&
           f.torch->root().find("samples");
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "sglang";
    for (const ImportFile* f : in.of_kind(FileKind::torch))
      read_file(in, *f, sink);
  }

 private:
  static void read_file(const ImportInputs&, const ImportFile&, ImportSink&);
  static bool say(const ImportInputs&, ImportSink&, const PickleValue&, const std::string& where,
                  const std::string& domain);
};

bool Slime::say(const ImportInputs& in, ImportSink& sink, const PickleValue& sample,
                const std::string& where, const std::string& domain) {
  const auto routes = sample.find("rollout_routed_experts");
  if (!routes || routes->is(PickleKind::none))
    return false;
  const auto tokens = sample.find("tokens");
  if (!tokens)
    refuse_import(where, "has no tokens", as_saved);
  RoutedRequest q;
  q.where = concat(where, " rollout_routed_experts");
  q.domain = domain;
  q.tokens = tokens_of(*tokens, where);
  q.total = Index(q.tokens.size());
  const auto response = sample.find("response_length");
  if (response && response->is(PickleKind::whole)) {
    q.prompt = q.total - response->whole();
    if (q.prompt < 0 || q.prompt > q.total)
      refuse_import(where,
                    concat("has a response of ", response->whole(), " of ", q.total, " tokens"),
                    as_saved);
  }
  q.routes = route_array(routes->array());
  leave_out_fused(q.routes, sink);
  if (q.routes.rows != q.total - 1) {
    refuse_import(
        q.where,
        concat("has ", q.routes.rows, " rows, and ", q.total, " tokens want ", q.total - 1),
        as_saved);
  }
  sink.say("the last token of a sample has no routes");
  say_request(in, sink, q);
  return true;
}

void Slime::read_file(const ImportInputs& in, const ImportFile& f, ImportSink& sink) {
  const auto samples = f.torch->root().find("samples");
  if (!samples)
    refuse_import(f.quoted(), "has no samples", as_saved);
  Index without = 0;
  for (Index i = 0; i < samples->size(); ++i)
    without += !say(in, sink, samples->item(i), concat(f.quoted(), " sample ", i), in.domain_of(f));
  if (without == samples->size())
    refuse_import(f.quoted(), "has no sample with rollout_routed_experts", as_saved);
  if (without > 0)
    sink.say(concat(without, " samples without routes were passed over"));
}

}  // namespace

std::unique_ptr<Importer> make_slime_importer() {
  return std::make_unique<Slime>();
}

}  // namespace moe
