#include "lib/run/lazy_experts.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <iterator>
#include <map>
#include <set>

#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/family/families.h"
#include "lib/layer/expert_cache.h"
#include "lib/layer/moe_layer.h"
#include "lib/model/decoder.h"
#include "lib/run/read_ahead.h"

namespace moe {
namespace {

struct Where {
  std::shared_ptr<const StoredRows> tensor;
  TensorRows rows;
};

void read_part(const Where& w, Index first, View<float> out);

// Of a narrow expert in rows as wide as the widest's.
void read_narrow(const Where& w, Index first, View<float> out) {
  Matrix<float> rows(out.rows, w.rows.cols);
  read_part(w, first, rows.view());
  std::ranges::fill(out.flat(), 0.0f);
  for (Index r = 0; r < out.rows; ++r)
    std::ranges::copy(rows.row(r), out.row(r).begin());
}

// Rows first .. first+out.rows of the part; 0 where they lie nowhere.
void read_part(const Where& w, Index first, View<float> out) {
  const TensorRows& at = w.rows;
  if (!w.tensor)
    return void(std::ranges::fill(out.flat(), 0.0f));
  if (at.cols > 0 && at.cols < out.cols)
    return read_narrow(w, first, out);
  const Index cols = w.tensor->cols();
  const Index begin = at.offset + first * at.row;
  if (at.column == 1 && at.row == cols && out.cols == cols && begin % cols == 0) {
    w.tensor->to_float(begin / cols, out);
    return;
  }
  const Index top = begin / cols;
  const Index last = begin + (out.rows - 1) * at.row + (out.cols - 1) * at.column;
  // in turn with others, or with its axes swapped
  Matrix<float> around(last / cols - top + 1, cols);
  w.tensor->to_float(top, around.view());
  for (Index r = 0; r < out.rows; ++r) {
    for (Index c = 0; c < out.cols; ++c)
      out(r, c) = around.data()[begin - top * cols + r * at.row + c * at.column];
  }
}

[[noreturn]] void refuse_not_finite(const Where& w) {
  throw Error(Exit::input, concat("tensor '", w.rows.tensor, "' holds numbers that are not finite"))
      .hint("the checkpoint is broken or diverged");
}

void refuse_infinite(const Where& w, View<const float> numbers) {
  std::uint32_t largest = 0;  // exponent of an infinity or a NaN, where there is one
  for (const float v : numbers.flat())
    largest = std::max(largest, std::bit_cast<std::uint32_t>(v) & 0x7f800000u);
  if (largest == 0x7f800000u)
    refuse_not_finite(w);
}

// Of the rows [first, first+count) of a part.
void add_bytes(const Where& w, Index first, Index count,
               std::vector<std::span<const std::byte>>& out) {
  if (!w.tensor || count == 0)
    return;
  const TensorRows& at = w.rows;
  const Index cols = w.tensor->cols();
  const Index begin = at.offset + first * at.row;
  const Index width = at.cols > 0 ? at.cols : at.parameter->value().cols;
  const Index last = begin + (count - 1) * at.row + (width - 1) * at.column;
  const Index top = begin / cols;
  std::ranges::copy(w.tensor->bytes(top, last / cols - top + 1), std::back_inserter(out));
}

// Parts stand in order of their first row and fill the parameter. `take` gets the part, the first
// of its rows, and how many: take(where, from, count).
template <class Take>
void each_range(const std::vector<Where>& parts, Index first, Index rows, const Take& take) {
  auto part =
      std::ranges::upper_bound(parts, first, {}, [](const Where& w) { return w.rows.first; });
  for (Index done = 0; done < rows;) {
    const Where& w = *(part++ - 1);
    const Index from = first + done - w.rows.first;
    const Index count = std::min(rows - done, w.rows.rows - from);
    take(w, from, count);
    done += count;
  }
}

std::vector<std::span<const std::byte>> bytes_of(const std::vector<Where>& parts, Index first,
                                                 Index rows) {
  std::vector<std::span<const std::byte>> out;
  each_range(parts, first, rows,
             [&](const Where& w, Index from, Index count) { add_bytes(w, from, count, out); });
  return out;
}

// `take` gets the rows of each part that fill `out`: take(where, from, to).
template <class Take>
void each_part(const std::vector<Where>& parts, Index first, View<float> out, const Take& take) {
  Index done = 0;
  each_range(parts, first, out.rows, [&](const Where& w, Index from, Index count) {
    take(w, from, out.slice(done, count));
    done += count;
  });
}

// Whether rows of the part are those of the tensor, one behind the other.
bool rows_of_tensor(const Where& w) {
  const TensorRows& at = w.rows;
  const Index cols = w.tensor ? w.tensor->cols() : 0;
  return w.tensor && at.column == 1 && at.row == cols && (at.cols == 0 || at.cols == cols) &&
         at.offset % cols == 0;
}
// Whether they can be multiplied so.
bool as_they_lie(const Where& w) {
  return rows_of_tensor(w) && w.tensor->has_dots();
}

bool dot_part(const Where& w, Index first, Index rows, const ActivationRow& x, float* y) {
  if (!w.tensor)
    std::fill_n(y, rows, 0.0f);
  return !w.tensor ||
         (as_they_lie(w) && w.tensor->dots(w.rows.offset / w.rows.row + first, rows, x, y));
}

// A few rows at a time, so that they are looked at while they are in the cache; all at once where
// the file has their columns side by side.
void read_rows(const std::vector<Where>& parts, Index first, View<float> out) {
  constexpr Index numbers_at_once = Index(1) << 16;
  const Index at_once = std::max<Index>(1, numbers_at_once / std::max<Index>(1, out.cols));
  each_part(parts, first, out, [&](const Where& w, Index from, View<float> to) {
    const Index step = w.rows.column == 1 ? at_once : to.rows;
    for (Index r = 0; r < to.rows; r += step) {
      const View<float> some = to.slice(r, std::min(step, to.rows - r));
      read_part(w, from + r, some);
      refuse_infinite(w, some);
    }
  });
}

// Throws where these rows of a part hold a number that is not finite.
void look_at(const Where& w, Index from, Index count) {
  if (!w.tensor)
    return;
  if (as_they_lie(w)) {
    if (!w.tensor->finite(w.rows.offset / w.rows.row + from, count))
      refuse_not_finite(w);
    return;
  }
  Matrix<float> some(count, w.rows.parameter->value().cols);
  read_part(w, from, some.view());
  refuse_infinite(w, some.view());
}

// Rows that are decoded each time. Of files that are read in place they are multiplied as they lie
// and looked at when they are first read, a stretch of a part at a time: they are in the cache
// then. Activations are rounded where that is wanted and all rows have products of whole numbers.
class DecodedRows : public RowSource {
 public:
  DecodedRows(std::vector<Where> parts, Index rows, const Holding& holding)
      : parts_(std::move(parts)) {
    if (holding.numbers != Keep::in_files)
      return;
    const std::size_t stretches = parts_.size() + std::size_t(rows / stretch) + 1;
    looked_at_ = std::make_unique<std::atomic<bool>[]>(stretches);
    rounds_ =
        holding.activations == Activations::int8 && std::ranges::all_of(parts_, [](const Where& w) {
          return !w.tensor || (as_they_lie(w) && w.tensor->has_byte_dots());
        });
  }
  void read(Index first, View<float> out) const override {
    each_part(parts_, first, out, [&](const Where& w, Index from, View<float> to) {
      look_once(w, from, to.rows);
      read_part(w, from, to);
    });
  }

