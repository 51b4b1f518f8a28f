// A request's array on its way to the sink: see responses.h.
#include "lib/import/responses.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/mapped_lines.h"
#include "lib/import/array_bundle.h"

namespace moe {
namespace {

constexpr Index rows_at_once = 4096;

// The absolute number of each layer of the array.
std::vector<int> layer_numbers(const ImportInputs& in, ImportSink& sink, const RoutedRequest& r) {
  const Index n = r.routes.layers;
  std::vector<int> out;
  const RecordedModel* config = in.config();
  if (config && !r.moe_layers_only && n == config->layers)
    sink.facts.hidden_layers = true;
  else if (config && n == Index(config->moe_layers.size()))
    return config->moe_layers;
  else if (config) {
    refuse_import(r.where,
                  concat("has routes of ", n, " layers, but ", config->name, " says ",
                         config->layers, " layers, ", config->moe_layers.size(), " of them MoE"),
                  "the config.json of the model that answered");
  }
  if (in.options().layers > 0 && n != in.options().layers) {
    refuse_import(r.where,
                  concat("has routes of ", n, " layers, and --layers says ", in.options().layers),
                  "--layers N as the array has");
  }
  if (r.moe_layers_only)
    sink.say("the true numbers of the MoE layers are not in the file: they count from 0");
  for (Index l = 0; l < n; ++l)
    out.push_back(int(l));
  return out;
}

void fill_tokens(TraceRows& rows, const RoutedRequest& r, Index first, Index count) {
  bool known = false;
  std::vector<std::uint32_t> ids(std::size_t(count), withheld_token);
  for (Index t = 0; t < count; ++t) {
    const Index position = r.start + first + t;
    rows.position.push_back(std::uint32_t(position));
    if (position < Index(r.tokens.size()) && r.tokens[position] >= 0) {
      ids[t] = std::uint32_t(r.tokens[position]);
      known = true;
    }
    if (r.prompt >= 0)
      rows.flags.push_back(position < r.prompt ? token_flag::prompt : token_flag::decode);
  }
  if (known)
    rows.token_id = std::move(ids);
}

void check_rows(const RoutedRequest& r) {
  const Index rows = r.routes.rows;
  if (r.total >= 0 && r.start + rows > r.total) {
    refuse_import(r.where,
                  concat("has routes of ", rows, " rows from position ", r.start, " on, but only ",
                         r.total, " tokens"),
                  "the response as the server gave it");
  }
  if (rows > 0 && (r.routes.layers < 1 || r.routes.choices < 1)) {
    refuse_import(r.where,
                  concat("has routes of the shape [", rows, ", ", r.routes.layers, ", ",
                         r.routes.choices, "]"),
                  "routes of the shape [rows, layers, choices]");
  }
}

}  // namespace

void say_request(const ImportInputs& in, ImportSink& sink, const RoutedRequest& r) {
  check_rows(r);
  if (r.routes.rows == 0)
    return;
  const std::vector<int> layers = layer_numbers(in, sink, r);
  sink.sequence(r.domain);
  const Index k = r.routes.choices;
  for (Index first = 0; first < r.routes.rows; first += rows_at_once) {
    const Index count = std::min(rows_at_once, r.routes.rows - first);
    ImportBlock b = make_block(layers, count, k, r.where);
    b.rows_before = first;
    const std::int32_t* from = r.routes.ids.data() + first * r.routes.layers * k;
    for (Index t = 0; t < count; ++t) {
      for (auto& layer : b.rows.layer) {
        int* to = layer.expert.row(t).data();
        for (Index i = 0; i < k; ++i)
          to[i] = from[i];
        from += k;
      }
    }
    fill_tokens(b.rows, r, first, count);
    sink.rows(std::move(b));
  }
}

RouteArray route_lists(JsonCursor& json, const char* name) {
  RouteArray out;
  const auto shape = json.wholes(name, {"rows", "layers", "choices (topk)"}, out.ids);
  out.rows = shape[0];
  out.layers = shape[1];
  out.choices = shape[2];
  return out;
}

RouteArray route_array(const NumberArray& a) {
  a.must_be_whole();
  a.must_have(3, "[rows, layers, choices]");
  return {a.shape[0], a.shape[1], a.shape[2], expert_ids(a), a.dtype == DType::u8};
}

void leave_out_fused(RouteArray& routes, ImportSink& sink) {
  if (!routes.bytes || sink.experts() == 0 || sink.experts() >= 256)
    return;
  const auto first = std::find(routes.ids.begin(), routes.ids.end(), 255);
  if (first == routes.ids.end())
    return;
  std::replace(first, routes.ids.end(), 255, -1);
  sink.say("255 in bytes stands for no expert");
}

namespace {

bool is_json(std::string_view text) {
  try {
    JsonCursor json(text, "");
    json.skip();
    json.end();
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

namespace {

// A file of one document over several lines, or one line too long to be looked at.
bool is_one_document(const ImportFile& file) {
  const bool all_seen = file.first_line().size() < file.start.size();
  return file.kind == FileKind::json && all_seen && !is_json(file.first_line());
}

}  // namespace

bool detail::is_list(const JsonText& line) {
  return line.text[line.text.find_first_not_of(" \t")] == '[';
}

void detail::take_elements(const JsonText& list, const TakeJson& take) {
  JsonCursor json(list.text, list.where);
  Index n = 0;
  json.elements([&] {
    const std::string_view value = json.raw();
    take(value, concat(list.where, " response ", ++n));
  });
  json.end();
}

bool detail::take_document(const ImportFile& file, const TakeJson& take) {
  if (!is_one_document(file))
    return false;
  const InputFile whole(file.path);
  const auto bytes = whole.map();
  const std::string_view text(reinterpret_cast<const char*>(bytes.get()),
                              std::size_t(whole.size()));
  if (!is_json(text))
    return false;
  if (JsonCursor(text, file.quoted()).next() == '[')
    take_elements({text, file.quoted()}, take);
  else
    take(text, file.quoted());
  return true;
}

void each_json(const ImportFile& file, const TakeJson& take) {
  if (detail::take_document(file, take))
    return;
  MappedLines lines(file.path);
  for (auto batch = next_batch(lines); !batch.empty(); batch = next_batch(lines)) {
    for (const JsonText& line : batch) {
      if (detail::is_list(line))
        detail::take_elements(line, take);
      else
        take(line.text, line.where);
    }
  }
}

}  // namespace moe
