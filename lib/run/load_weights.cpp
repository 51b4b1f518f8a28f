#include "lib/run/load_weights.h"

#include <cmath>
#include <optional>
#include <set>

#include "lib/core/error.h"
#include "lib/family/families.h"
#include "lib/family/family.h"
#include "lib/files/file.h"
#include "lib/model/cost.h"
#include "lib/model/decoder.h"
#include "lib/run/lazy_experts.h"
#include "lib/run/run_folder.h"

namespace moe {
namespace {

constexpr Index rows_at_once = 256;

// Formats undone, numbers looked at, and which tensors of the files nobody asked for.
class WeightReader {
 public:
  explicit WeightReader(const Weights& weights) : weights_(weights) {}

  Tensor get(const std::string& name, const Dims& dims) {
    if (last_)
      last_->forget(0, last_->rows());  // its numbers were copied
    last_ = weights_.open(name, dims);
    asked(*last_);
    Tensor t = last_->numbers();
    refuse_infinite(t, name);
    return t;
  }
  void asked(const StoredRows& stored) {
    for (const std::string& n : stored.tensors())
      asked_.insert(n);
  }
  std::vector<std::string> left_over() const {
    std::vector<std::string> out;
    for (std::string& name : weights_.names()) {
      if (!asked_.contains(name))
        out.push_back(std::move(name));
    }
    return out;
  }

 private:
  void refuse_infinite(const Tensor& t, const std::string& name) const {
    Matrix<float> rows(std::min<Index>(t.rows(), rows_at_once), t.cols());
    for (Index first = 0; first < t.rows(); first += rows.rows()) {
      const View<float> part = rows.view().slice(0, std::min(rows.rows(), t.rows() - first));
      t.to_float(first, part);
      float sum = 0;  // of zeros, unless a number is not finite
      for (const float v : part.flat())
        sum += v * 0;
      if (sum != 0 || std::isnan(sum)) {
        throw Error(Exit::input,
                    concat("tensor '", name, "' in ", in_quotes(weights_.file_of(name)),
                           " holds numbers that are not finite"))
            .hint("the checkpoint is broken or diverged");
      }
    }
  }

  const Weights& weights_;
  std::unique_ptr<const StoredRows> last_;
  std::set<std::string> asked_;
};

}  // namespace

void refuse_sizes(const Weights& weights, const ModelConfig& config, const std::string& said_by) {
  const double parameters = double(cost_of(config, 1).parameters);
  const double most = weights.most_numbers();
  if (parameters > most) {
    const std::vector<std::string> notes = weights.notes();
    const bool absent = !weights.absent().empty() && !notes.empty();
    throw Error(Exit::input, concat(said_by, " describes a model of ", parameters,
                                    " parameters and the tensors in ", in_quotes(weights.path()),
                                    " cannot hold more than ", most, absent ? ": " + notes[0] : ""))
        .hint("the configuration of another model, or files that are missing");
  }
}

std::string head_name(const Names& names) {
  return names.output + ".weight";
}

TiedHead tied_head(const Weights& weights, const Names& names, const ModelConfig& config) {
  const std::vector<std::string> there = weights.names();
  const std::string embedding = names.prefix + names.embedding;
  const std::string head = head_name(names);
  if (!config.tied || !std::ranges::binary_search(there, head) ||
      !std::ranges::binary_search(there, embedding)) {
    return TiedHead::absent;
  }
  const Dims dims{config.vocabulary, config.hidden};
  const auto one = weights.open(embedding, dims);
  const auto other = weights.open(head, dims);
  Matrix<float> a(rows_at_once, config.hidden);
  Matrix<float> b(rows_at_once, config.hidden);
  for (Index first = 0; first < one->rows(); first += rows_at_once) {
    const Index rows = std::min(rows_at_once, one->rows() - first);
    one->to_float(first, a.view().slice(0, rows));
    other->to_float(first, b.view().slice(0, rows));
    if (!std::equal(a.data(), a.data() + rows * config.hidden, b.data()))
      return TiedHead::other;
  }
  return TiedHead::copy;
}

Holding on_machine(const ModelConfig& config, const Holding& wanted) {
  if (config.moe_layers() == 0)
    return {.numbers = Keep::in_memory};
  if (wanted.numbers != Keep::as_fits)
    return wanted;
  if (double(cost_of(config, 1).weight_bytes) <= double(machine_bytes()) / 2)
    return {.numbers = Keep::in_memory};
  return {.numbers = Keep::cached, .expert_bytes = machine_bytes() / 8};
}

std::vector<std::string> load_weights(const Weights& weights, const Names& names,
                                      const Holding& holding, Decoder<float>& model) {
  WeightReader reader(weights);
  const auto asked = [&](const StoredRows& s) {
    reader.asked(s);
  };
  const bool decodes = holding.numbers == Keep::cached && holding.decodes;
  leave_in_files(weights, model, names, decodes ? Keep::in_files : holding.numbers);
  load(model, names,
       [&](const std::string& name, const Dims& dims) { return reader.get(name, dims); });
  if (holding.numbers == Keep::cached)
    experts_from(weights, model, names, holding, asked);
  else if (holding.numbers != Keep::in_memory)
    made_when_read(weights, model, names, holding, asked);
  return reader.left_over();
}

std::string left_over(const std::vector<std::string>& names) {
  constexpr std::size_t most_named = 3;
  if (names.empty())
    return "";
  std::string list;
  for (std::size_t i = 0; i < std::min(names.size(), most_named); ++i)
    list += concat(i > 0 ? ", " : "", in_quotes(names[i]));
  return concat(names.size(), names.size() == 1 ? " tensor is" : " tensors are",
                " no part of the model and left out: ", list,
                names.size() > most_named ? ", ..." : "");
}

}  // namespace moe