  const std::vector<Where>& parts() const {
    return parts_;
  }
  std::vector<std::span<const std::byte>> bytes(Index first, Index rows) const override {
    return bytes_of(parts_, first, rows);
  }
  bool has_dots() const override {
    return in_place() &&
           std::ranges::all_of(parts_, [](const Where& w) { return !w.tensor || as_they_lie(w); });
  }
  bool rounds_activations() const override {
    return rounds_;
  }
  bool dots(Index first, Index rows, const ActivationRow& x, float* y) const override {
    bool all = in_place();
    // as one column for each number
    each_part(parts_, first, {y, rows, 1}, [&](const Where& w, Index from, View<float> to) {
      look_once(w, from, to.rows);
      all = all && dot_part(w, from, to.rows, x, to.data);
    });
    return all;
  }

 protected:
  void look_once(const Where& w, Index from, Index count) const {
    if (!in_place())
      return;
    for (Index s = from / stretch; s <= (from + count - 1) / stretch; ++s) {
      // no two parts share one
      std::atomic<bool>& done =
          looked_at_[std::size_t((&w - parts_.data()) + w.rows.first / stretch + s)];
      if (done.load(std::memory_order_relaxed))
        continue;
      look_at(w, s * stretch, std::min(stretch, w.rows.rows - s * stretch));
      done.store(true, std::memory_order_relaxed);
    }
  }

