// The first pass: every check that holds for all formats. See sink.h; writing is in sink_write.cpp.
#include "lib/import/sink.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/import/inputs.h"
#include "lib/import/model_config.h"
#include "lib/trace/keep_rows.h"

namespace moe {
namespace {

constexpr int most_layers = 4096, most_experts = 65'534;
constexpr Index most_choices = 4096;
constexpr std::size_t most_count_cells = std::size_t(1) << 26;
constexpr std::size_t most_kept = std::size_t(256) << 20;

const char* const wants_experts = "--experts N, or --config config.json of the model";

std::string row_text(const ImportBlock& b, Index row) {
  return concat(b.where, " token ", b.rows_before + row);
}

}  // namespace

ImportBlock make_block(const std::vector<int>& layers, Index rows, Index choices,
                       std::string where) {
  ImportBlock b;
  b.layers = layers;
  b.where = std::move(where);
  b.rows.layer.resize(layers.size());
  for (LayerRows& l : b.rows.layer)
    l.expert = Matrix<int>(rows, choices, -1);
  return b;
}

ImportSink::ImportSink(const ImportOptions& options, const RecordedModel* config)
    : options_(options), config_(config) {
  fields_ = {.weights = false,
             .dropped = false,
             .kept = false,
             .entropy = false,
             .margin = false,
             .logsumexp = false};
  facts.layer.routed_scale = std::nanf("");
  facts.layer.capacity_factor = std::nanf("");
  if (!config)
    return;
  facts.layer.score_fn = config->score_fn;
  facts.layer.norm_topk = config->norm_topk;
  facts.layer.routed_scale = config->routed_scale;
  facts.layer.n_group = config->groups;
  facts.layer.topk_group = config->topk_groups;
  facts.layer.shared = config->shared;
}
ImportSink::~ImportSink() = default;

void ImportSink::continue_from(const TraceHeader& old) {
  for (const std::string& domain : old.domains)
    domain_number(domain);
  if (!old.modalities.empty())
    modalities_ = old.modalities;
  if (options_.experts == 0)
    options_.experts = old.max_experts();
  if (options_.topk == 0)
    options_.topk = old.max_choices();
}

void ImportSink::say(const std::string& sentence) {
  if (!writing_ && known_sentences_.insert(sentence).second)
    said_.push_back(sentence);
}

int ImportSink::experts() const {
  if (options_.experts > 0)
    return options_.experts;
  if (config_ && config_->experts > 0)
    return config_->experts;
  return facts.experts;
}

std::uint16_t ImportSink::domain_number(const std::string& name) {
  if (name.empty())
    return no_domain;
  const auto [at, fresh] = domain_numbers_.try_emplace(name, std::uint16_t(domains_.size()));
  if (fresh) {
    if (domains_.size() == no_domain)
      refuse_import("the import", "has more than 65,534 domains", "--domain-by folder");
    domains_.push_back(name);
  }
  return at->second;
}

std::uint8_t ImportSink::modality(const std::string& name) {
  if (name.empty())
    return modality::unknown;
  const auto at = std::ranges::find(modalities_, name);
  const auto number = at - modalities_.begin();
  if (number == modality::unknown)
    refuse_import("the import", "has more than 255 modalities", "one name a kind of content");
  if (at == modalities_.end())
    modalities_.push_back(name);
  return std::uint8_t(number);
}

void ImportSink::step(std::int64_t step, Phase phase) {
  ++steps_;
  if (writing_)
    writer_->step({step, 0, 0, phase});
  else
    keep(SaidStep{step, phase}, sizeof(Said));
}

void ImportSink::sequence(const std::string& domain) {
  ++sequences_;
  position_ = 0;
  const std::uint16_t number = domain_number(domain);
  if (writing_)
    writer_->sequence(number);
  else
    keep(SaidSequence{domain}, sizeof(Said) + domain.size());
}

void ImportSink::rows(ImportBlock&& b) {
  leave_out_padding(b);
  if (writing_) {
    complete(b);
    return write(std::move(b));
  }
  look(b);
  if (!keeping_)
    return;
  SaidRows said(std::move(b));
  const std::size_t bytes = said.bytes();
  keep(std::move(said), bytes);
}

void ImportSink::keep(Said said, std::size_t bytes) {
  kept_bytes_ += bytes;
  keeping_ = keeping_ && kept_bytes_ <= most_kept;
  if (keeping_)
    kept_.push_back(std::move(said));
  else
    std::vector<Said>().swap(kept_);
}

bool ImportSink::replay() {
  if (!keeping_)
    return false;
  for (Said& said : kept_) {
    if (const auto* s = std::get_if<SaidStep>(&said))
      step(s->number, s->phase);
    else if (const auto* q = std::get_if<SaidSequence>(&said))
      sequence(q->domain);
    else
      rows(std::move(std::get<SaidRows>(said)).block());
  }
  return true;
}

void ImportSink::leave_out_padding(ImportBlock& b) {
  if (options_.pad_id < 0 || b.rows.token_id.empty())
    return;
  std::vector<Index> keep;
  for (std::size_t t = 0; t < b.rows.token_id.size(); ++t) {
    if (b.rows.token_id[t] != std::uint32_t(options_.pad_id))
      keep.push_back(Index(t));
  }
  if (keep.size() == b.rows.token_id.size())
    return;
  padding_ += writing_ ? 0 : b.rows.token_id.size() - keep.size();
  keep_only(b.rows.token_id, keep);
  keep_only(b.rows.position, keep);
  keep_only(b.rows.flags, keep);
  keep_only(b.rows.modality, keep);
  keep_only(b.rows.rank, keep);
  keep_only(b.rows.predicted_id, keep);
  for (LayerRows& l : b.rows.layer) {
    keep_only(l.expert, keep);
    keep_only(l.weight, keep);
    keep_only(l.dropped, keep);
    keep_only(l.logits, keep);
  }
}

void ImportSink::look(const ImportBlock& b) {
  note_fields(b);
  for (std::size_t i = 0; i < b.layers.size(); ++i) {
    look_at_layer(b, i);
    look_at_weights(b, i);
  }
  if (!b.rows.layer.empty())
    total_ += std::uint64_t(b.rows.layer[0].expert.rows());
}

void ImportSink::note_fields(const ImportBlock& b) {
  token_ids_ = token_ids_ || !b.rows.token_id.empty();
  fields_.rank = fields_.rank || !b.rows.rank.empty();
  fields_.modality = fields_.modality || !b.rows.modality.empty();
  fields_.prediction = fields_.prediction || !b.rows.predicted_id.empty();
  for (const LayerRows& l : b.rows.layer) {
    fields_.weights = fields_.weights || !l.weight.empty();
    fields_.dropped = fields_.dropped || !l.dropped.empty();
    fields_.logits = fields_.logits || !l.logits.empty();
  }
}

namespace {

struct RowFacts {
  int most = -1, bad_id = 0;
  Index used = 0;  // up to the last choice that is an expert
  bool all_zero = false, wrong = false;
};

RowFacts facts_of(std::span<const int> row, int limit) {
  RowFacts f;
  f.all_zero = row.size() > 1;
  for (std::size_t k = 0; k < row.size(); ++k) {
    const int id = row[k];
    if (id < -1 || id >= limit) {
      f.wrong = true;
      f.bad_id = id;
    }
    f.all_zero = f.all_zero && id == 0;
    f.most = std::max(f.most, id);
    f.used = id >= 0 ? Index(k) + 1 : f.used;
  }
  return f;
}

// The smallest expert that is there twice; -1 where all differ.
int repeated(std::span<const int> row) {
  std::vector<int> sorted(row.begin(), row.end());
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i] == sorted[i - 1] && sorted[i] >= 0)
      return sorted[i];
  }
  return -1;
}

}  // namespace

