// A wanted tensor is a list of runs of rows of tensors in the file. "Rows" are here whatever lies
// together: the rows of a matrix, or the single numbers of a vector, which may be cut and laced
// too.
#include "lib/checkpoint/gguf_weights.h"

#include <algorithm>

#include "lib/checkpoint/quant/dequantise.h"
#include "lib/checkpoint/quant/dots.h"
#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"

namespace moe {
namespace {

[[noreturn]] void refuse(const GgufFile& file, const GgufTensor& t, const std::string& why) {
  throw Error(Exit::input,
              concat("tensor ", in_quotes(t.name), " in ", in_quotes(file.file(t)), " ", why));
}

// Without sizes of 1 in front.
Dims bare(Dims dims) {
  while (dims.size() > 1 && dims[0] == 1)
    dims.erase(dims.begin());
  return dims;
}

void check_dims(const GgufFile& file, const GgufTensor& t, const Dims& expected) {
  if (bare(t.dims) != bare(expected)) {
    refuse(file, t,
           concat("has the shape ", text_of(t.dims), " where ", text_of(expected), " is expected"));
  }
}

// The tensor as one that can be decoded.
const GgufTensor& checked(const GgufFile& file, const GgufTensor& t) {
  if (!can_dequantise(*t.type)) {
    refuse(file, t, concat("is of type ", t.type->name, ", which is no format of weights"));
  }
  return t;
}

bool in_few_bits(const GgmlType& t) {
  return t.use == GgmlType::Use::weights && 8 * t.bytes < 16 * t.block;
}

// Numbers that lie together: a row, or of a vector one number.
Index width_of(const Dims& dims) {
  return bare(dims).size() == 1 ? 1 : dims.back();
}

// Rows of one tensor that stand one after the other.
struct Run {
  const GgufTensor* tensor;
  Index first, rows;
  quant::RowDots dots = nullptr;  // of its format, where rows lie as products read them
  quant::RowByteDots byte_dots = nullptr;
};

class RunsOfRows final : public StoredRows {
 public:
  RunsOfRows(std::shared_ptr<const GgufFile> file, const std::string& name, const Dims& dims,
             std::vector<Run> runs, Index laced_head)
      : StoredRows(name, dims),
        file_(std::move(file)),
        runs_(std::move(runs)),
        width_(width_of(dims)),
        laced_head_(laced_head) {
    if (runs_.size() == 1 && runs_[0].tensor->size() == size() && laced_head_ == 0) {
      width_ = cols();  // as it stands, so that one row may be blocks too
      runs_[0].rows = this->rows();
    }
    Index rows = 0;
    for (const Run& r : runs_) {
      begins_.push_back(rows);
      rows += r.rows;
      const GgufTensor& t = checked(*file_, *r.tensor);
      if (width_ % t.type->block != 0)
        refuse(*file_, t, concat("is of type ", t.type->name, ", which no vector can be"));
    }
    find_dots();
    if (rows * width_ != size())
      throw Error(Exit::bug, concat("the runs of '", name, "' do not fill it"));
    if (laced_head_ > 0 && (laced_head_ % 2 != 0 || rows % laced_head_ != 0))
      refuse(*file_, *runs_[0].tensor,
             concat("has ", rows, " rows, which are no heads of ", laced_head_));
  }

