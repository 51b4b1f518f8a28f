// Responses with meta_info.routed_experts. SGLang: base64 of little-endian int32 [rows, hidden
// layers, K] without its shape, which config.json knows; rows = prompt + completion - 1 - start,
// and start is not in the response. LMDeploy: lists [rows][hidden layers][K], or a string that is
// the key of a store.
#include <cstring>

#include "lib/core/text.h"
#include "lib/files/base64.h"
#include "lib/import/responses.h"

namespace moe {
namespace {

const char* const as_served = "the response as the server gave it";

struct Response {
  std::vector<std::int32_t> output;
  Index prompt = -1, completion = -1;
  RouteArray routes;  // lists
  Bytes packed;       // base64
  bool listed = false, coded = false;
};

// What a base64 text that is none may be.
enum class Text : std::uint8_t { numbers, store_key };

void parse_routes(JsonCursor& json, Response& r, Text meaning) {
  if (json.null())
    return;
  if (json.next() == '[') {
    r.listed = true;
    r.routes = route_lists(json, "routed_experts");
    return;
  }
  std::string scratch;
  const std::string_view text = json.text(scratch);
  if (meaning == Text::store_key)
    json.refuse("has a text as routed_experts: the key of a shared store, in which the routes lay",
                "LMDeploy without a Ray store, so that responses hold the lists");
  r.coded = true;
  if (!read_base64(text, r.packed) || r.packed.span.size() % 4 != 0)
    json.refuse("has routed_experts that are no base64 of int32", as_served);
}

Response parse(std::string_view text, const std::string& where, Text meaning) {
  Response r;
  JsonCursor json(text, where);
  json.members([&](const std::string& key) {
    if (key == "output_ids" && !json.null()) {
      json.wholes("output_ids", {"tokens"}, r.output);
    } else if (key == "meta_info" && json.next() == '{') {
      json.members([&](const std::string& name) {
        if (name == "routed_experts")
          parse_routes(json, r, meaning);
        else if (name == "prompt_tokens" && !json.null())
          r.prompt = json.whole();
        else if (name == "completion_tokens" && !json.null())
          r.completion = json.whole();
        else
          json.skip();
      });
    } else if (key != "output_ids") {
      json.skip();
    }
  });
  json.end();
  if (r.completion < 0 && !r.output.empty())
    r.completion = Index(r.output.size());
  return r;
}

// Layers and choices of an array that comes without them.
void shape(const ImportInputs& in, const Response& r, const std::string& where, RouteArray& out) {
  const auto numbers = Index(r.packed.span.size() / 4);
  const RecordedModel* config = in.config();
  const Index layers = in.options().layers > 0 ? in.options().layers : config ? config->layers : 0;
  const Index choices = in.options().topk > 0 ? in.options().topk : config ? config->topk : 0;
  if (layers == 0 || choices == 0) {
    refuse_import(where,
                  concat("has routed_experts of ", numbers,
                         " numbers without a shape: it takes the model's config.json"),
                  "--config config.json of the model, or --layers N and --topk K");
  }
  if (numbers % (layers * choices) != 0) {
    refuse_import(where,
                  concat("has routed_experts of ", numbers, " numbers, which is no multiple of ",
                         layers, " layers x ", choices, " choices"),
                  "the config.json of the model that answered");
  }
  out.layers = layers;
  out.choices = choices;
  out.rows = numbers / (layers * choices);
  out.ids.resize(std::size_t(numbers));
  std::memcpy(out.ids.data(), r.packed.span.data(), r.packed.span.size());
}

void say(const ImportInputs& in, ImportSink& sink, Response& r, const std::string& where,
         const std::string& domain) {
  RoutedRequest q;
  q.where = where;
  q.domain = domain;
  q.routes = std::move(r.routes);
  if (r.coded)
    shape(in, r, where, q.routes);
  if (r.prompt < 0 || r.prompt > INT32_MAX || r.completion < 0 || r.completion > INT32_MAX)
    refuse_import(where, "does not say prompt_tokens and completion_tokens", as_served);
  q.prompt = r.prompt;
  q.total = r.prompt + r.completion;
  q.start = std::max<Index>(0, q.total - 1 - q.routes.rows);
  if (Index(r.output.size()) == r.completion && q.prompt <= q.start + q.routes.rows) {
    q.tokens.assign(std::size_t(q.prompt), -1);
    q.tokens.insert(q.tokens.end(), r.output.begin(), r.output.end());
  }
  sink.say("the last token of a request has no routes");
  sink.say("token ids of the prompt are not in the response");
  say_request(in, sink, q);
}

void read_responses(const ImportInputs& in, ImportSink& sink, Text meaning) {
  for (const ImportFile& f : in.files()) {
    each_json(f, [&](std::string_view json, const std::string& where) {
      Response r = parse(json, where, meaning);
      if (r.listed || r.coded)
        say(in, sink, r, where, in.domain_of(f));
      else
        sink.say("lines without routes were passed over");
    });
  }
}

bool has_routes(const ImportInputs& in) {
  return in.any_mentions("\"routed_experts\"") && in.any_mentions("\"meta_info\"");
}

class Sglang final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return has_routes(in);
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "sglang";
    read_responses(in, sink, Text::numbers);
  }
};

class Lmdeploy final : public Importer {
 public:
  // Lists, or a text that is short and no whole numbers: a key.
  bool recognises(const ImportInputs& in) const override {
    if (!has_routes(in))
      return false;
    constexpr std::string_view key = "\"routed_experts\":";
    for (const ImportFile& f : in.files()) {
      for (auto at = f.start.find(key); at != f.start.npos; at = f.start.find(key, at + 1)) {
        const auto value = f.start.find_first_not_of(' ', at + key.size());
        if (value == f.start.npos || f.start[value] == 'n')
          continue;
        return f.start[value] == '[' || is_key(f.start, value + 1);
      }
    }
    return false;
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "lmdeploy";
    read_responses(in, sink, Text::store_key);
  }

 private:
  // Not base64 of whole int32 numbers, and not so long that it would be a damaged one.
  static bool is_key(const std::string& text, std::size_t first) {
    constexpr std::size_t longest_key = 128;
    const auto end = text.find('"', first);
    if (end == text.npos || end - first > longest_key)
      return false;
    Bytes bytes;
    return !read_base64(std::string_view(text).substr(first, end - first), bytes) ||
           bytes.span.size() % 4 != 0;
  }
};

}  // namespace

std::unique_ptr<Importer> make_sglang_importer() {
  return std::make_unique<Sglang>();
}
std::unique_ptr<Importer> make_lmdeploy_importer() {
  return std::make_unique<Lmdeploy>();
}

}  // namespace moe
