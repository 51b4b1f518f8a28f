#include "lib/trace/given_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

constexpr Index most_rows = Index(1) << 27;

std::string shape_text(const std::vector<Index>& dims) {
  std::string out;
  for (const Index n : dims)
    out += concat(out.empty() ? "" : " x ", n);
  return out.empty() ? "one number" : out;
}

[[noreturn]] void refuse(const std::string& name, const std::vector<Index>& dims,
                         const std::string& wanted) {
  throw Error(Exit::input, concat(name, " is ", shape_text(dims), " and must be ", wanted))
      .hint("docs/given-rows.md says what such a file holds");
}

// Whole numbers, whatever their type in the file.
GoldenArray<std::int64_t> integers(const GoldenFile& file, const std::string& name) {
  const auto all = file.reals(name);
  GoldenArray<std::int64_t> out{all.dims, {}};
  for (const double v : all.values) {
    if (!(std::abs(v) < 1e15) || v != std::floor(v))
      throw Error(Exit::input, concat(name, " holds ", v, ", which is no whole number"));
    out.values.push_back(std::int64_t(v));
  }
  return out;
}

class Reader {
 public:
  explicit Reader(const GoldenFile& file) : file_(file) {
    const auto ids = integers(file, "input_ids");
    if (ids.dims.size() != 2 || ids.dims[0] < 1 || ids.dims[1] < 1 || ids.size() > most_rows)
      refuse("input_ids", ids.dims, "sequences x rows");
    sequences_ = ids.dims[0];
    length_ = ids.dims[1];
    for (const std::int64_t id : ids.values) {
      if (id > std::numeric_limits<int>::max())
        throw Error(Exit::input, concat("input_ids holds ", id, ", which is no id"));
      batch_.token.push_back(id < 0 ? -1 : int(id));
    }
    batch_.start.clear();
    for (Index q = 0; q <= sequences_; ++q)
      batch_.start.push_back(q * length_);
  }

  Batch read() {
    read_modality();
    read_targets();
    read_valid();
    read_positions();
    read_given();
    read_added();
    return std::move(batch_);
  }

