// ESFT's expert scores: [rank_R/]expert_weights_LAYER.txt, a line a sequence: T*K ids joined by
// tabs, two tabs, T*K weights (four decimals, not normalised, in no order). K is not in the file.
#include <algorithm>
#include <charconv>
#include <map>

#include "lib/core/text.h"
#include "lib/files/mapped_lines.h"
#include "lib/import/inputs.h"
#include "lib/import/lines.h"
#include "lib/import/sink.h"

namespace moe {
namespace {

const char* const as_scored = "the folder that ESFT's get_expert_scores wrote";

// Files of one folder: a layer each, read side by side.
struct Folder {
  std::string domain;
  std::map<int, const ImportFile*> layers;
};

struct Line {
  Matrix<int> ids;
  Matrix<float> weights;
  std::string where;
};

class Esft final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return std::any_of(in.files().begin(), in.files().end(), [](const ImportFile& f) {
      return f.name().starts_with("expert_weights_") && f.kind == FileKind::text;
    });
  }
  void read(const ImportInputs&, ImportSink&) const override;

 private:
  static void read_folder(const Folder&, int topk, ImportSink&);
};

// Cells between tabs as numbers of the type of `out`.
template <class Number>
void read_cells(std::string_view text, const std::string& where, const char* what,
                std::vector<Number>& out) {
  for (std::size_t at = 0; at <= text.size();) {
    const auto end = std::min(text.find('\t', at), text.size());
    const std::string_view cell = text.substr(at, end - at);
    const auto [stop, error] =
        std::from_chars(cell.data(), cell.data() + cell.size(), out.emplace_back());
    if (error != std::errc() || stop != cell.data() + cell.size())
      refuse_import(where, concat("has ", in_quotes(cell), " where ", what, " should stand"),
                    as_scored);
    at = end + 1;
  }
}

Line parse(std::string_view text, const std::string& where, int topk) {
  const auto middle = text.find("\t\t");
  if (middle == text.npos)
    refuse_import(where, "has no two tabs between ids and weights", as_scored);
  std::vector<int> ids;
  std::vector<float> weights;
  read_cells(text.substr(0, middle), where, "an id", ids);
  std::string_view rest = text.substr(middle + 2);
  while (rest.ends_with('\t'))
    rest.remove_suffix(1);
  read_cells(rest, where, "a weight", weights);
  if (ids.size() != weights.size()) {
    refuse_import(where, concat("has ", ids.size(), " ids and ", weights.size(), " weights"),
                  as_scored);
  }
  if (ids.size() % std::size_t(topk) != 0) {
    refuse_import(where, concat("has ", ids.size(), " ids, which is no multiple of topk ", topk),
                  "--topk K as the model has");
  }
  Line out;
  const Index rows = Index(ids.size()) / topk;
  out.where = where;
  out.ids = Matrix<int>(rows, topk);
  out.weights = Matrix<float>(rows, topk);
  std::copy(ids.begin(), ids.end(), out.ids.data());
  std::copy(weights.begin(), weights.end(), out.weights.data());
  return out;
}

void Esft::read_folder(const Folder& folder, int topk, ImportSink& sink) {
  std::vector<std::unique_ptr<MappedLines>> files;
  std::vector<int> numbers;
  for (const auto& [layer, file] : folder.layers) {
    files.push_back(std::make_unique<MappedLines>(file->path));
    numbers.push_back(layer);
  }
  for (;;) {
    ImportBlock b;
    b.layers = numbers;
    std::size_t ended = 0;
    for (const auto& lines : files) {
      std::string_view text;
      do {
        if (!lines->next(text)) {
          text = {};
          break;
        }
      } while (text.empty());
      if (text.empty()) {
        ++ended;
        continue;
      }
      Line line = parse(text, lines->where(), topk);
      if (!b.rows.layer.empty() && b.rows.layer[0].expert.rows() != line.ids.rows()) {
        refuse_import(line.where,
                      concat("has ", line.ids.rows(), " tokens, and another layer ",
                             b.rows.layer[0].expert.rows()),
                      as_scored);
      }
      b.where = line.where;
      LayerRows& rows = b.rows.layer.emplace_back();
      rows.expert = std::move(line.ids);
      rows.weight = std::move(line.weights);
    }
    if (ended == files.size())
      return;
    if (ended > 0)
      refuse_import(in_quotes(files[0]->path()), "and the files of other layers differ in lines",
                    as_scored);
    sink.sequence(folder.domain);
    sink.rows(std::move(b));
  }
}

void Esft::read(const ImportInputs& in, ImportSink& sink) const {
  sink.facts.engine = "transformers";
  sink.facts.weight_kind = "prob";
  const int topk = in.options().topk > 0 ? in.options().topk : in.config() ? in.config()->topk : 0;
  if (topk == 0)
    refuse_import(in.first().quoted(), "does not say how many experts a token chooses (topk)",
                  "--topk K, or --config config.json of the model");
  std::vector<std::filesystem::path> order;
  std::map<std::filesystem::path, Folder> folders;
  for (const ImportFile& f : in.files()) {
    const std::int64_t layer = number_in(f.name(), "expert_weights_");
    if (layer < 0)
      continue;
    const auto [at, fresh] = folders.try_emplace(f.path.parent_path());
    if (fresh)
      order.push_back(at->first);
    at->second.domain = in.domain_of(f);
    at->second.layers[int(std::min<std::int64_t>(layer, 1 << 20))] = &f;
  }
  for (const auto& path : order)
    read_folder(folders[path], topk, sink);
}

}  // namespace

std::unique_ptr<Importer> make_esft_importer() {
  return std::make_unique<Esft>();
}

}  // namespace moe