 private:
  static constexpr Index stretch = 64;  // rows
  bool in_place() const {
    return looked_at_ != nullptr;
  }

  std::vector<Where> parts_;
  bool rounds_ = false;
  std::unique_ptr<std::atomic<bool>[]> looked_at_;  // null: not in place
};

// Of experts that are read when they are used: as bf16 too where they lie so.
class RowsInFile final : public DecodedRows {
 public:
  RowsInFile(std::vector<Where> parts, Index rows, const Holding& holding)
      : DecodedRows(std::move(parts), rows, {.numbers = Keep::in_files}) {
    as_bf16_ = std::ranges::all_of(this->parts(), is_bf16);
    // sums of plain numbers are in the order of matrices in memory
    const bool plain = std::ranges::all_of(
        this->parts(), [](const Where& w) { return !w.tensor || !w.tensor->quantised(); });
    has_dots_ = DecodedRows::has_dots() && (holding.decodes || plain);
  }
  bool has_dots() const override {
    return has_dots_;
  }
  bool lies_as_bf16() const override {
    return as_bf16_;
  }
  const std::uint16_t* bf16_rows(Index first, Index rows) const override {
    const std::uint16_t* out = nullptr;
    each_range(parts(), first, rows, [&](const Where& w, Index from, Index count) {
      if (out || from + count > w.rows.rows)
        throw Error(Exit::bug, "rows of several tensors were asked for as if they lay together");
      look_once(w, from, count);
      out = w.tensor->numbers().view<std::uint16_t>().slice(from, count).data;
    });
    return out;
  }

 private:
  // A matrix that is a tensor of its own.
  static bool is_bf16(const Where& w) {
    const TensorRows& r = w.rows;
    if (!w.tensor || w.tensor->quantised())
      return false;
    const bool whole = r.offset == 0 && r.column == 1 && r.row == w.tensor->cols() &&
                       r.rows == w.tensor->rows() && (r.cols == 0 || r.cols == r.row);
    const auto* stored = dynamic_cast<const Stored*>(w.tensor.get());
    return whole && stored && stored->numbers().dtype() == DType::bf16 &&
           stored->numbers().aligned();
  }

