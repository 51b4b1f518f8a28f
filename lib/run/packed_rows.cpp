#include "lib/run/packed_rows.h"

#include <cstring>

#include "lib/core/error.h"

namespace moe {
namespace {

class Writer {
 public:
  explicit Writer(std::vector<std::byte>& to) : to_(to) {}
  template <class T>
  void operator()(const T& value) requires std::is_trivially_copyable_v<T> {
    put(&value, sizeof(value));
  }
  template <class T>
  void operator()(const std::vector<T>& v) {
    (*this)(std::uint64_t(v.size()));
    put(v.data(), v.size() * sizeof(T));
  }
  template <class T>
  void operator()(const Matrix<T>& m) {
    (*this)(m.rows());
    (*this)(m.cols());
    put(m.data(), std::size_t(m.size()) * sizeof(T));
  }

 private:
  void put(const void* from, std::size_t bytes) {
    const auto* first = static_cast<const std::byte*>(from);
    to_.insert(to_.end(), first, first + bytes);
  }
  std::vector<std::byte>& to_;
};

class Reader {
 public:
  explicit Reader(ConstBytes from) : from_(from) {}
  bool at_end() const {
    return from_.empty();
  }
  template <class T>
  void operator()(T& value) requires std::is_trivially_copyable_v<T> {
    get(&value, sizeof(value));
  }
  template <class T>
  void operator()(std::vector<T>& v) {
    std::uint64_t n = 0;
    (*this)(n);
    v.resize(bounded(n, sizeof(T)));
    get(v.data(), v.size() * sizeof(T));
  }
  template <class T>
  void operator()(Matrix<T>& m) {
    Index rows = 0;
    Index cols = 0;
    (*this)(rows);
    (*this)(cols);
    bounded(std::uint64_t(rows * cols), sizeof(T));
    m = Matrix<T>(rows, cols);
    get(m.data(), std::size_t(m.size()) * sizeof(T));
  }

 private:
  std::size_t bounded(std::uint64_t count, std::size_t each) const {
    if (count > from_.size() / each)
      throw Error(Exit::bug, "rows of another rank are cut off");
    return std::size_t(count);
  }
  void get(void* to, std::size_t bytes) {
    bounded(bytes, 1);
    if (bytes > 0)
      std::memcpy(to, from_.data(), bytes);
    from_ = from_.subspan(bytes);
  }
  ConstBytes from_;
};

// Every field of rows that a recording has, in one order for both ways. `rows` and `l` are const
// where they are written.
template <class Io, class Layer>
void fields_of_layer(Io& io, Layer& l) {
  io(l.expert);
  io(l.weight);
  io(l.dropped);
  io(l.kept);
  io(l.predicted);
  io(l.entropy);
  io(l.margin);
  io(l.logsumexp);
  io(l.logits);
  io(l.out_norm);
}
template <class Io, class Rows>
void fields_of(Io& io, Rows& rows) {
  io(rows.token_id);
  io(rows.position);
  io(rows.flags);
  io(rows.modality);
  io(rows.rank);
  io(rows.predicted_id);
  io(rows.target_id);
  io(rows.logprob);
  for (auto& l : rows.layer)
    fields_of_layer(io, l);
}

}  // namespace

void PackedRows::add(const BatchRows& batch) {
  Writer out(bytes_);
  const std::vector<SequenceRows> sequences = batch.sequences();
  out(std::uint64_t(sequences.size()));
  for (const SequenceRows& s : sequences) {
    out(s.domain);
    out(s.goes_on);
    out(s.grid);
    out(std::uint64_t(s.rows.layer.size()));
    fields_of(out, s.rows);
  }
}

void PackedRows::for_each(ConstBytes bytes,
                          const std::function<void(const std::vector<SequenceRows>&)>& visit) {
  Reader in(bytes);
  while (!in.at_end()) {
    std::uint64_t count = 0;
    in(count);
    std::vector<SequenceRows> sequences;
    for (std::uint64_t i = 0; i < count; ++i) {
      SequenceRows& s = sequences.emplace_back();
      std::uint64_t layers = 0;
      in(s.domain);
      in(s.goes_on);
      in(s.grid);
      in(layers);
      s.rows.layer.resize(std::size_t(layers));
      fields_of(in, s.rows);
    }
    visit(sequences);
  }
}

}  // namespace moe
