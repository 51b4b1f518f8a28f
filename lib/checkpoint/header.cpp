// The header of a safetensors file, read as a stream of JSON events so that a hundred megabytes of
// it never stand in memory twice, and then checked: lengths, types, shapes, and that the tensors
// cover the file without gap or overlap.
#include <fmt/format.h>

#include <array>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>

#include "lib/checkpoint/safetensors.h"
#include "lib/core/error.h"
#include "lib/files/file.h"
#include "lib/files/foreign.h"

namespace moe {
namespace {

[[noreturn]] void refuse(const InputFile& file, const std::string& why) {
  throw Error(Exit::input, fmt::format("{} {}", in_quotes(file.path()), why))
      .hint("download or copy the file again, or write it again with safetensors");
}
[[noreturn]] void refuse(const InputFile& file, std::string_view tensor, const std::string& why) {
  throw Error(Exit::input,
              fmt::format("tensor {} in {} {}", in_quotes(tensor), in_quotes(file.path()), why));
}

// the parser holds one whole: this, and not the length of the header, bounds its memory
constexpr Index longest_token = 4 << 20;
constexpr std::size_t most_metadata = 1 << 16;

// The next `left` bytes of the file, one at a time.
struct Source {
  InputFile& file;
  Index left;
  Index since_event = 0;  // how much of what is being read is one name, number or blank
  std::vector<char> buffer = std::vector<char>(1 << 16);
  const char *at = nullptr, *end = nullptr;

  bool done() {
    if (at != end)
      return false;
    if (left == 0)
      return true;
    const std::size_t n = file.read(
        std::span(buffer).first(std::size_t(std::min<Index>(left, Index(buffer.size())))));
    if (n == 0)
      refuse(file, "became shorter while it was read");
    // the parser would take it for the end
    if (std::memchr(buffer.data(), 0, n))
      refuse(file, "has a zero byte in its header");
    at = buffer.data();
    end = at + n;
    left -= Index(n);
    since_event += Index(n);
    if (since_event > longest_token) {
      refuse(file, fmt::format("has a name, number or blank of more than {} bytes in its header",
                               longest_token));
    }
    return false;
  }
};

struct Cursor {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  Source* source = nullptr;
  const char& operator*() const {
    return *source->at;
  }
  Cursor& operator++() {
    ++source->at;
    return *this;
  }
  Cursor operator++(int) {
    ++source->at;
    return *this;
  }
  bool operator==(const Cursor& o) const {
    return source == o.source || (source ? *this : o).source->done();
  }
};

struct Entry {  // the tensor being read
  std::string name;
  bool dtype = false, shape = false, offsets = false;
  DType type = DType::f32;
  Dims dims;
  std::array<std::uint64_t, 2> range{};
  int bounds = 0;
};

// Events of the JSON parser. What may come next depends on `where`; anything else is refused with
// the tensor's name.
class Handler {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;

  Handler(Source& source, Index data_start, SafetensorsHeader& out)
      : source_(source), file_(source.file), data_start_(data_start), out_(out) {}