  bool as_bf16_ = false, has_dots_ = false;
};

// Rows between the parts, where experts are narrower than the widest, are 0; elsewhere there are
// none.
void fill_gaps(std::vector<Where>& parts, Parameter<float>& parameter, bool narrow) {
  std::vector<Where> whole;
  Index next = 0;
  const auto go_to = [&](Index row) {
    if (row < next || (row > next && !narrow))
      throw Error(Exit::bug, concat("the tensors of '", parameter.name(), "' do not fill it"));
    if (row > next) {
      whole.push_back(
          {nullptr,
           {.tensor = "", .dims = {}, .parameter = &parameter, .first = next, .rows = row - next}});
    }
    next = row;
  };
  for (Where& w : parts) {
    go_to(w.rows.first);
    next += w.rows.rows;
    whole.push_back(std::move(w));
  }
  go_to(parameter.value().rows);
  parts = std::move(whole);
}

using PartsOf = std::map<Parameter<float>*, std::vector<Where>>;

// Where the numbers of every parameter lie that are not in memory.
PartsOf parts_elsewhere(const Weights& weights, Decoder<float>& model, const Names& names,
                        const std::function<void(const StoredRows&)>& asked) {
  std::map<std::string, std::shared_ptr<const StoredRows>> open;
  PartsOf where;
  for (const TensorRows& rows : rows_elsewhere(model, names)) {
    std::shared_ptr<const StoredRows>& tensor = open[rows.tensor];
    if (!tensor) {
      tensor = weights.open(rows.tensor, rows.dims);
      asked(*tensor);
    }
    where[rows.parameter].push_back({tensor, rows});
  }
  for (auto& [parameter, parts] : where) {
    std::ranges::sort(parts, {}, [](const Where& w) { return w.rows.first; });
    fill_gaps(parts, *parameter, !model.config().moe.widths.empty());
  }
  return where;
}

void check_all(const std::vector<Where>& parts) {
  constexpr Index at_once = 256;
  for (const Where& w : parts) {
    parallel_for((w.rows.rows + at_once - 1) / at_once, 1, [&](Index i, Index) {
      look_at(w, i * at_once, std::min(at_once, w.rows.rows - i * at_once));
    });
  }
}

}  // namespace

void leave_in_files(const Weights& weights, Decoder<float>& model, const Names& names, Keep keep) {
  const bool few_bits = keep == Keep::as_stored && model.backend().operand_type() == DType::f32;
  if (!few_bits && keep != Keep::in_files)
    return;
  std::map<const Parameter<float>*, bool> stays;
  for (const ModelParameter<float>& p : model.inventory()) {
    if (p.only_products && p.parameter->kind() == ParameterKind::matrix)
      stays[p.parameter] = true;
  }
  std::map<const Parameter<float>*, std::vector<TensorRows>> rows;
  for (const TensorRows& r : all_rows(model, names)) {
    const auto at = stays.find(r.parameter);
    if (at == stays.end())
      continue;
    const Where w{weights.open(r.tensor, r.dims), r};
    at->second =
        at->second && (few_bits ? rows_of_tensor(w) && w.tensor->quantised() : as_they_lie(w));
    rows[r.parameter].push_back(r);
  }
  for (auto& [parameter, parts] : rows) {
    if (stays.at(parameter))
      parts[0].parameter->part_with_numbers();
  }
  model.backend().give_back();
}

void made_when_read(const Weights& weights, Decoder<float>& model, const Names& names,
                    const Holding& holding, const std::function<void(const StoredRows&)>& asked) {
  for (auto& [parameter, parts] : parts_elsewhere(weights, model, names, asked)) {
    if (holding.numbers != Keep::in_files)
      check_all(parts);
    if (parameter->kind() == ParameterKind::matrix) {
      parameter->come_from(
          std::make_shared<const DecodedRows>(std::move(parts), parameter->value().rows, holding));
      continue;
    }
    parameter->lie_elsewhere(
        [parts = parts](Index first, View<float> out) { read_rows(parts, first, out); });
    parameter->bring();
  }
}

std::optional<MatrixInFile> matrix_in_file(const Parameter<float>& parameter, Index first,
                                           const Dims& dims, const std::string& as) {
  const auto* decoded = dynamic_cast<const DecodedRows*>(parameter.source().get());
  if (!decoded)
    return {};
  for (const Where& w : decoded->parts()) {
    const TensorRows& r = w.rows;
    const bool whole = r.first == first && r.dims == dims && r.offset == 0 && r.column == 1;
    const auto* stored = dynamic_cast<const Stored*>(w.tensor.get());
    if (stored && whole)
      return MatrixInFile{stored->in_file(as), stored->few_bits()};
  }
  return {};
}

namespace {

// Of all layers, those that a cache of experts brings in.
std::set<const Parameter<float>*> parameters_of_experts(Decoder<float>& model) {
  std::set<const Parameter<float>*> out;
  for (MoeLayer<float>* layer : model.moe_layers()) {
    const ExpertParameters<float>& p = layer->expert_parameters();
    out.insert({&p.gate, &p.up, &p.down, &p.gate_bias, &p.up_bias, &p.down_bias});
  }
  return out;
}

}  // namespace

void experts_from(const Weights& weights, Decoder<float>& model, const Names& names,
                  const Holding& holding, const std::function<void(const StoredRows&)>& asked) {
  const std::set<const Parameter<float>*> experts = parameters_of_experts(model);
  for (auto& [parameter, parts] : parts_elsewhere(weights, model, names, asked)) {
    const bool by_rows =
        std::ranges::all_of(parts, [](const Where& w) { return w.rows.column == 1; });
    const Index rows = parameter->value().rows;
    if (!experts.contains(parameter)) {  // a matrix that is decoded where it lies
      parameter->come_from(std::make_shared<const DecodedRows>(std::move(parts), rows,
                                                               Holding{.numbers = Keep::in_files}));
    } else if (by_rows) {
      parameter->lie_in(std::make_shared<const RowsInFile>(std::move(parts), rows, holding));
    } else {
      parameter->lie_elsewhere(
          [parts = parts](Index first, View<float> out) { read_rows(parts, first, out); });
    }
  }
  const ModelConfig& c = model.config();
  const auto cache = std::make_shared<ExpertCache<float>>(model.backend(), holding.expert_bytes,
                                                          Index(c.moe_layers()) * c.moe.experts);
  std::vector<const ExpertParameters<float>*> layers;
  for (MoeLayer<float>* layer : model.moe_layers()) {
    layer->expert_parameters().cache = cache;
    layers.push_back(&layer->expert_parameters());
  }
  cache->read_ahead(std::move(layers), make_read_ahead());
}

Index machine_bytes() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page = ::sysconf(_SC_PAGESIZE);
  return pages > 0 && page > 0 ? Index(pages) * page : Index(4) << 30;
}

}  // namespace moe