void ImportSink::look_at_layer(const ImportBlock& b, std::size_t i) {
  const int number = b.layers[i];
  const Matrix<int>& ids = b.rows.layer[i].expert;
  if (number < 0 || (found_.size() >= most_layers && !found_.count(number)))
    refuse_import(b.where, concat("names layer ", number), "layers from 0 on, at most 4096");
  if (ids.cols() > most_choices)
    refuse_import(b.where, concat("has ", ids.cols(), " choices a token"), "at most 4096");
  Layer& l = found_[number];
  const int limit = experts() > 0 ? experts() : most_experts;
  if (seen_in_row_.size() < std::size_t(limit))
    seen_in_row_.resize(std::size_t(limit));
  int most = -1;
  for (Index t = 0; t < ids.rows(); ++t) {
    const std::uint64_t row = ++rows_looked_at_;
    bool odd = ids.cols() == 0;
    for (const int id : ids.row(t)) {
      if (unsigned(id) >= unsigned(limit)) {
        odd = true;
        break;
      }
      odd = odd || seen_in_row_[id] == row;
      seen_in_row_[id] = row;
      most = std::max(most, id);
    }
    if (odd)
      look_at_odd_row(b, i, t, limit, l);
    else
      l.choices = std::max(l.choices, ids.cols());
  }
  l.rows += std::uint64_t(ids.rows());
  l.most = std::max(l.most, std::int64_t(most));
}

