// Between the passes and the second pass: what the trace's header says, and rows on their way into
// the writer. See sink.h.
#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/import/inputs.h"
#include "lib/import/model_config.h"
#include "lib/import/sink.h"

namespace moe {
namespace {

const char* const wants_config = "--config config.json of the model, or --experts N and --topk N";

}  // namespace

// A layer of the array that is none of the model's MoE layers.
bool ImportSink::without_experts(int layer, const Layer& l) {
  if (l.none == l.rows) {
    say(concat("layer ", layer, " has no expert in any row: taken as dense"));
    return true;
  }
  if (config_ && facts.hidden_layers && config_->is_dense(layer)) {
    if (l.most > 0) {
      refuse_import(config_->name,
                    concat("says that layer ", layer, " is dense, but the file has expert ", l.most,
                           " there"),
                    "the config.json of the model that was recorded");
    }
    return true;
  }
  if (l.zeros == 0)
    return false;
  if (l.zeros < l.rows) {
    refuse_import(l.first_zero, concat("has expert 0 twice in layer ", layer),
                  "each choice of a token is another expert: rows of zeros were never written");
  }
  say(concat("layer ", layer, " is expert 0 in every choice: taken as dense"));
  return true;
}

void ImportSink::decide_layers() {
  for (const auto& [number, l] : found_) {
    if (without_experts(number, l))
      continue;
    TraceLayer layer = facts.layer;
    layer.index = number;
    layer.top_k = int(l.choices);
    if (const auto bytes = facts.expert_bytes.find(number); bytes != facts.expert_bytes.end())
      layer.expert_bytes = bytes->second;
    layer_at_[number] = header_.layers.size();
    header_.layers.push_back(layer);
  }
  if (header_.layers.empty())
    refuse_import("the import", "found rows, but no layer with experts", wants_config);
  const int told = options_.topk > 0 ? options_.topk : config_ ? config_->topk : 0;
  for (TraceLayer& l : header_.layers) {
    if (told > 0 && l.top_k > told) {
      refuse_import(concat("layer ", l.index),
                    concat("has ", l.top_k, " choices a token, and ", told, " was given as topk"),
                    wants_config);
    }
    l.top_k = std::max(l.top_k, told);
  }
}

void ImportSink::decide_experts() {
  std::int64_t most = -1;
  for (const auto& [number, l] : found_)
    most = std::max(most, l.most);
  int n = experts();
  if (n == 0) {
    // no fewer than the choices of a token, which are all different
    n = std::max(int(most) + 1, header_.max_choices());
    say(concat("the number of experts is taken from the largest id: ", n,
               "; --experts N says more"));
  }
  for (TraceLayer& l : header_.layers) {
    l.experts = n;
    if (l.top_k > n) {
      refuse_import(concat("layer ", l.index),
                    concat("has ", l.top_k, " choices a token of only ", n, " experts"),
                    wants_config);
    }
  }
}

// Layers that are counted, and of how many experts: a layer that no token ever took is dense.
std::map<int, std::size_t> ImportSink::leave_out_unused() {
  std::map<int, std::size_t> experts;
  std::map<int, bool> used;
  for (const Step& s : count_steps_) {
    for (const auto& [number, counts] : s.counts) {
      experts[number] = std::max(experts[number], counts.size());
      used[number] = used[number] || std::any_of(counts.begin(), counts.end(),
                                                 [](std::int64_t n) { return n > 0; });
    }
  }
  for (const auto& [number, any] : used) {
    if (any)
      continue;
    say(concat("layer ", number, " has no count in any step: taken as dense"));
    experts.erase(number);
    for (Step& s : count_steps_)
      s.counts.erase(number);
  }
  if (experts.empty())
    refuse_import("the import", "found counts, and all of them are 0", "a recording with tokens");
  return experts;
}

void ImportSink::decide_counts() {
  std::stable_sort(count_steps_.begin(), count_steps_.end(),
                   [](const Step& a, const Step& b) { return a.number < b.number; });
  std::map<int, std::size_t> layers = leave_out_unused();
  for (const auto& [number, found] : layers) {
    TraceLayer layer = facts.layer;
    layer.index = number;
    const int told = experts();
    if (told > 0 && found > std::size_t(told)) {
      refuse_import(concat("layer ", number),
                    concat("has counts of ", found, " experts, and ", told, " were given"),
                    wants_config);
    }
    layer.experts = std::max(told, int(found));
    const auto k = facts.topk.find(number);
    layer.top_k = k != facts.topk.end() ? k->second
                  : options_.topk > 0   ? options_.topk
                  : config_             ? config_->topk
                                        : 0;
    layer_at_[number] = header_.layers.size();
    header_.layers.push_back(layer);
  }
  if (std::all_of(header_.layers.begin(), header_.layers.end(),
                  [](const TraceLayer& l) { return l.top_k == 0; }))
    say("top-k is not in the file");
  say("no tokens in the file: only counts of tokens per expert");
}

void ImportSink::survey_done(const std::string& format) {
  if (total_ == 0 && count_steps_.empty())
    refuse_import("the import", concat("found no routes, although the files look like ", format),
                  "files in which something was recorded");
  if (total_ == 0) {
    decide_counts();
    return;
  }
  decide_layers();
  decide_experts();
  facts.weight_normalized = fields_.weights && sums_to_one_;
  if (padding_ > 0)
    say(concat(padding_, " padding rows were left out"));
  if (!token_ids_)
    say("token ids are not in the file");
  if (!fields_.weights)
    say("no combine weights in the file");
  if (facts.order == "unknown")
    say("the order of the choices is not promised by the format");
  if (facts.order == "id_asc")
    say("the order of the choices is lost (ascending ids)");
}

Matrix<std::uint32_t> ImportSink::count_matrix() const {
  Index width = 0;
  for (const TraceLayer& l : header_.layers)
    width = std::max<Index>(width, l.experts);
  Matrix<std::uint32_t> out(Index(count_steps_.size()), Index(header_.layers.size()) * width);
  for (std::size_t s = 0; s < count_steps_.size(); ++s) {
    for (const auto& [number, counts] : count_steps_[s].counts) {
      const Index at = Index(layer_at_.at(number)) * width;
      for (std::size_t e = 0; e < counts.size(); ++e)
        out(Index(s), at + Index(e)) = std::uint32_t(counts[e]);
    }
  }
  return out;
}

void ImportSink::write_to(const std::filesystem::path& target, TraceHeader given, bool force,
                          std::function<void(std::uint64_t, std::uint64_t)> wrote) {
  given.layers = std::move(header_.layers);
  header_ = std::move(given);
  header_.engine = facts.engine;
  header_.engine_version = facts.engine_version;
  header_.model_id = facts.model_id;
  header_.capture_point = facts.capture_point;
  header_.order = facts.order;
  header_.weight_kind = facts.weight_kind;
  header_.weight_normalized = facts.weight_normalized;
  header_.wide_weights = facts.wide_weights;
  header_.wide_logits = facts.wide_logits;
  header_.logit_kind = facts.logit_kind;
  header_.checkpoint_step = facts.checkpoint_step;
  header_.tokenizer_id = options_.tokenizer;
  header_.compute_dtype = "";
  header_.domains = domains_;
  if (fields_.modality)
    header_.modalities = modalities_;
  if (!count_steps_.empty() && total_ == 0)
    header_.counts = count_matrix();
  TraceWriterOptions w;
  w.force = force;
  w.fields = fields_;
  w.append = options_.append;
  writer_ = std::make_unique<TraceWriter>(target, header_, w);
  wrote_ = std::move(wrote);
  writing_ = true;
  sequences_ = 0;
  steps_ = 0;
  if (total_ == 0) {
    for (const Step& s : count_steps_)
      step(s.number);
  }
}

// What a row has to have and the file does not say.
void ImportSink::complete(ImportBlock& b) {
  TraceRows& r = b.rows;
  const auto n = std::size_t(r.layer.empty() ? 0 : r.layer[0].expert.rows());
  if (r.token_id.empty())
    r.token_id.assign(n, withheld_token);
  if (r.position.empty()) {
    r.position.resize(n);
    for (std::size_t t = 0; t < n; ++t)
      r.position[t] = position_ + std::uint32_t(t);
  }
  position_ += std::uint32_t(n);
  if (r.flags.empty())
    r.flags.assign(n, 0);
  if (fields_.rank && r.rank.empty())
    r.rank.assign(n, 0);
  if (fields_.modality && r.modality.empty())
    r.modality.assign(n, modality::unknown);
  if (fields_.prediction) {
    if (r.predicted_id.empty())
      r.predicted_id.assign(n, withheld_token);
    r.target_id.assign(n, withheld_token);
    r.logprob.assign(n, std::nanf(""));
  }
}

void ImportSink::write(ImportBlock&& b) {
  TraceRows& r = b.rows;
  const auto n = Index(r.token_id.size());
  const Index choices = header_.max_choices();
  std::vector<LayerRows> layers(header_.layers.size());
  for (std::size_t i = 0; i < b.layers.size(); ++i) {
    const auto at = layer_at_.find(b.layers[i]);
    if (at != layer_at_.end())
      layers[at->second] = std::move(r.layer[i]);
  }
  const auto fit = [&](auto& m, auto fill) {
    if (!m.empty() && m.cols() <= choices)
      return;
    std::remove_reference_t<decltype(m)> out(n, choices, fill);
    for (Index t = 0; t < std::min(n, m.rows()); ++t)
      std::copy_n(m.row(t).begin(), std::min<Index>(choices, m.cols()), out.row(t).begin());
    m = std::move(out);
  };
  for (LayerRows& l : layers) {
    fit(l.expert, -1);
    if (fields_.weights)
      fit(l.weight, std::nanf(""));
    if (!l.dropped.empty())
      fit(l.dropped, std::uint8_t(0));
  }
  r.layer = std::move(layers);
  writer_->append(r);
  if (wrote_)
    wrote_(writer_->rows(), total_);
}

ImportResult ImportSink::finish() {
  writer_->finish();
  ImportResult out;
  out.said = said_;
  out.header = header_;
  out.tokens = total_;
  out.sequences = sequences_;
  out.steps = steps_;
  return out;
}

}  // namespace moe
