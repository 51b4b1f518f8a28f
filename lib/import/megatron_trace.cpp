// Megatron's RouterTracer (megatron/core/transformer/moe/router_trace.py): a JSON line for each
// layer of each forward pass. Records of one step are gathered into micro-batches; ranks are read
// side by side, so that only one step of each is in memory. Logits and router states beside the
// lines give the order of the choices and their weights.
#include <algorithm>
#include <charconv>
#include <optional>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/import/line_batch.h"
#include "lib/import/megatron_records.h"

namespace moe {
namespace {

// One rank's file, a step at a time.
class RankReader {
 public:
  // `batches`: so many are parsed ahead.
  RankReader(const ImportFile& file, ImportSink& sink, ParseThreads& threads, std::size_t batches)
      : lines_(file.path),
        batches_(lines_, threads, batches, parse),
        sink_(sink),
        rank_(int(number_in(file.name(), "rank"))) {
    ahead();
  }
  // Whether records of a further step are there, and of which.
  bool more() const {
    return next_.has_value();
  }
  std::int64_t step() const {
    return next_->step;
  }
  int rank() const {
    return rank_;
  }
  // All records of step(), as micro-batches. Empty where the file was cut inside them.
  std::vector<MegatronPass> passes();

 private:
  static MegatronRecord parse(const JsonText& line) {
    return read_megatron_record(line.text, line.where);
  }
  void ahead();
  bool read_lines();
  bool take(const JsonText&, ParsedText<MegatronRecord>&, bool first);
  void cut(std::string_view line);

