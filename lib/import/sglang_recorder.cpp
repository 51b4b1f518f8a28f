// SGLang's expert distribution recorder (srt/eplb/expert_distribution.py), .pt files of a dump:
// stat {logical_count [passes, layers, E]}, per_pass and per_token {records, map}. Ids of records
// are physical; last_physical_to_logical_map maps them back as it stood at the dump. Nobody records
// which request a decode row belongs to, so each is a sequence of its own.
#include <algorithm>

#include "lib/core/text.h"
#include "lib/import/sglang_map.h"

namespace moe {
namespace {

constexpr Index rows_at_once = 4096;
const char* const as_dumped = "the file as SGLang dumped it";

struct Record {
  std::int64_t pass = 0;
  int rank = 0;
  PickleValue value;
  const PhysicalMap* map;
  std::string where;
};

const NumberArray* array_in(const PickleValue& dict, std::string_view name) {
  const auto v = dict.find(name);
  return v && v->is(PickleKind::array) ? &v->array() : nullptr;
}

class SglangRecorder final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    const ImportFile& f = in.first();
    if (f.name().starts_with("expert_distribution_recorder_"))
      return true;
    if (f.kind != FileKind::torch || !f.torch->root().is(PickleKind::dict))
      return false;
    const PickleValue root = f.torch->root();
    return root.find("records") || (root.find("logical_count") && root.find("rank"));
  }
  void read(const ImportInputs& in, ImportSink& sink) const override;
};

// [passes, layers, E]; rows of zeros in the ring were never used.
void read_stat(const NumberArray& counts, const std::string& where, ImportSink& sink) {
  counts.must_be_whole();
  counts.must_have(3, "[passes, layers, experts]");
  Index unused = 0;
  for (Index p = 0; p < counts.shape[0]; ++p) {
    std::vector<std::vector<std::int64_t>> layers(std::size_t(counts.shape[1]));
    bool any = false;
    for (Index l = 0; l < counts.shape[1]; ++l) {
      for (Index e = 0; e < counts.shape[2]; ++e) {
        layers[l].push_back(counts.whole(counts.place(p, l, e)));
        any = any || layers[l].back() != 0;
      }
    }
    unused += !any;
    for (std::size_t l = 0; any && l < layers.size(); ++l)
      sink.counts(p, int(l), layers[l], where);
  }
  sink.say("pass numbers are not in the file: steps are rows of its ring buffer");
  if (unused > 0)
    sink.say(concat(unused, " rows of zeros in the ring buffer are unused and were left out"));
  else
    sink.say("the ring buffer is full: its start may be lost");
}

std::vector<std::int64_t> wholes_of(const Record& r, const char* name) {
  std::vector<std::int64_t> out;
  const auto v = r.value.find(name);
  if (!v || v->is(PickleKind::none))
    return out;
  if (v->is(PickleKind::array)) {
    v->array().must_be_whole();
    v->array().must_have(1, "[tokens]");
    for (Index i = 0; i < v->array().shape[0]; ++i)
      out.push_back(v->array().whole(v->array().place(i)));
    return out;
  }
  for (Index i = 0; i < v->size(); ++i)
    out.push_back(v->item(i).whole());
  return out;
}

bool same_numbers(const NumberArray& a, const NumberArray& b) {
  if (a.shape != b.shape || a.axes() < 2)
    return false;
  for (Index i = 0; i < a.shape[0]; ++i) {
    const NumberArray x = a.at(i);
    const NumberArray y = b.at(i);
    for (Index j = 0; j < x.shape[0]; ++j) {
      for (Index k = 0; k < (x.axes() > 1 ? x.shape[1] : 1); ++k) {
        const bool two = x.axes() > 1;
        if (x.whole(two ? x.place(j, k) : x.place(j)) != y.whole(two ? y.place(j, k) : y.place(j)))
          return false;
      }
    }
  }
  return true;
}

// Tensor-parallel ranks dump the same pass again.
bool repeats(const Record& a, const Record& b) {
  for (const char* name : {"topk_ids_of_layer", "global_physical_count"}) {
    const NumberArray* x = array_in(a.value, name);
    const NumberArray* y = array_in(b.value, name);
    if (!x != !y || (x && (!x->is_whole() || !y->is_whole() || !same_numbers(*x, *y))))
      return false;
  }
  return wholes_of(a, "input_ids") == wholes_of(b, "input_ids") &&
         wholes_of(a, "positions") == wholes_of(b, "positions");
}

