// Responses of Megatron's dynamic inference server: choices[].moe_topk_indices [rows][MoE
// layers][K]; prompt_moe_topk_indices repeats its first rows and is passed over.
#include "lib/core/text.h"
#include "lib/import/responses.h"

namespace moe {
namespace {

class MegatronChat final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return in.any_mentions("\"moe_topk_indices\"");
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "megatron";
    for (const ImportFile& f : in.files()) {
      each_json(f, [&](std::string_view json, const std::string& where) {
        take(in, sink, json, where, in.domain_of(f));
      });
    }
  }

 private:
  static void take(const ImportInputs&, ImportSink&, std::string_view, const std::string& where,
                   const std::string& domain);
};

void MegatronChat::take(const ImportInputs& in, ImportSink& sink, std::string_view text,
                        const std::string& where, const std::string& domain) {
  std::vector<RouteArray> choices;
  Index prompt = -1;
  Index completion = -1;
  JsonCursor json(text, where);
  json.members([&](const std::string& key) {
    if (key == "choices") {
      json.elements([&] {
        json.members([&](const std::string& name) {
          if (name == "moe_topk_indices" && !json.null())
            choices.push_back(route_lists(json, "moe_topk_indices"));
          else if (name != "moe_topk_indices")
            json.skip();
        });
      });
    } else if (key == "usage" && json.next() == '{') {
      json.members([&](const std::string& name) {
        if (name == "prompt_tokens" && !json.null())
          prompt = json.whole();
        else if (name == "completion_tokens" && !json.null())
          completion = json.whole();
        else
          json.skip();
      });
    } else {
      json.skip();
    }
  });
  json.end();
  if (choices.empty())
    sink.say("responses without routes were passed over");
  for (std::size_t i = 0; i < choices.size(); ++i) {
    RoutedRequest q;
    q.where = concat(where, " choice ", i);
    q.routes = std::move(choices[i]);
    q.prompt = prompt;
    q.domain = domain;
    q.moe_layers_only = true;
    if (choices.size() == 1 && prompt >= 0 && completion >= 0)
      q.total = prompt + completion;
    sink.say("the last token of a request has no routes");
    say_request(in, sink, q);
  }
}

}  // namespace

std::unique_ptr<Importer> make_megatron_chat_importer() {
  return std::make_unique<MegatronChat>();
}

}  // namespace moe