  std::vector<std::string> tensors() const override {
    std::vector<std::string> out;
    for (const Run& r : runs_)
      out.push_back(r.tensor->name);
    return out;
  }
  bool quantised() const override {
    return std::ranges::any_of(runs_, [](const Run& r) { return in_few_bits(*r.tensor->type); });
  }
  // Rows as products see them are the file's own, though perhaps in another order.
  bool has_dots() const override {
    return has_dots_;
  }
  bool has_byte_dots() const override {
    return has_byte_dots_;
  }
  bool dots(Index first, Index count, const ActivationRow& x, float* y) const override {
    if (!has_dots_)
      return false;
    const bool whole = x.bytes.number && has_byte_dots_;
    each_stretch(first, count, laced_head_ > 0, [&](const Run& r, Index row, Index n, Index at) {
      const std::byte* w = bytes_of(r, row, n).data();
      float* to = y + (at - first);
      if (whole)
        r.byte_dots(w, x.bytes, to, n, width_);
      else
        r.dots(w, x.number, to, n, width_);
    });
    return true;
  }
  bool finite(Index first, Index count) const override {
    if (!has_dots_)
      return StoredRows::finite(first, count);
    bool all = true;
    each_stretch(first, count, false, [&](const Run& r, Index row, Index n, Index) {
      all = all && quant::all_finite(*r.tensor->type, bytes_of(r, row, n));
    });
    return all;
  }
  std::vector<std::span<const std::byte>> bytes(Index first, Index count) const override {
    std::vector<std::span<const std::byte>> out;
    each_stretch(
        first * cols() / width_, count * cols() / width_, false,
        [&](const Run& r, Index row, Index rows, Index) { out.push_back(bytes_of(r, row, rows)); });
    return out;
  }

 private:
  // Once, since formats are found by their names.
  void find_dots() {
    has_dots_ = width_ == cols();
    has_byte_dots_ = has_dots_;
    for (Run& r : runs_) {
      r.dots = quant::row_dots(*r.tensor->type);
      r.byte_dots = quant::row_byte_dots(*r.tensor->type);
      has_dots_ = has_dots_ && r.dots;
      has_byte_dots_ = has_byte_dots_ && r.byte_dots;
    }
  }
  void convert(Index first, View<float> out) const override {
    const Index from = first * cols() / width_;
    each_stretch(from, out.rows * cols() / width_, laced_head_ > 0,
                 [&](const Run& r, Index row, Index rows, Index at) {
                   dequantise(*r.tensor->type, bytes_of(r, row, rows),
                              {out.data + (at - from) * width_, std::size_t(rows * width_)});
                 });
  }
  std::span<const std::byte> bytes_of(const Run& r, Index row, Index rows) const {
    const GgmlType& t = *r.tensor->type;
    const Index each = width_ / t.block * t.bytes;
    return file_->bytes(*r.tensor).subspan(std::size_t((r.first + row) * each),
                                           std::size_t(rows * each));
  }
  // Where row i of the published order stands: its head's halves were laced into pairs.
  Index laced(Index i) const {
    const Index half = laced_head_ / 2;
    const Index in_head = i % laced_head_;
    return i - in_head + in_head % half * 2 + in_head / half;
  }
  // Calls body(run, row in it, rows, place) for rows first .. first+count in pieces that lie
  // together; one at a time where they are laced.
  template <class Body>
  void each_stretch(Index first, Index count, bool in_turn, const Body& body) const {
    for (Index done = 0; done < count;) {
      const Index at = first + done;
      const Index stands = in_turn ? laced(at) : at;
      const std::size_t run =
          runs_.size() == 1
              ? 0
              : std::size_t(std::ranges::upper_bound(begins_, stands) - begins_.begin()) - 1;
      const Index row = stands - begins_[run];
      const Index rows = in_turn ? 1 : std::min(count - done, runs_[run].rows - row);
      body(runs_[run], row, rows, at);
      done += rows;
    }
  }

