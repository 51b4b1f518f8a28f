// The JSON of "Patterns behind Chaos" (a file a request): a list of steps, step 0 the prompt; a
// step is {layer: [[ids] per token] | null}, dense layers null or missing.
#include <algorithm>
#include <charconv>

#include "lib/core/text.h"
#include "lib/files/json_cursor.h"
#include "lib/import/inputs.h"
#include "lib/import/sink.h"

namespace moe {
namespace {

class ExpertSelection final : public Importer {
 public:
  // [{"0": null or [[
  bool recognises(const ImportInputs& in) const override {
    std::string start;
    for (const char c : std::string_view(in.first().start).substr(0, 256)) {
      if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
        start += c;
    }
    if (!start.starts_with("[{\""))
      return false;
    const auto end = start.find('"', 3);
    const bool number =
        end != start.npos && end > 3 && start.find_first_not_of("0123456789", 3) == end;
    return number && (start.compare(end, 4, "\":[[") == 0 || start.compare(end, 6, "\":null") == 0);
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    sink.facts.engine = "sglang";
    for (const ImportFile& f : in.files())
      read_file(in, f, sink);
    sink.say("step 0 of each file is its prompt, the steps behind it one token each");
  }

 private:
  static void read_file(const ImportInputs&, const ImportFile&, ImportSink&);
};

int layer_number(const JsonCursor& json, const std::string& key) {
  int layer = -1;
  const auto [stop, error] = std::from_chars(key.data(), key.data() + key.size(), layer);
  if (error != std::errc() || stop != key.data() + key.size() || layer < 0)
    json.refuse(concat("has ", in_quotes(key), " as the number of a layer"));
  return layer;
}

ImportBlock read_step(JsonCursor& json, Index step) {
  ImportBlock b;
  b.where = concat(json.where(), " step ", step);
  Index rows = -1;
  json.members([&](const std::string& key) {
    const int layer = layer_number(json, key);
    if (json.null())
      return;
    std::vector<std::int32_t> ids;
    const auto shape = json.wholes("a layer", {"tokens", "ids"}, ids);
    if (rows >= 0 && shape[0] != rows) {
      json.refuse(concat("has ", shape[0], " tokens in layer ", layer, " of step ", step, ", and ",
                         rows, " in the layers before"));
    }
    if (std::find(b.layers.begin(), b.layers.end(), layer) != b.layers.end())
      json.refuse(concat("has layer ", layer, " twice in step ", step));
    rows = shape[0];
    b.layers.push_back(layer);
    Matrix<int>& m = b.rows.layer.emplace_back().expert;
    m = Matrix<int>(shape[0], shape[1]);
    std::copy(ids.begin(), ids.end(), m.data());
  });
  b.rows.flags.assign(std::size_t(std::max<Index>(rows, 0)),
                      step == 0 ? token_flag::prompt : token_flag::decode);
  return b;
}

void ExpertSelection::read_file(const ImportInputs& in, const ImportFile& f, ImportSink& sink) {
  const InputFile file(f.path);
  const auto bytes = file.map();
  JsonCursor json({reinterpret_cast<const char*>(bytes.get()), std::size_t(file.size())},
                  f.quoted());
  sink.sequence(in.domain_of(f));
  Index step = 0;
  json.elements([&] {
    ImportBlock b = read_step(json, step++);
    if (!b.layers.empty())
      sink.rows(std::move(b));
  });
  json.end();
}

}  // namespace

std::unique_ptr<Importer> make_expert_selection_importer() {
  return std::make_unique<ExpertSelection>();
}

}  // namespace moe
