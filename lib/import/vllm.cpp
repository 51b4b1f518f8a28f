// Responses of vLLM (serve --enable-return-routed-experts): each choice has a base64 text of a .npy
// file [prompt + completion - 1 - N, hidden layers, K]. Releases near 0.21 had lists of MoE layers
// only, the prompt's apart, with a row for every token.
#include "lib/core/text.h"
#include "lib/files/base64.h"
#include "lib/import/responses.h"

namespace moe {
namespace {

const char* const as_served = "the response as vLLM gave it";

struct Choice {
  bool routed = false, lists = false;
  RouteArray routes;
  std::vector<std::int32_t> prompt, completion;
};

struct Response {
  std::vector<Choice> choices;
  std::vector<std::int32_t> prompt;
  RouteArray prompt_routes;
  Index prompt_tokens = -1, completion_tokens = -1;
};

class Vllm final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return in.any_mentions("\"routed_experts\"") && in.any_mentions("\"choices\"");
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "vllm";
    for (const ImportFile& f : in.files())
      read_file(in, sink, f);
  }

 private:
  static void read_file(const ImportInputs&, ImportSink&, const ImportFile&);
  static void take(const ImportInputs&, ImportSink&, const ImportFile&, Response&,
                   const std::string& where);
  static void say(const ImportInputs&, ImportSink&, Response&, Choice&, std::string where,
                  const std::string& domain);
};

RouteArray packed(JsonCursor& json) {
  std::string scratch;
  Bytes bytes;
  if (!read_base64(json.text(scratch), bytes))
    json.refuse("has routed_experts that are no base64", as_served);
  return route_array(npy_array(bytes, concat(json.where(), " routed_experts")));
}

std::vector<std::int32_t> token_list(JsonCursor& json, const char* name) {
  std::vector<std::int32_t> out;
  if (!json.null())
    json.wholes(name, {"tokens"}, out);
  return out;
}

void parse_choice(JsonCursor& json, Choice& c) {
  json.members([&](const std::string& key) {
    if (key == "routed_experts" && !json.null()) {
      c.routed = true;
      c.lists = json.next() == '[';
      c.routes = c.lists ? route_lists(json, "routed_experts") : packed(json);
    } else if (key == "token_ids") {
      c.completion = token_list(json, "token_ids");
    } else if (key == "prompt_token_ids") {
      c.prompt = token_list(json, "prompt_token_ids");
    } else if (key != "routed_experts") {
      json.skip();
    }
  });
}

Response parse(const JsonText& line) {
  Response r;
  JsonCursor json(line.text, line.where);
  json.members([&](const std::string& key) {
    if (key == "choices") {
      json.elements([&] { parse_choice(json, r.choices.emplace_back()); });
    } else if (key == "prompt_token_ids") {
      r.prompt = token_list(json, "prompt_token_ids");
    } else if (key == "prompt_routed_experts") {
      if (!json.null())
        r.prompt_routes = route_lists(json, "prompt_routed_experts");
    } else if (key == "usage" && json.next() == '{') {
      json.members([&](const std::string& usage) {
        if (usage == "prompt_tokens" && !json.null())
          r.prompt_tokens = json.whole();
        else if (usage == "completion_tokens" && !json.null())
          r.completion_tokens = json.whole();
        else
          json.skip();
      });
    } else {
      json.skip();
    }
  });
  json.end();
  return r;
}

void Vllm::read_file(const ImportInputs& in, ImportSink& sink, const ImportFile& file) {
  each_parsed_json<Response>(file, parse, [&](Response& response, const std::string& where) {
    take(in, sink, file, response, where);
  });
}

void Vllm::take(const ImportInputs& in, ImportSink& sink, const ImportFile& file, Response& r,
                const std::string& where) {
  bool any = false;
  for (std::size_t i = 0; i < r.choices.size(); ++i) {
    if (!r.choices[i].routed)
      continue;
    if (any && r.prompt_routes.rows == 0)
      sink.say("the prompt's rows are repeated in every choice");
    any = true;
    say(in, sink, r, r.choices[i], concat(where, " choice ", i), in.domain_of(file));
  }
  if (!any)
    sink.say("responses without routes were passed over");
}

namespace {

// Routes of the prompt before those of the answer.
void prepend(const RouteArray& prompt, const std::string& where, RouteArray& routes) {
  if (prompt.rows == 0)
    return;
  if (prompt.layers != routes.layers || prompt.choices != routes.choices)
    refuse_import(where, "has routes of another shape than its prompt", as_served);
  routes.rows += prompt.rows;
  routes.ids.insert(routes.ids.begin(), prompt.ids.begin(), prompt.ids.end());
}

}  // namespace

void Vllm::say(const ImportInputs& in, ImportSink& sink, Response& r, Choice& c, std::string where,
               const std::string& domain) {
  RoutedRequest q;
  q.where = std::move(where);
  q.domain = domain;
  std::vector<std::int32_t>& prompt = c.prompt.empty() ? r.prompt : c.prompt;
  // the counts of a response are of its only choice, or of all
  const bool ids = !prompt.empty() && !c.completion.empty();
  q.prompt = ids || !prompt.empty() ? Index(prompt.size()) : r.prompt_tokens;
  const Index completion = !c.completion.empty()   ? Index(c.completion.size())
                           : r.choices.size() == 1 ? r.completion_tokens
                                                   : -1;
  if (q.prompt >= 0 && completion >= 0)
    q.total = q.prompt + completion;
  q.tokens = prompt;
  q.tokens.resize(std::size_t(std::max<Index>(q.prompt, Index(prompt.size()))), -1);
  q.tokens.insert(q.tokens.end(), c.completion.begin(), c.completion.end());
  q.routes = std::move(c.routes);
  leave_out_fused(q.routes, sink);
  prepend(r.prompt_routes, q.where, q.routes);
  q.moe_layers_only = c.lists;
  const bool every = c.lists && q.total >= 0 && q.routes.rows == q.total;
  if (!every)
    sink.say("the last token of a request has no routes");
  if (!every && q.total >= 0)
    q.start = std::max<Index>(0, q.total - 1 - q.routes.rows);
  say_request(in, sink, q);
}

}  // namespace

std::unique_ptr<Importer> make_vllm_importer() {
  return std::make_unique<Vllm>();
}

}  // namespace moe