  bool null() {
    if (where_ != Where::metadata_start)
      return wrong("null");
    where_ = Where::top;  // "__metadata__": null, as if it were not there
    return true;
  }
  bool boolean(bool) {
    return wrong("true or false");
  }
  bool number_integer(number_integer_t v) {
    return wrong(fmt::format("the number {}", v));
  }
  bool number_float(number_float_t, const std::string& text) {
    return wrong(fmt::format("the number {}", text.substr(0, 40)));
  }
  bool binary(nlohmann::json::binary_t&) {
    return wrong("binary");
  }
  bool number_unsigned(number_unsigned_t v) {
    if (where_ == Where::shape) {
      if (v > std::uint64_t(INT64_MAX))
        refuse(file_, entry_.name, fmt::format("has a dimension of {}", v));
      if (entry_.dims.size() == max_file_rank)
        refuse(file_, entry_.name, fmt::format("has more than {} dimensions", max_file_rank));
      entry_.dims.push_back(Index(v));
    } else if (where_ == Where::offsets) {
      if (entry_.bounds == 2)
        refuse(file_, entry_.name, "has more than two data_offsets");
      entry_.range[std::size_t(entry_.bounds++)] = v;
    } else {
      wrong(fmt::format("the number {}", v));
    }
    return true;
  }
  bool string(std::string& s) {
    if (where_ == Where::dtype) {
      bool known = false;
      entry_.type = dtype_of_name(s, known);
      if (!known)
        refuse(file_, entry_.name, fmt::format("has the unknown dtype {}", in_quotes(s)));
      where_ = Where::entry;
    } else if (where_ == Where::metadata_value) {
      if (!out_.metadata.emplace(key_, std::move(s)).second)
        refuse(file_, fmt::format("has the metadata key {} twice", in_quotes(key_)));
      if (out_.metadata.size() > most_metadata)
        refuse(file_, fmt::format("has more than {} metadata entries", most_metadata));
      where_ = Where::metadata;
    } else {
      wrong(fmt::format("the text {}", in_quotes(s)));
    }
    return true;
  }
  bool start_object(std::size_t) {
    if (where_ == Where::start)
      where_ = Where::top;
    else if (where_ == Where::value)
      where_ = Where::entry;
    else if (where_ == Where::metadata_start)
      where_ = Where::metadata;
    else
      wrong("an object");
    return true;
  }
  bool end_object() {
    if (where_ == Where::entry)
      finish_entry();
    where_ = where_ == Where::top ? Where::end : Where::top;
    return true;
  }
  bool start_array(std::size_t) {
    if (where_ == Where::shape_start)
      where_ = Where::shape;
    else if (where_ == Where::offsets_start)
      where_ = Where::offsets;
    else
      wrong("a list");
    return true;
  }
  bool end_array() {
    if (where_ == Where::offsets && entry_.bounds != 2)
      refuse(file_, entry_.name, fmt::format("has {} data_offsets where 2 belong", entry_.bounds));
    where_ = Where::entry;
    return true;
  }
  bool key(std::string& k) {
    source_.since_event = 0;
    if (where_ == Where::metadata) {
      key_ = std::move(k);
      where_ = Where::metadata_value;
    } else if (where_ == Where::top && k == "__metadata__") {
      if (std::exchange(metadata_seen_, true))
        refuse(file_, "has '__metadata__' twice");
      where_ = Where::metadata_start;
    } else if (where_ == Where::top) {
      entry_ = {};
      entry_.name = std::move(k);
      where_ = Where::value;
    } else {
      field(k);
    }
    return true;
  }
  bool parse_error(std::size_t at, const std::string&, const nlohmann::json::exception& e) {
    std::string why = e.what();
    if (const auto colon = why.find("column "); colon != why.npos)
      why.erase(0, std::min(why.size(), why.find(": ", colon) + 2));
    refuse(file_, fmt::format("has a header that is not JSON at its byte {}: {}", at,
                              why.substr(0, std::min<std::size_t>(why.find("; last read"), 160))));
  }

 private:
  enum class Where {
    start,
    top,
    value,
    entry,
    dtype,
    shape_start,
    shape,
    offsets_start,
    offsets,
    metadata_start,
    metadata,
    metadata_value,
    end
  };

