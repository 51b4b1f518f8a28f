// What responses of servers have in common: an array of routes [rows, layers, choices] of one
// request, and its tokens. The last token of a request has no routes: it was sampled and never
// went through the model.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/files/json_cursor.h"
#include "lib/files/number_array.h"
#include "lib/import/inputs.h"
#include "lib/import/line_batch.h"
#include "lib/import/sink.h"

namespace moe {

// Ids of a request, row-major.
struct RouteArray {
  Index rows = 0, layers = 0, choices = 0;
  std::vector<std::int32_t> ids;
  bool bytes = false;  // they were written as bytes
};

struct RoutedRequest {
  std::string where;  // for sentences
  RouteArray routes;
  Index prompt = -1, total = -1;     // tokens; -1 = not known
  Index start = 0;                   // position of the first row
  std::vector<std::int32_t> tokens;  // of positions 0..; -1 = not known; may be shorter
  std::string domain;
  bool moe_layers_only = false;  // the array has no slots of dense layers
};

// Checks the array against config.json and says it to the sink as a sequence of its own.
void say_request(const ImportInputs&, ImportSink&, const RoutedRequest&);

// Lists [rows][layers][choices] at the cursor.
RouteArray route_lists(JsonCursor&, const char* name);
// A NumPy array or tensor of the same shape.
RouteArray route_array(const NumberArray&);
// In some recorders 255 in bytes stands for no expert (fused shared experts); where there are 256
// experts it is an id.
void leave_out_fused(RouteArray&, ImportSink&);

using TakeJson = std::function<void(std::string_view json, const std::string& where)>;
// The JSON values of a file: of a line each, of one list, or the only one.
void each_json(const ImportFile&, const TakeJson& take);

namespace detail {
bool is_list(const JsonText&);
// False where the file is not one document over several lines, and nothing was taken.
bool take_document(const ImportFile&, const TakeJson& take);
void take_elements(const JsonText& list, const TakeJson& take);
}  // namespace detail

// The same with lines parsed ahead: take(value, where) in the order of the file.
template <class Parsed>
void each_parsed_json(const ImportFile& file, Parsed (*parse)(const JsonText&),
                      const std::function<void(Parsed&, const std::string& where)>& take) {
  const auto take_one = [&](std::string_view text, const std::string& where) {
    Parsed value = parse({text, where});
    take(value, where);
  };
  if (detail::take_document(file, take_one))
    return;
  MappedLines lines(file.path);
  ParseThreads threads;
  ParsedBatches<Parsed> batches(lines, threads, 2 * threads.count(), [parse](const JsonText& text) {
    return detail::is_list(text) ? Parsed{} : parse(text);
  });
  while (auto* batch = batches.next()) {
    for (std::size_t i = 0; i < batch->texts.size(); ++i) {
      const JsonText& text = batch->texts[i];
      if (detail::is_list(text)) {
        detail::take_elements(text, take_one);
        continue;
      }
      if (batch->parsed[i].failure)
        std::rethrow_exception(batch->parsed[i].failure);
      take(batch->parsed[i].value, text.where);
    }
  }
}

}  // namespace moe