  std::shared_ptr<const GgufFile> file_;
  std::vector<Run> runs_;
  std::vector<Index> begins_;  // of each run
  Index width_, laced_head_;
  bool has_dots_ = false, has_byte_dots_ = false;
};

// kv_b of latent attention (heads * (nope + value), rank) out of attn_k_b (heads, rank, nope), in
// which each head was transposed, and attn_v_b (heads, value, rank).
class LatentRows final : public StoredRows {
 public:
  LatentRows(std::shared_ptr<const GgufFile> file, const std::string& name, const Dims& dims,
             const GgufLayout& layout, const GgufTensor& keys, const GgufTensor& values)
      : StoredRows(name, dims),
        file_(std::move(file)),
        layout_(layout),
        keys_(keys),
        values_(values) {
    check_dims(*file_, checked(*file_, keys_), {layout.heads, cols(), layout.nope});
    check_dims(*file_, checked(*file_, values_), {layout.heads, layout.value, cols()});
    if (rows() != layout.heads * (layout.nope + layout.value))
      throw Error(Exit::bug, concat("the heads of '", name, "' do not fill it"));
  }
  std::vector<std::string> tensors() const override {
    return {keys_.name, values_.name};
  }
  std::vector<std::span<const std::byte>> bytes(Index, Index) const override {
    return {file_->bytes(keys_), file_->bytes(values_)};
  }

 private:
  void convert(Index first, View<float> out) const override {
    const Index each = layout_.nope + layout_.value;
    Matrix<float> keys;
    Index decoded = -1;
    for (Index r = 0; r < out.rows; ++r) {
      const Index head = (first + r) / each;
      const Index in_head = (first + r) % each;
      if (in_head >= layout_.nope) {
        value_row(head * layout_.value + in_head - layout_.nope, out.row(r));
        continue;
      }
      if (decoded != head)
        keys = keys_of(decoded = head);
      for (Index c = 0; c < cols(); ++c)
        out(r, c) = keys(c, in_head);
    }
  }
  void value_row(Index row, std::span<float> out) const {
    const Index each = cols() / values_.type->block * values_.type->bytes;
    dequantise(*values_.type,
               file_->bytes(values_).subspan(std::size_t(row * each), std::size_t(each)), out);
  }
  Matrix<float> keys_of(Index head) const {
    Matrix<float> out(cols(), layout_.nope);
    const Index each = out.size() / keys_.type->block * keys_.type->bytes;
    dequantise(*keys_.type,
               file_->bytes(keys_).subspan(std::size_t(head * each), std::size_t(each)),
               {out.data(), std::size_t(out.size())});
    return out;
  }

  std::shared_ptr<const GgufFile> file_;
  GgufLayout layout_;
  const GgufTensor& keys_;
  const GgufTensor& values_;
};

// "blk.3." + "attn_q" + ".weight"
struct NameParts {
  std::string place, bare, tail;
};
NameParts parts_of(const std::string& name) {
  const auto tail = name.rfind('.');
  const auto place = tail == name.npos || tail == 0 ? name.npos : name.rfind('.', tail - 1);
  if (place == name.npos)
    return {"", name.substr(0, tail), tail == name.npos ? "" : name.substr(tail)};
  return {name.substr(0, place + 1), name.substr(place + 1, tail - place - 1), name.substr(tail)};
}

class GgufWeights final : public Weights {
 public:
  GgufWeights(std::shared_ptr<const GgufFile> file, const GgufLayout& layout)
      : file_(std::move(file)), layout_(layout) {}

  const std::filesystem::path& path() const override {
    return file_->path();
  }
  const std::filesystem::path& file_of(const std::string& tensor) const override {
    const GgufTensor* t = file_->find(tensor);
    return t ? file_->file(*t) : file_->path();
  }
  std::vector<std::string> names() const override {
    std::vector<std::string> out;
    for (const GgufTensor& t : file_->tensors())
      out.push_back(t.name);
    return out;
  }
  // A multiple of what is there, so that a tensor that is missing is named for it.
  double most_numbers() const override {
    double numbers = 0;
    for (const GgufTensor& t : file_->tensors())
      numbers += double(t.size());
    return 4 * numbers;
  }
  // Operands in bf16 are rounded once, when a matrix is held.
  bool quantised(DType operands) const override {
    return operands == DType::f32 && std::ranges::any_of(file_->tensors(), [](const GgufTensor& t) {
             return t.dims.size() > 1 && in_few_bits(*t.type);
           });
  }
  std::unique_ptr<const StoredRows> open(const std::string& name, const Dims& dims) const override {
    const NameParts p = parts_of(name);
    if (const GgufTensor* t = file_->find(name)) {
      check_dims(*file_, *t, dims);
      return runs(name, dims, {{t, 0, t->size() / width_of(dims)}});
    }
    if (auto rows = out_of_qkv(p, name, dims))
      return rows;
    if (auto rows = out_of_experts(p, name, dims))
      return rows;
    const GgufTensor* keys = file_->find(p.place + "attn_k_b.weight");
    if (p.bare == "attn_kv_b" && keys && layout_.heads > 0) {
      return std::make_unique<const LatentRows>(file_, name, dims, layout_, *keys,
                                                file_->at(p.place + "attn_v_b.weight"));
    }
    file_->at(name);  // says that it is missing
    throw Error(Exit::bug, concat("the tensor ", in_quotes(name), " came and went"));
  }