 private:
  Index rows() const {
    return sequences_ * length_;
  }
  // Whole numbers, one a row.
  std::vector<std::int64_t> whole(const char* name) const {
    const auto all = integers(file_, name);
    if (all.size() != rows())
      refuse(name, all.dims, concat(sequences_, " x ", length_, ", as input_ids"));
    return all.values;
  }
  // What routes, where that is another thing than what a row is (ERNIE: the marks around a
  // picture).
  void read_modality() {
    const bool routes = file_.has("moe_mm_token_type_ids");
    if (!routes && !file_.has("modality"))
      return;
    for (const std::int64_t m : whole(routes ? "moe_mm_token_type_ids" : "modality")) {
      if (m < 0 || m >= modality_kinds)
        throw Error(Exit::input,
                    concat("a row has the modality ", m, ", and they end at ", modality_kinds - 1));
      batch_.modality.push_back(std::uint8_t(m));
    }
  }
  void read_targets() {
    if (!file_.has("target"))
      return;
    for (const std::int64_t id : whole("target")) {
      if (id > std::numeric_limits<int>::max())
        throw Error(Exit::input, concat("target holds ", id, ", which is no id"));
      batch_.target.push_back(id < 0 ? -1 : int(id));
    }
  }
  void read_valid() {
    if (!file_.has("attention_mask"))
      return;
    for (const std::int64_t v : whole("attention_mask"))
      batch_.valid.push_back(v != 0);
  }
  // (3,B,S), (4,B,S) of transformers, whose first row counts the rows, (B,S), or (1,S) and (S) of
  // every sequence.
  void read_positions() {
    if (!file_.has("position_ids"))
      return;
    const auto all = integers(file_, "position_ids");
    const Index given = all.dims.size() == 3 ? all.dims[0] : 1;
    const Index axes = (given == 3 || given == 4) && all.size() == given * rows() ? given : 1;
    if (axes == 1 && all.size() != rows() && all.size() != length_)
      refuse("position_ids", all.dims, concat("3 x ", sequences_, " x ", length_));
    batch_.position = Matrix<int>(3, rows());
    for (Index a = 0; a < 3; ++a) {
      for (Index t = 0; t < rows(); ++t) {
        const Index at = axes > 1                ? (axes - 3 + a) * rows() + t
                         : all.size() == length_ ? t % length_
                                                 : t;
        const std::int64_t p = all.values[std::size_t(at)];
        if (p < 0 || p > std::numeric_limits<int>::max())
          throw Error(Exit::input, concat("position_ids holds ", p, ", which is no position"));
        batch_.position(a, t) = int(p);
      }
    }
  }
  // The rows whose own modality is among these.
  std::vector<Index> rows_of(std::initializer_list<std::uint8_t> kinds) const {
    std::vector<Index> out;
    const std::vector<std::int64_t> own = whole("modality");
    for (Index t = 0; t < rows(); ++t) {
      if (std::ranges::find(kinds, own[std::size_t(t)]) != kinds.end())
        out.push_back(t);
    }
    return out;
  }
  // (n,H), however the file cuts the n into pictures.
  RowValues values(const std::string& name, std::vector<Index> row) const {
    const auto all = file_.reals(name);
    if (all.dims.size() < 2 || all.dims.back() < 1 ||
        all.size() != Index(row.size()) * all.dims.back())
      refuse(name, all.dims, concat(row.size(), " rows of the model's width"));
    RowValues out{std::move(row), Matrix<float>(all.size() / all.dims.back(), all.dims.back())};
    std::ranges::transform(all.values, out.value.data(), [](double v) { return float(v); });
    return out;
  }
  void read_given() {
    if (file_.has("inputs_embeds")) {
      std::vector<Index> every(std::size_t(rows()), 0);
      for (std::size_t t = 0; t < every.size(); ++t)
        every[t] = Index(t);
      batch_.given = values("inputs_embeds", std::move(every));
      return;
    }
    if (!file_.has("modality")) {
      throw Error(Exit::input,
                  "there are image_features and no modality, which says where they stand")
          .hint("modality: a number a row, 0 = text; or inputs_embeds, all rows");
    }
    batch_.given =
        values("image_features", rows_of({modality::image, modality::video, modality::audio}));
  }
  // Of pictures, and of videos where their number says so.
  void read_added() {
    for (int layer = 0; file_.has(concat("deepstack_", layer)); ++layer) {
      const std::string name = concat("deepstack_", layer);
      const std::vector<Index> pictures = rows_of({modality::image});
      const std::vector<Index> seen = rows_of({modality::image, modality::video});
      const auto dims = file_.reals(name).dims;
      const bool of_both = !dims.empty() && dims[0] == Index(seen.size());
      batch_.added.push_back(values(name, of_both ? seen : pictures));
    }
  }

  const GoldenFile& file_;
  Index sequences_ = 0, length_ = 0;
  Batch batch_;
};

}  // namespace

Batch read_given_rows(const GoldenFile& file) {
  return Reader(file).read();
}

bool has_given_rows(const GoldenFile& file) {
  return file.has("input_ids") && (file.has("inputs_embeds") || file.has("image_features"));
}

namespace {

template <class T>
std::vector<T> part_of(const std::vector<T>& all, Index first, Index last) {
  if (all.empty())
    return {};
  return {all.begin() + first, all.begin() + last};
}

RowValues part_of(const RowValues& all, Index first, Index last) {
  const auto from = std::ranges::lower_bound(all.row, first);
  const auto to = std::ranges::lower_bound(all.row, last);
  RowValues out;
  for (auto at = from; at != to; ++at)
    out.row.push_back(*at - first);
  out.value = Matrix<float>(Index(out.row.size()), all.value.cols());
  for (Index i = 0; i < out.value.rows(); ++i)
    std::ranges::copy(all.value.row(from - all.row.begin() + i), out.value.row(i).begin());
  return out;
}

}  // namespace

Batch sequences_of(const Batch& all, Index first, Index count) {
  const Index from = all.start[std::size_t(first)];
  const Index to = all.start[std::size_t(first + count)];
  Batch out;
  out.token = part_of(all.token, from, to);
  out.target = part_of(all.target, from, to);
  out.valid = part_of(all.valid, from, to);
  out.modality = part_of(all.modality, from, to);
  out.start.clear();
  for (Index q = first; q <= first + count; ++q)
    out.start.push_back(all.start[std::size_t(q)] - from);
  out.given = part_of(all.given, from, to);
  for (const RowValues& added : all.added)
    out.added.push_back(part_of(added, from, to));
  if (!all.position.empty()) {
    out.position = Matrix<int>(3, to - from);
    for (Index a = 0; a < 3; ++a) {
      for (Index t = from; t < to; ++t)
        out.position(a, t - from) = all.position(a, t);
    }
  }
  return out;
}

}  // namespace moe