struct Pass {  // one record of tokens
  const NumberArray* ids = nullptr;
  std::vector<std::int64_t> tokens, positions, lengths;
  std::vector<Index> kept;  // rows that are no padding
  std::vector<std::uint8_t> flags;
};

// 1 extend, 2 decode, 3 mixed, 5 target verify, ...
std::int64_t mode_of(const Record& r) {
  const auto mode = r.value.find("forward_mode");
  return mode && mode->is(PickleKind::whole) ? mode->whole() : 1;
}
Phase phase_of(const Record& r) {
  const std::int64_t mode = mode_of(r);
  return mode == 2 || mode == 5 ? Phase::decode : Phase::prefill;
}

bool is_padding(const NumberArray& ids, Index row) {
  for (Index l = 0; l < ids.shape[0]; ++l) {
    for (Index k = 0; k < ids.shape[2]; ++k) {
      if (ids.whole(ids.place(l, row, k)) != -1)
        return false;
    }
  }
  return true;
}

Pass pass_of(const Record& r) {
  Pass p;
  p.ids = array_in(r.value, "topk_ids_of_layer");
  p.ids->must_be_whole();
  p.ids->must_have(3, "[layers, tokens, choices]");
  p.tokens = wholes_of(r, "input_ids");
  p.positions = wholes_of(r, "positions");
  p.lengths = wholes_of(r, "extend_seq_lens");
  const Index rows = p.ids->shape[1];
  for (const auto& [name, list] :
       {std::pair("input_ids", &p.tokens), std::pair("positions", &p.positions)}) {
    if (!list->empty() && Index(list->size()) != rows)
      refuse_import(r.where,
                    concat("has ", name, " of ", list->size(), " tokens, and routes of ", rows),
                    as_dumped);
  }
  Index sum = 0;
  for (const std::int64_t n : p.lengths) {
    if (n < 0 || n > rows - sum)
      refuse_import(r.where, concat("has extend_seq_lens of more than its ", rows, " tokens"),
                    as_dumped);
    sum += n;
  }
  for (Index t = 0; t < rows; ++t) {
    if (!is_padding(*p.ids, t))
      p.kept.push_back(t);
  }
  if (!p.lengths.empty() && !p.kept.empty() && p.kept.back() >= sum)
    refuse_import(
        r.where,
        concat("has extend_seq_lens of ", sum, " tokens, and routes of row ", p.kept.back()),
        as_dumped);
  return p;
}

// Rows first..last of the kept ones, a sequence or a piece of one.
void say_rows(const Record& r, const Pass& p, std::size_t first, std::size_t last,
              std::uint8_t flag, ImportSink& sink) {
  std::vector<int> layers;
  for (Index l = 0; l < p.ids->shape[0]; ++l)
    layers.push_back(int(l));
  ImportBlock b = make_block(layers, Index(last - first), p.ids->shape[2], r.where);
  b.rows_before = Index(first);
  for (std::size_t i = first; i < last; ++i) {
    const Index row = p.kept[i];
    for (std::size_t l = 0; l < layers.size(); ++l) {
      for (Index k = 0; k < p.ids->shape[2]; ++k) {
        const std::int64_t id = p.ids->whole(p.ids->place(Index(l), row, k));
        b.rows.layer[l].expert(Index(i - first), k) = r.map->logical(Index(l), id, r.where);
      }
    }
    if (!p.tokens.empty())
      b.rows.token_id.push_back(std::uint32_t(p.tokens[row]));
    if (!p.positions.empty())
      b.rows.position.push_back(std::uint32_t(p.positions[row]));
    b.rows.flags.push_back(flag);
    b.rows.rank.push_back(std::uint16_t(r.rank));
  }
  sink.rows(std::move(b));
}

void say_tokens(const Record& r, ImportSink& sink) {
  const Pass p = pass_of(r);
  const auto padding = std::size_t(p.ids->shape[1]) - p.kept.size();
  if (padding > 0)
    sink.say("padding rows (no expert in any layer) were left out");
  std::vector<std::int64_t> lengths = p.lengths;
  const bool decode = lengths.empty();
  if (decode)
    lengths.assign(std::size_t(p.ids->shape[1]), 1);
  std::size_t at = 0;
  std::int64_t begin = 0;
  for (const std::int64_t n : lengths) {
    std::size_t end = at;
    while (end < p.kept.size() && p.kept[end] < begin + n)
      ++end;
    const bool one_token = decode || (mode_of(r) == 3 && n == 1);
    if (end > at)
      sink.sequence();
    while (at < end) {
      const std::size_t stop = std::min(end, at + std::size_t(rows_at_once));
      say_rows(r, p, at, stop, one_token ? token_flag::decode : token_flag::prompt, sink);
      at = stop;
    }
    begin += n;
  }
}