  MappedLines lines_;
  ParsedBatches<MegatronRecord> batches_;
  ImportSink& sink_;
  int rank_;
  ParsedBatches<MegatronRecord>::Batch* batch_ = nullptr;
  std::size_t used_ = 0;  // of the batch, from here on not yet taken
  bool first_batch_ = true;
  std::optional<MegatronRecord> next_;
  std::int64_t cut_step_ = -1;
};

// The step of a line that was cut, where it is still to be read; -1 otherwise.
std::int64_t step_of(std::string_view line) {
  const auto at = line.find("\"step\":");
  if (at == line.npos)
    return -1;
  std::string_view rest = line.substr(at + 7);
  rest.remove_prefix(std::min(rest.size(), rest.find_first_not_of(' ')));
  std::int64_t step = -1;
  const auto [stop, error] = std::from_chars(rest.data(), rest.data() + rest.size(), step);
  const bool whole = error == std::errc() && stop < rest.data() + rest.size();
  return whole ? step : -1;
}

void RankReader::cut(std::string_view line) {
  cut_step_ = step_of(line);
  sink_.say(concat("the last line is cut in ", in_quotes(lines_.path())));
  if (cut_step_ >= 0)
    sink_.say(concat("step ", cut_step_, " was left out: its last line is cut"));
}

// Takes the record of a line into next_; false for what is passed over. Only a last line that is
// not the first can have been cut by whoever was stopped while writing.
bool RankReader::take(const JsonText& line, ParsedText<MegatronRecord>& parsed, bool first) {
  if (parsed.failure && (first || !line.unfinished))
    std::rethrow_exception(parsed.failure);
  if (parsed.failure) {
    cut(line.text);
    return false;
  }
  const std::string& block = parsed.value.block;
  if (block == "mtp") {
    sink_.say("records of multi-token prediction were left out");
    return false;
  }
  if (block != "decoder") {
    refuse_import(line.where, concat("has a record of the block ", in_quotes(block)),
                  "records of decoder layers");
  }
  next_ = std::move(parsed.value);
  return true;
}

// The next records; false at the end of the file.
bool RankReader::read_lines() {
  first_batch_ = batch_ == nullptr;
  used_ = 0;
  batch_ = batches_.next();
  return batch_ != nullptr;
}

void RankReader::ahead() {
  next_.reset();
  for (;;) {
    if ((batch_ == nullptr || used_ == batch_->texts.size()) && !read_lines())
      return;
    const std::size_t at = used_++;
    if (take(batch_->texts[at], batch_->parsed[at], first_batch_ && at == 0))
      return;
  }
}

std::vector<MegatronPass> RankReader::passes() {
  const std::int64_t step = next_->step;
  std::vector<MegatronPass> out;
  while (next_ && next_->step == step) {
    if (out.empty() || out.back().records.back().layer >= next_->layer)
      out.emplace_back();
    MegatronPass& pass = out.back();
    if (!pass.records.empty() && pass.records.front().rows != next_->rows) {
      refuse_import(
          next_->where,
          concat("has ", next_->rows, " tokens in layer ", next_->layer, ", where layer ",
                 pass.records.front().layer, " of the same pass has ", pass.records.front().rows),
          "one recording a file");
    }
    pass.records.push_back(std::move(*next_));
    ahead();
  }
  if (step == cut_step_)
    out.clear();
  return out;
}

class MegatronTrace final : public Importer {
 public:
  bool recognises(const ImportInputs& in) const override {
    return std::any_of(in.files().begin(), in.files().end(), [](const ImportFile& f) {
      return f.name().starts_with("router_trace_rank") ||
             (f.mentions("\"top_indices\"") && f.mentions("\"stage\""));
    });
  }
  void read(const ImportInputs&, ImportSink&) const override;
};

std::vector<const ImportFile*> rank_files(const ImportInputs& in) {
  std::vector<const ImportFile*> out;
  for (const ImportFile& f : in.files()) {
    if (f.name().starts_with("router_trace_rank") || f.mentions("\"top_indices\""))
      out.push_back(&f);
  }
  if (out.empty()) {
    refuse_import(in.first().quoted(), "holds no record with top_indices",
                  "router_trace_rank0.jsonl, or its folder");
  }
  std::stable_sort(out.begin(), out.end(), [](const ImportFile* a, const ImportFile* b) {
    return number_in(a->name(), "rank") < number_in(b->name(), "rank");
  });
  return out;
}

// The readers that stand at the smallest step, by rank.
std::vector<RankReader*> next_readers(std::vector<std::unique_ptr<RankReader>>& readers) {
  std::vector<RankReader*> out;
  for (const auto& r : readers) {
    if (!r->more())
      continue;
    if (!out.empty() && r->step() < out.front()->step())
      out.clear();
    if (out.empty() || r->step() == out.front()->step())
      out.push_back(r.get());
  }
  return out;
}

void MegatronTrace::read(const ImportInputs& in, ImportSink& sink) const {
  sink.facts.engine = "megatron";
  MegatronPasses passes(in, sink);
  const std::vector<const ImportFile*> files = rank_files(in);
  ParseThreads threads;
  const std::size_t batches = std::max<std::size_t>(1, 2 * threads.count() / files.size());
  std::vector<std::unique_ptr<RankReader>> readers;
  for (const ImportFile* f : files)
    readers.push_back(std::make_unique<RankReader>(*f, sink, threads, batches));
  const auto ranks = int(readers.size());
  const int stages = std::max(1, in.options().pipeline);
  if (ranks % stages != 0) {
    refuse_import("--pipeline",
                  concat("says ", stages, " stages, and there are files of ", ranks, " ranks"),
                  "as many stages as the run had, and the files of all ranks");
  }
  const int in_stage = ranks / stages;
  for (auto at = next_readers(readers); !at.empty(); at = next_readers(readers)) {
    const std::int64_t step = at.front()->step();
    std::map<int, std::vector<std::vector<MegatronPass>>> by_rank;
    for (RankReader* r : at) {
      const int rank = stages > 1 ? r->rank() % in_stage : r->rank();
      auto& parts = by_rank[rank];
      parts.resize(std::size_t(stages));
      auto& part = parts[stages > 1 ? r->rank() / in_stage : 0];
      for (MegatronPass& p : r->passes())
        part.push_back(std::move(p));
    }
    passes.step(step, by_rank);
  }
  passes.done();
}

}  // namespace

std::unique_ptr<Importer> make_megatron_trace_importer() {
  return std::make_unique<MegatronTrace>();
}

}  // namespace moe
