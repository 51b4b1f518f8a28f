// llama.cpp's importance matrices (llama-imatrix, GGUF): NAME.counts of the expert tensors say how
// often each expert was used; gate, up and down of a layer repeat them. Snapshots NAME.at_N are
// cumulative: their differences are steps.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/gguf.h"
#include "lib/files/number_array.h"
#include "lib/import/count_files.h"

namespace moe {
namespace {

const char* const as_written = "the gguf file as llama-imatrix wrote it (--output-format gguf)";

struct Snapshot {
  const ImportFile* file = nullptr;
  std::int64_t chunks = 0;
  std::map<int, std::vector<std::int64_t>> counts;
  std::map<int, std::int64_t> tokens;  // of the router's own tensor
};

// The layer of "blk.3.ffn_up_exps.weight.counts"; -1 for what is no expert tensor.
int expert_layer(const std::string& name) {
  if (!name.starts_with("blk.") || !name.ends_with(".counts") || name.find("_exps.") == name.npos ||
      name.find("shexp") != name.npos)
    return -1;
  return int(number_in(name.substr(0, name.find(".ffn")), "blk."));
}

std::vector<std::int64_t> counts_of(const NumberArray& a) {
  std::vector<std::int64_t> out;
  for (Index e = 0; e < a.size(); ++e)
    out.push_back(count_at(a, e));
  return out;
}

// The numbers of a tensor of f32, whatever its shape, one behind the other.
NumberArray numbers_of(const std::shared_ptr<const GgufFile>& g, const GgufTensor& t) {
  const std::string name = concat(in_quotes(g->path()), " ", t.name);
  if (t.type->name != "F32")
    refuse_import(name, concat("has the format ", t.type->name, " and not F32"), as_written);
  const std::span<const std::byte> bytes = g->bytes(t);
  return checked_array(name, DType::f32, {t.size()}, {{g, bytes.data()}, bytes});
}

// Counts of each layer with experts; [1, E] or [E, 1], one number an expert.
void read_counts(const std::shared_ptr<const GgufFile>& g, Snapshot& s) {
  for (const GgufTensor& t : g->tensors()) {
    const int layer = expert_layer(t.name);
    if (layer < 0 || s.counts.count(layer))
      continue;
    const NumberArray flat = numbers_of(g, t);
    std::vector<std::int64_t> counts = counts_of(flat);
    if (counts.size() < 2) {
      refuse_import(flat.name,
                    "is one count for the whole expert tensor: the file was converted from an old "
                    ".dat, which counts no experts",
                    as_written);
    }
    s.counts[layer] = std::move(counts);
    const GgufTensor* gate = g->find(concat("blk.", layer, ".ffn_gate_inp.weight.counts"));
    if (gate && gate->size() == 1)
      s.tokens[layer] = counts_of(numbers_of(g, *gate)).front();
  }
}

std::shared_ptr<const GgufFile> open_gguf_file(const ImportFile& f) {
  try {
    return std::make_shared<const GgufFile>(f.path);
  } catch (Error& e) {
    if (e.hint().empty())
      e.hint(as_written);
    throw;
  }
}

Snapshot snapshot_of(const ImportFile& f) {
  if (f.kind != FileKind::gguf) {
    refuse_import(
        f.quoted(),
        "is an importance matrix in the old .dat format, or none: such a file has one call "
        "number a tensor and counts no experts",
        "llama-imatrix --output-format gguf");
  }
  const auto g = open_gguf_file(f);
  if (g->text("general.type", "") != "imatrix")
    refuse_import(f.quoted(), "is a gguf file, but no imatrix", as_written);
  Snapshot s;
  s.file = &f;
  s.chunks = std::clamp<std::int64_t>(g->whole("imatrix.chunk_count", 0), 0, 1ll << 40);
  read_counts(g, s);
  if (s.counts.empty())
    refuse_import(f.quoted(), "has no expert tensors: the model is dense", as_written);
  return s;
}

void find_topk(const Snapshot& s, ImportSink& sink) {
  for (const auto& [layer, counts] : s.counts) {
    double sum = 0;
    for (const std::int64_t n : counts)
      sum += double(n);
    const auto tokens = s.tokens.find(layer);
    if (tokens == s.tokens.end() || tokens->second < 1)
      continue;
    const double k = sum / double(tokens->second);
    if (k >= 1 && std::floor(k) == k && k <= double(counts.size()))
      sink.facts.topk[layer] = int(k);
  }
}

// An old .dat: a number of entries, then a name's length and a name.
bool is_dat(const ImportFile& f) {
  if (f.kind != FileKind::binary || f.start.size() < 12)
    return false;
  std::int32_t head[2] = {};
  std::memcpy(head, f.start.data(), sizeof head);
  const std::string_view rest = std::string_view(f.start).substr(8);
  return head[0] > 0 && head[0] < 1 << 20 && head[1] > 4 && head[1] < 256 &&
         rest.substr(0, std::size_t(head[1])).find(".weight") != rest.npos;
}

class Imatrix final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return in.first().kind == FileKind::gguf || is_dat(in.first());
  }
  void read(const ImportInputs& in, ImportSink& sink) const override;

 private:
  static void say(const Snapshot& now, const Snapshot* before, std::int64_t step, ImportSink&);
};

void Imatrix::say(const Snapshot& now, const Snapshot* before, std::int64_t step,
                  ImportSink& sink) {
  bool dead = false;
  for (const auto& [layer, counts] : now.counts) {
    std::vector<std::int64_t> own = counts;
    if (before) {
      const auto old = before->counts.find(layer);
      if (old == before->counts.end() || old->second.size() != own.size())
        refuse_import(now.file->quoted(),
                      concat("and the snapshot before it differ in layer ", layer),
                      "snapshots of one run");
      for (std::size_t e = 0; e < own.size(); ++e)
        own[e] -= old->second[e];
    }
    dead = dead || std::find(counts.begin(), counts.end(), 0) != counts.end();
    sink.counts(step, layer, own, now.file->quoted());
  }
  if (dead)
    sink.say("experts that were never hit have the count 0");
}

void Imatrix::read(const ImportInputs& in, ImportSink& sink) const {
  sink.facts.engine = "llama.cpp";
  std::vector<Snapshot> all;
  for (const ImportFile& f : in.files())
    all.push_back(snapshot_of(f));
  std::stable_sort(all.begin(), all.end(),
                   [](const Snapshot& a, const Snapshot& b) { return a.chunks < b.chunks; });
  for (std::size_t i = 0; i < all.size(); ++i)
    say(all[i], i > 0 ? &all[i - 1] : nullptr, all[i].chunks, sink);
  find_topk(all.back(), sink);
  if (all.size() > 1)
    sink.say("counts are cumulative: each step is the difference to the snapshot before");
}

}  // namespace

std::unique_ptr<Importer> make_imatrix_importer() {
  return std::make_unique<Imatrix>();
}

}  // namespace moe
