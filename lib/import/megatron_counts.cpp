// Megatron's --save-tokens-per-expert-interval: rankR.jsonl of {iter, block, layer, tpe: [[counts]
// a micro-batch]}. A rank counts its own experts, after dispatch; over how many ranks the experts
// were spread is not in the files.
#include <algorithm>
#include <map>

#include "lib/core/text.h"
#include "lib/files/json_cursor.h"
#include "lib/files/mapped_lines.h"
#include "lib/import/inputs.h"
#include "lib/import/sink.h"

namespace moe {
namespace {

const char* const own_files = "the files as Megatron wrote them";

struct Record {
  std::int64_t iteration = -1;
  int layer = -1;
  std::string block = "decoder";
  std::vector<std::int64_t> counts;  // of the rank's own experts, micro-batches summed
};

Record parse(std::string_view line, const std::string& where) {
  Record r;
  JsonCursor json(line, where);
  json.members([&](const std::string& key) {
    if (key == "iter") {
      r.iteration = json.whole();
    } else if (key == "layer") {
      r.layer = int(std::clamp<std::int64_t>(json.whole(), -1, 1 << 20));
    } else if (key == "block") {
      r.block = json.text();
    } else if (key == "tpe") {
      std::vector<std::int32_t> all;
      const auto shape = json.wholes("tpe", {"micro-batches", "experts"}, all);
      r.counts.assign(std::size_t(shape[1]), 0);
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (all[i] < 0)
          json.refuse(concat("has the negative count ", all[i]));
        r.counts[i % r.counts.size()] += all[i];
      }
    } else {
      json.skip();
    }
  });
  json.end();
  if (r.iteration < 0 || r.layer < 0 || r.counts.empty())
    json.refuse("has no iter, layer and tpe");
  return r;
}

class MegatronCounts final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return in.any_mentions("\"tpe\"") && in.any_mentions("\"iter\"");
  }
  void read(const ImportInputs&, ImportSink&) const override;

 private:
  using Sums = std::map<std::pair<std::int64_t, int>, std::map<int, std::vector<std::int64_t>>>;
  static void read_file(const ImportFile&, int part, ImportSink&, Sums&);
  static int parts_of(const ImportInputs&);
};

// The number of ranks over which the experts were spread.
int MegatronCounts::parts_of(const ImportInputs& in) {
  const int told = in.options().expert_parallel;
  const int experts = in.options().experts > 0 ? in.options().experts
                      : in.config()            ? in.config()->experts
                                               : 0;
  MappedLines lines(in.first().path);
  std::string_view line;
  if (!lines.next(line))
    refuse_import(in.first().quoted(), "is empty", own_files);
  const auto local = int(parse(line, lines.where()).counts.size());
  if (told == 0 && experts == local)
    return 1;
  if (told == 0) {
    refuse_import(lines.where(),
                  concat("counts ", local, " experts of ", in.files().size(),
                         " ranks, and the files do not say whether the experts were spread over "
                         "ranks (expert parallel) or each rank has them all"),
                  "--expert-parallel N");
  }
  if (int(in.files().size()) % told != 0 || (experts > 0 && local * told != experts)) {
    refuse_import(lines.where(),
                  concat("counts ", local, " experts, which does not fit ", told,
                         " expert-parallel ranks, ", in.files().size(), " files and ",
                         experts > 0 ? concat(experts, " experts") : "any number of experts"),
                  "--expert-parallel N as the run had, and the files of all ranks");
  }
  return told;
}

void MegatronCounts::read_file(const ImportFile& f, int part, ImportSink& sink, Sums& sums) {
  MappedLines lines(f.path);
  std::string_view line;
  while (lines.next(line)) {
    if (line.find_first_not_of(" \t") == line.npos)
      continue;
    const Record r = parse(line, lines.where());
    if (r.block != "decoder") {
      sink.say("records of multi-token prediction were left out");
      continue;
    }
    auto& sum = sums[{r.iteration, r.layer}][part];
    if (!sum.empty() && sum.size() != r.counts.size()) {
      refuse_import(lines.where(),
                    concat("counts ", r.counts.size(), " experts, and records before ", sum.size()),
                    own_files);
    }
    sum.resize(r.counts.size());
    for (std::size_t e = 0; e < sum.size(); ++e)
      sum[e] += r.counts[e];
  }
}

void MegatronCounts::read(const ImportInputs& in, ImportSink& sink) const {
  sink.facts.engine = "megatron";
  sink.facts.capture_point = "post_capacity";
  const int parts = parts_of(in);
  Sums sums;
  for (std::size_t i = 0; i < in.files().size(); ++i) {
    const std::int64_t rank = number_in(in.files()[i].name(), "rank");
    read_file(in.files()[i], int((rank < 0 ? std::int64_t(i) : rank) % parts), sink, sums);
  }
  for (const auto& [key, by_part] : sums) {
    std::vector<std::int64_t> all;
    for (const auto& [part, counts] : by_part) {
      if (part * counts.size() != all.size())
        break;
      all.insert(all.end(), counts.begin(), counts.end());
    }
    if (int(by_part.size()) != parts ||
        all.size() != by_part.begin()->second.size() * by_part.size()) {
      refuse_import(in.first().quoted(),
                    concat("and the other ranks do not all have iteration ", key.first, ", layer ",
                           key.second),
                    "the files of all expert-parallel ranks");
    }
    sink.counts(key.first, key.second, all, in.first().quoted());
  }
  sink.say("counts after dispatch (after capacity): what was dropped is not counted");
  sink.say("micro-batches of an iteration are summed");
}

}  // namespace

std::unique_ptr<Importer> make_megatron_counts_importer() {
  return std::make_unique<MegatronCounts>();
}

}  // namespace moe