 private:
  std::unique_ptr<const StoredRows> runs(const std::string& name, const Dims& dims,
                                         std::vector<Run> runs) const {
    const std::string part = parts_of(name).bare;
    const bool laced = part == "attn_q" || part == "attn_k";
    return std::make_unique<const RunsOfRows>(file_, name, dims, std::move(runs),
                                              laced ? layout_.laced_head : 0);
  }
  std::unique_ptr<const StoredRows> out_of_qkv(const NameParts& p, const std::string& name,
                                               const Dims& dims) const {
    const GgufTensor* t = file_->find(p.place + "attn_qkv" + p.tail);
    const std::string order = "qkv";
    if (!t || p.bare.size() != 6 || !p.bare.starts_with("attn_") ||
        order.find(p.bare[5]) == order.npos)
      return nullptr;
    const Index place = Index(order.find(p.bare[5]));
    const Index first = place == 0 ? 0 : layout_.query_rows + (place - 1) * layout_.key_rows;
    const Index count = place == 0 ? layout_.query_rows : layout_.key_rows;
    Dims all = dims;
    all[0] = layout_.query_rows + 2 * layout_.key_rows;
    check_dims(*file_, *t, all);
    return runs(name, dims, {{t, first, count}});
  }
  // ffn_gate_exps (E, out, in) out of a tensor that has ups behind gates in each expert, or out of
  // one tensor an expert.
  std::unique_ptr<const StoredRows> out_of_experts(const NameParts& p, const std::string& name,
                                                   const Dims& dims) const {
    const std::string end = "_exps";
    if (!p.bare.ends_with(end) || p.tail != ".weight" || dims.size() != 3)
      return nullptr;
    const std::string part = p.bare.substr(0, p.bare.size() - end.size());
    std::vector<Run> out;
    const GgufTensor* both = file_->find(p.place + "ffn_gate_up_exps.weight");
    if (both && (part == "ffn_gate" || part == "ffn_up")) {
      check_dims(*file_, *both, {dims[0], 2 * dims[1], dims[2]});
      for (Index e = 0; e < dims[0]; ++e)
        out.push_back({both, (2 * e + (part == "ffn_up")) * dims[1], dims[1]});
      return runs(name, dims, std::move(out));
    }
    if (!file_->find(p.place + part + ".0.weight"))
      return nullptr;
    for (Index e = 0; e < dims[0]; ++e) {
      const GgufTensor& t = file_->at(concat(p.place, part, ".", e, ".weight"));
      check_dims(*file_, t, {dims[1], dims[2]});
      out.push_back({&t, 0, dims[1]});
    }
    return runs(name, dims, std::move(out));
  }

  std::shared_ptr<const GgufFile> file_;
  GgufLayout layout_;
};

}  // namespace

std::unique_ptr<const Weights> gguf_weights(std::shared_ptr<const GgufFile> file,
                                            const GgufLayout& layout) {
  return std::make_unique<const GgufWeights>(std::move(file), layout);
}

}  // namespace moe