// A row in which a choice is missing, wrong or there twice.
void ImportSink::look_at_odd_row(const ImportBlock& b, std::size_t i, Index t, int limit,
                                 Layer& l) {
  const auto ids = b.rows.layer[i].expert.row(t);
  const RowFacts row = facts_of(ids, limit);
  if (row.wrong) {
    refuse_import(row_text(b, t),
                  concat("has expert ", row.bad_id, " in layer ", b.layers[i], ", and there are ",
                         limit, " experts"),
                  wants_experts);
  }
  l.most = std::max(l.most, std::int64_t(row.most));
  l.choices = std::max(l.choices, row.used);
  l.none += row.used == 0;
  if (row.all_zero) {
    if (l.zeros++ == 0)
      l.first_zero = row_text(b, t);
  } else if (const int twice = repeated(ids); twice >= 0) {
    refuse_import(row_text(b, t), concat("has expert ", twice, " twice in layer ", b.layers[i]),
                  "each choice of a token is another expert: the file is damaged, or of another "
                  "format");
  }
}

void ImportSink::look_at_weights(const ImportBlock& b, std::size_t i) {
  const LayerRows& l = b.rows.layer[i];
  if (sums_to_one_ && !l.weight.empty())
    look_at_sums(l);
  for (const Matrix<float>* m : {&l.weight, &l.logits}) {
    for (Index n = 0; n < m->size(); ++n) {
      if (std::isfinite(m->data()[n]))
        continue;
      const Index t = n / m->cols();
      if (m == &l.weight && n % m->cols() < l.expert.cols() && l.expert(t, n % m->cols()) < 0)
        continue;
      refuse_import(
          row_text(b, t),
          concat("has ", std::isnan(m->data()[n]) ? "NaN" : "an infinite number", " as a ",
                 m == &l.weight ? "weight" : "logit", " in layer ", b.layers[i]),
          "leave the weights out where they are not known");
    }
  }
}

// Whether the weights of every row were made to sum to one.
void ImportSink::look_at_sums(const LayerRows& l) {
  for (Index t = 0; t < l.weight.rows() && sums_to_one_; ++t) {
    const auto ids = l.expert.row(t);
    const auto weights = l.weight.row(t);
    double sum = 0;
    bool any = false;
    bool negative = false;
    for (std::size_t k = 0; k < std::min(ids.size(), weights.size()); ++k) {
      if (ids[k] < 0)
        continue;  // what stands beside no expert weighs nothing
      any = true;
      negative = negative || weights[k] < 0;
      sum += std::isnan(weights[k]) ? 0 : double(weights[k]);
    }
    sums_to_one_ = !any || (!negative && std::abs(sum - 1) < 0.01);
  }
}

void ImportSink::counts(std::int64_t step, int layer, const std::vector<std::int64_t>& per_expert,
                        const std::string& where) {
  if (writing_)
    return;
  const auto [at, fresh] = count_step_at_.try_emplace(step, count_steps_.size());
  if (fresh)
    count_steps_.push_back({step, {}});
  auto& sum = count_steps_[at->second].counts[layer];
  if (sum.empty()) {
    count_cells_ += per_expert.size();
    sum.resize(per_expert.size());
  }
  if (layer < 0 || layer > 1 << 20)
    refuse_import(where, concat("names layer ", layer), "layers from 0 on");
  if (count_cells_ > most_count_cells)
    refuse_import(where, "has more than 67 million counts", "fewer steps at once");
  if (sum.size() != per_expert.size()) {
    refuse_import(where,
                  concat("has counts of ", per_expert.size(), " experts in layer ", layer,
                         " of step ", step, ", where ", sum.size(), " were found before"),
                  "files of one model");
  }
  for (std::size_t e = 0; e < sum.size(); ++e) {
    if (per_expert[e] < 0) {
      refuse_import(
          where,
          concat("has the negative count ", per_expert[e], " for expert ", e, " in layer ", layer),
          "counts from 0 on");
    }
    if (__builtin_add_overflow(sum[e], per_expert[e], &sum[e]) || sum[e] > UINT32_MAX) {
      refuse_import(
          where,
          concat("counts more than 4,294,967,295 tokens for expert ", e, " in layer ", layer),
          "fewer steps at once");
    }
  }
}

}  // namespace moe