  bool wrong(const std::string& what) {
    switch (where_) {
      case Where::start:
      case Where::top:
      case Where::end:
        refuse(file_, fmt::format("has a header that is {} and not an object", what));
      case Where::metadata_start:
        refuse(file_, fmt::format("has {} as __metadata__ where an object belongs", what));
      case Where::metadata:
      case Where::metadata_value:
        refuse(file_,
               fmt::format("has {} as the metadata {} where text belongs", what, in_quotes(key_)));
      case Where::shape:
      case Where::shape_start:
        refuse(file_, entry_.name, fmt::format("has {} in its shape", what));
      case Where::offsets:
      case Where::offsets_start:
        refuse(file_, entry_.name, fmt::format("has {} in its data_offsets", what));
      case Where::dtype:
        refuse(file_, entry_.name, fmt::format("has {} as its dtype", what));
      default:
        refuse(
            file_, entry_.name,
            fmt::format("is {} where an object with dtype, shape and data_offsets belongs", what));
    }
  }
  void field(const std::string& k) {
    const auto once = [&](bool& seen, Where next) {
      if (std::exchange(seen, true))
        refuse(file_, entry_.name, fmt::format("has its {} twice", k));
      where_ = next;
    };
    if (k == "dtype")
      once(entry_.dtype, Where::dtype);
    else if (k == "shape")
      once(entry_.shape, Where::shape_start);
    else if (k == "data_offsets")
      once(entry_.offsets, Where::offsets_start);
    else
      refuse(file_, entry_.name, fmt::format("has the unknown key {}", in_quotes(k)));
  }
  void finish_entry() {
    Entry& e = entry_;
    if (!e.dtype || !e.shape || !e.offsets) {
      refuse(file_, e.name,
             fmt::format("has no {}", !e.dtype   ? "dtype"
                                      : !e.shape ? "shape"
                                                 : "data_offsets"));
    }
    const auto [begin, end] = e.range;
    Index bytes = 0;
    if (begin > end)
      refuse(file_, e.name, fmt::format("ends at byte {}, before it begins at {}", end, begin));
    if (end > std::uint64_t(file_.size() - data_start_)) {
      refuse(file_, e.name,
             fmt::format("ends at byte {} of a file of {} bytes (cut short?)",
                         fmt::format("{}+{}", data_start_, end), file_.size()));
    }
    if (!checked_bytes(e.type, e.dims, bytes)) {
      refuse(file_, e.name,
             fmt::format("has the impossible shape {} for {}", text_of(e.dims),
                         safetensors_name(e.type)));
    }
    if (std::uint64_t(bytes) != end - begin) {
      refuse(file_, e.name,
             fmt::format("needs {} bytes for {} {} but its data_offsets [{}, {}] hold {}", bytes,
                         safetensors_name(e.type), text_of(e.dims), begin, end, end - begin));
    }
    e.dims.shrink_to_fit();
    out_.tensors.push_back(
        {std::move(e.name), e.type, std::move(e.dims), data_start_ + Index(begin), bytes, 0});
  }

  Source& source_;
  const InputFile& file_;
  const Index data_start_;
  SafetensorsHeader& out_;
  Where where_ = Where::start;
  Entry entry_;
  std::string key_;
  bool metadata_seen_ = false;
};

void check_cover(const InputFile& file, Index data_start, std::vector<TensorInfo>& tensors) {
  std::ranges::sort(tensors, {},
                    [](const TensorInfo& t) { return std::pair(t.offset, t.offset + t.bytes); });
  Index at = data_start;
  for (const TensorInfo& t : tensors) {
    if (t.offset < at) {
      refuse(
          file, t.name,
          fmt::format("begins at byte {} of the data, inside the tensor before it that ends at {}",
                      t.offset - data_start, at - data_start));
    }
    if (t.offset > at) {
      refuse(file,
             fmt::format("has {} bytes at byte {} of the data that belong to no tensor, before {}",
                         t.offset - at, at - data_start, in_quotes(t.name)));
    }
    at = t.offset + t.bytes;
  }
  if (at != file.size())
    refuse(file, fmt::format("has {} bytes where its header describes {}", file.size(), at));
  std::ranges::sort(tensors, {}, &TensorInfo::name);
  const auto twice = std::ranges::adjacent_find(tensors, {}, &TensorInfo::name);
  if (twice != tensors.end())
    refuse(file, twice->name, "occurs twice in the header");
}

}  // namespace

SafetensorsHeader read_safetensors_header(InputFile& file) {
  std::array<unsigned char, 8> raw{};
  if (file.size() < 10)
    refuse(file, fmt::format("has {} bytes, too few for a safetensors file", file.size()));
  file.read({reinterpret_cast<char*>(raw.data()), raw.size()});
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i)
    length = length << 8 | raw[std::size_t(i)];
  if (length > std::uint64_t(file.size() - 8)) {
    refuse_foreign(file.path(), "a safetensors file");
    refuse(file, fmt::format("says that its header has {} bytes, but the whole file has {}", length,
                             file.size()));
  }
  if (length > std::uint64_t(max_header_bytes)) {
    refuse(file, fmt::format("says that its header has {} bytes, more than the {} allowed", length,
                             max_header_bytes));
  }
  if (length < 2)
    refuse(file, fmt::format("says that its header has {} bytes, too few for any", length));

  SafetensorsHeader header;
  const Index data_start = 8 + Index(length);
  Source source{file, Index(length)};
  if (source.done() || *source.at != '{')
    refuse(file, "has a header that does not begin with '{'");
  Handler handler(source, data_start, header);
  nlohmann::json::sax_parse(Cursor{&source}, Cursor{}, &handler);
  check_cover(file, data_start, header.tensors);
  return header;
}

}  // namespace moe
