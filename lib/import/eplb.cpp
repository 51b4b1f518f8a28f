// Matrices of expert loads that placement solvers take: JSON [layers][experts] (LMDeploy, EPLB),
// SGLang's --init-expert-location .pt {logical_count}, and SGLang's first recorder, a CSV of
// layer_id,expert_id,count in which experts without hits have no row. Placements are refused by
// that word: they say where experts lie, not how often they were used.
#include <algorithm>
#include <charconv>
#include <map>

#include "lib/core/text.h"
#include "lib/files/mapped_lines.h"
#include "lib/import/count_files.h"
#include "lib/import/lines.h"

namespace moe {
namespace {

constexpr std::string_view csv_header = "layer_id,expert_id,count";

bool is_placement(const ImportFile& f) {
  return f.mentions("\"device_list\"") || f.mentions("\"physical_to_logical") ||
         f.mentions("\"device_expert\"") || f.mentions("\"physical_expert") ||
         f.mentions("\"physical_to_logical_map\"");
}

bool is_placement(const PickleValue& root) {
  return root.is(PickleKind::dict) && root.find("physical_to_logical_map").has_value();
}

// [[ at the start, and numbers or texts in it.
bool is_matrix(const ImportFile& f) {
  std::string start;
  for (const char c : std::string_view(f.start).substr(0, 256)) {
    if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
      start += c;
  }
  return start.starts_with("[[") && start.size() > 2 && (start[2] != '[' && start[2] != '{');
}

class Eplb final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    const ImportFile& f = in.first();
    if (f.kind == FileKind::torch) {
      const PickleValue root = f.torch->root();
      return is_placement(root) || (root.is(PickleKind::dict) && root.find("logical_count"));
    }
    return f.first_line() == csv_header ||
           (f.kind == FileKind::json && (is_matrix(f) || is_placement(f)));
  }
  void read(const ImportInputs& in, ImportSink& sink) const override {
    std::int64_t step = 0;
    for (const ImportFile& f : in.files())
      read_file(f, step++, sink);
  }

 private:
  static void read_file(const ImportFile&, std::int64_t step, ImportSink&);
  static void read_csv(const ImportFile&, std::int64_t step, ImportSink&);
  static void read_torch(const ImportFile&, std::int64_t step, ImportSink&);
};

void Eplb::read_torch(const ImportFile& f, std::int64_t step, ImportSink& sink) {
  sink.facts.engine = "sglang";
  const auto counts = f.torch->root().find("logical_count");
  if (!counts || !counts->is(PickleKind::array))
    refuse_import(f.quoted(), "has no logical_count", "a file for --init-expert-location");
  const NumberArray& a = counts->array();
  if (a.axes() == 2)
    return say_count_array(a, step, sink);
  a.must_have(3, "[steps, layers, experts], or [layers, experts]");
  for (Index s = 0; s < a.shape[0]; ++s)
    say_count_array(a.at(s), step + s, sink);
}

void Eplb::read_csv(const ImportFile& f, std::int64_t step, ImportSink& sink) {
  sink.facts.engine = "sglang";
  std::map<int, std::map<std::int64_t, std::int64_t>> found;
  std::int64_t most = std::int64_t(sink.experts()) - 1;
  const bool told = most >= 0;
  each_line(f, [&](NumberLine& line) {
    if (line.number() == 1 && line.text() == csv_header)
      return;
    const auto cells = line.wholes(',');
    if (cells.size() != 3 || cells[0] < 0 || cells[0] > 4096 || cells[1] < 0 || cells[1] >= 65'535)
      line.refuse("is not layer_id,expert_id,count");
    if (told && cells[1] > most)
      line.refuse(concat("has expert ", cells[1], ", and there are ", most + 1, " experts"));
    if (!told)
      most = std::max(most, cells[1]);
    found[int(cells[0])][cells[1]] += cells[2];
    if (cells[2] < 0)
      line.refuse(concat("has the negative count ", cells[2]));
  });
  if (!told)
    sink.say(
        "the number of experts is taken from the largest id: experts that were never hit have "
        "no row");
  for (const auto& [layer, experts] : found) {
    std::vector<std::int64_t> counts(std::size_t(most) + 1);
    for (const auto& [e, n] : experts)
      counts[e] = n;
    sink.counts(step, layer, counts, f.quoted());
  }
}

void Eplb::read_file(const ImportFile& f, std::int64_t step, ImportSink& sink) {
  if (is_placement(f) || (f.kind == FileKind::torch && is_placement(f.torch->root()))) {
    refuse_import(f.quoted(),
                  "is a placement: it says where experts lie, not how often they were used",
                  "the counts that the placement was made from");
  }
  if (f.kind == FileKind::torch)
    return read_torch(f, step, sink);
  if (f.kind != FileKind::json)
    return read_csv(f, step, sink);
  const InputFile file(f.path);
  const auto bytes = file.map();
  JsonCursor json({reinterpret_cast<const char*>(bytes.get()), std::size_t(file.size())},
                  f.quoted());
  say_count_lists(json, step, sink);
  json.end();
}

}  // namespace

std::unique_ptr<Importer> make_eplb_importer() {
  return std::make_unique<Eplb>();
}

}  // namespace moe