void say_counts(const Record& r, ImportSink& sink) {
  const NumberArray* counts = array_in(r.value, "global_physical_count");
  if (!counts)
    refuse_import(r.where, "has neither topk_ids_of_layer nor global_physical_count", as_dumped);
  counts->must_be_whole();
  counts->must_have(2, "[layers, experts]");
  for (Index l = 0; l < counts->shape[0]; ++l) {
    std::vector<std::int64_t> logical(std::size_t(r.map->experts(counts->shape[1])));
    for (Index e = 0; e < counts->shape[1]; ++e) {
      const int to = r.map->logical(l, e, r.where);
      if (to >= int(logical.size()))
        logical.resize(std::size_t(to) + 1);
      if (to >= 0)
        logical[to] += counts->whole(counts->place(l, e));
    }
    sink.counts(r.pass, int(l), logical, r.where);
  }
}

void take_records(const PickleValue& list, const ImportFile& f, const PhysicalMap& map,
                  std::vector<Record>& out) {
  for (Index i = 0; i < list.size(); ++i) {
    Record r{0, 0, list.item(i), &map, concat(f.quoted(), " record ", i)};
    const auto pass = r.value.find("forward_pass_id");
    const auto rank = r.value.find("rank");
    r.pass = pass ? pass->whole() : i;
    r.rank = rank ? int(std::clamp<std::int64_t>(rank->whole(), 0, 65535)) : 0;
    out.push_back(std::move(r));
  }
}

void say_records(std::vector<Record>& records, ImportSink& sink) {
  std::stable_sort(records.begin(), records.end(), [](const Record& a, const Record& b) {
    return a.pass != b.pass ? a.pass < b.pass : a.rank < b.rank;
  });
  bool tokens = false;
  std::size_t begin = 0;  // of the pass
  for (std::size_t i = 0; i < records.size(); ++i) {
    const Record& r = records[i];
    if (r.pass != records[begin].pass)
      begin = i;
    const auto copy_of = std::find_if(
        records.begin() + std::ptrdiff_t(begin), records.begin() + std::ptrdiff_t(i),
        [&](const Record& before) { return before.rank != r.rank && repeats(before, r); });
    if (copy_of != records.begin() + std::ptrdiff_t(i)) {
      sink.say(concat("rank ", r.rank, " repeats rank ", copy_of->rank,
                      ": equal records of a pass count once"));
      continue;
    }
    if (!array_in(r.value, "topk_ids_of_layer")) {
      say_counts(r, sink);
      continue;
    }
    tokens = true;
    if (i == begin)
      sink.step(r.pass, phase_of(r));
    say_tokens(r, sink);
  }
  if (tokens)
    sink.say("requests cannot be followed from pass to pass: each decode row is a sequence");
}

void SglangRecorder::read(const ImportInputs& in, ImportSink& sink) const {
  sink.facts.engine = "sglang";
  std::vector<Record> records;
  std::vector<std::unique_ptr<PhysicalMap>> maps;
  for (const ImportFile* f : in.of_kind(FileKind::torch)) {
    const PickleValue root = f->torch->root();
    if (!root.is(PickleKind::dict))
      refuse_import(f->quoted(), concat("holds ", root.about(), ", not a recorder's dict"),
                    as_dumped);
    if (const NumberArray* counts = array_in(root, "logical_count")) {
      read_stat(*counts, f->quoted(), sink);
      continue;
    }
    const auto list = root.find("records");
    if (!list)
      refuse_import(f->quoted(), "has neither records nor logical_count", as_dumped);
    maps.push_back(
        std::make_unique<PhysicalMap>(array_in(root, "last_physical_to_logical_map"), sink));
    take_records(*list, *f, *maps.back(), records);
  }
  say_records(records, sink);
}

}  // namespace

std::unique_ptr<Importer> make_sglang_recorder_importer() {
  return std::make_unique<SglangRecorder>();
}

}  // namespace moe
