// Magic, version, length of a Python dictionary, the dictionary, the numbers: the format's versions
// 1 to 3 (numpy.lib.format). Little-endian machines only, as the whole program.
#include "lib/files/npy.h"

#include <charconv>
#include <cstring>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t longest_header = 1 << 16;
constexpr Index buffer_numbers = 1 << 16;
constexpr const char* writes_such = "numpy.save writes such files";

// `where` begins the sentence: "'a.npy'", "'a.npz' weights".
[[noreturn]] void refuse(const std::string& where, const std::string& why,
                         const std::string& hint) {
  throw Error(Exit::input, concat(where, " ", why)).hint(hint);
}
[[noreturn]] void refuse(const fs::path& path, const std::string& why, const std::string& hint) {
  refuse(in_quotes(path), why, hint);
}

// Fills `out`, or refuses the file.
void read_exactly(InputFile& file, std::span<char> out, const char* otherwise) {
  if (file.read(out) != out.size())
    refuse(file.path(), otherwise, "write it again");
}

// The dictionary's text; the numbers begin behind it.
std::string header_text(InputFile& file, Index& data_at) {
  unsigned char head[12] = {};
  if (file.read({reinterpret_cast<char*>(head), 10}) != 10 ||
      std::memcmp(head, "\x93NUMPY", 6) != 0) {
    refuse(file.path(), "is not a NumPy file", writes_such);
  }
  std::size_t length = std::size_t(head[8]) | std::size_t(head[9]) << 8;
  data_at = 10;
  if (head[6] > 1) {
    data_at = 12;
    read_exactly(file, {reinterpret_cast<char*>(head + 10), 2}, "ends inside its NumPy header");
    length |= std::size_t(head[10]) << 16 | std::size_t(head[11]) << 24;
  }
  if (length > longest_header) {
    refuse(file.path(), concat("says that its NumPy header has ", length, " bytes"), writes_such);
  }
  std::string text(length, '\0');
  read_exactly(file, text, "ends inside its NumPy header");
  data_at += Index(length);
  return text;
}

// The text of one value of the dictionary: {'descr': '<u2', 'shape': (3, 4), }.
std::string value_of(const std::string& where, const std::string& dictionary,
                     const std::string& key) {
  const std::string name = concat("'", key, "':");
  const auto at = dictionary.find(name);
  if (at == dictionary.npos)
    refuse(where, concat("has no '", key, "' in its NumPy header"), writes_such);
  const auto first = dictionary.find_first_not_of(' ', at + name.size());
  if (first == dictionary.npos)
    refuse(where, "has a NumPy header that is cut short", writes_such);
  const bool tuple = dictionary[first] == '(';
  const auto end = tuple ? dictionary.find(')', first) : dictionary.find_first_of(",}", first);
  if (end == dictionary.npos)
    refuse(where, "has a NumPy header that is cut short", writes_such);
  if (end == first)
    refuse(where, concat("says nothing behind '", key, "' in its NumPy header"), writes_such);
  return dictionary.substr(first, end - first + (tuple ? 1 : 0));
}

// "(3, 4)", "(3,)", "()".
std::vector<Index> shape_of(const std::string& where, const std::string& text) {
  const auto wrong = [&] {
    refuse(where, concat("has the shape ", text), "lengths from 0 on, as numpy.save writes them");
  };
  if (text.size() < 2 || text.front() != '(' || text.back() != ')')
    wrong();
  std::vector<Index> shape;
  for (const std::string& word : split(text.substr(1, text.size() - 2), ',')) {
    const auto first = word.find_first_not_of(' ');
    if (first == word.npos)
      continue;
    Index n = -1;
    const char* end = word.data() + word.size();
    const auto [stop, error] = std::from_chars(word.data() + first, end, n);
    if (error != std::errc() || stop != end || n < 0)
      wrong();
    shape.push_back(n);
  }
  return shape;
}

void read_type(const std::string& where, NpyHeader& h) {
  const std::string& t = h.type;
  if (t.find('O') != t.npos) {
    refuse(where, "holds Python objects (dtype object), which lie in a pickle and are never read",
           "an array of numbers: a.astype('int32')");
  }
  const auto [end, error] =
      std::from_chars(t.data() + std::min<std::size_t>(t.size(), 2), t.data() + t.size(), h.width);
  const bool sound = error == std::errc() && end == t.data() + t.size() && h.width > 0;
  const bool bytes = t[0] == '|' && (h.width == 1 || t[1] == 'S');
  const bool little = sound && (t[0] == '<' || bytes);
  if (!little) {
    refuse(where, concat("holds numbers of the type ", in_quotes(t)),
           "plain little-endian numbers: a.astype('<u4')");
  }
  h.kind = t[1];
}

// What the dictionary says; the shape's product is left out where it does not fit.
NpyHeader header_of(const std::string& where, const std::string& text) {
  NpyHeader h;
  const std::string type = value_of(where, text, "descr");
  if (type.size() < 2 || type.front() != '\'' || type.back() != '\'') {
    refuse(where, concat("holds numbers of the type ", type),
           "a plain array; of a record save one field");
  }
  h.type = type.substr(1, type.size() - 2);
  read_type(where, h);
  h.by_column = value_of(where, text, "fortran_order") != "False";
  h.shape = shape_of(where, value_of(where, text, "shape"));
  return h;
}

// Refuses a shape that takes another number of bytes than there are.
void check_length(const std::string& where, NpyHeader& h, Index found) {
  bool fits = true;
  for (const Index n : h.shape)
    fits = fits && !__builtin_mul_overflow(h.numbers, n, &h.numbers);
  Index bytes = 0;
  const Index unit = h.kind == 'U' ? 4 : 1;
  fits = fits && !__builtin_mul_overflow(h.numbers, h.width * unit, &bytes);
  if (fits && bytes == found)
    return;
  std::string shape;
  for (const Index n : h.shape)
    shape += concat(shape.empty() ? "" : ", ", n);
  refuse(where,
         concat("has ", found, " bytes behind its header, which is not what the shape (", shape,
                h.shape.size() == 1 ? ",)" : ")", " of ", in_quotes(h.type), " takes"),
         "the file is cut short, or is no plain array");
}

NpyHeader read_header(InputFile& file) {
  Index data_at = 0;
  const std::string text = header_text(file, data_at);
  NpyHeader h = header_of(in_quotes(file.path()), text);
  h.data_at = data_at;
  if (h.by_column) {
    refuse(file.path(), "is stored column by column",
           "numpy.ascontiguousarray(a) before numpy.save");
  }
  check_length(in_quotes(file.path()), h, file.size() - data_at);
  return h;
}

// Little-endian bytes as a whole number.
std::uint64_t whole_number(const char* at, const NpyHeader& h) {
  std::uint64_t v = 0;
  std::memcpy(&v, at, std::size_t(h.width));
  const bool negative = h.kind == 'i' && h.width < 8 && v >> (8 * h.width - 1);
  return negative ? v | ~std::uint64_t(0) << (8 * h.width) : v;
}

}  // namespace

NpyHeader npy_header(std::string_view bytes, const std::string& name) {
  const auto at = [&](std::size_t i) {
    return std::size_t(static_cast<unsigned char>(bytes[i]));
  };
  if (bytes.size() < 12 || !bytes.starts_with("\x93NUMPY"))
    refuse(name, "is not a NumPy file", writes_such);
  const bool wide = at(6) > 1;
  const std::size_t first = wide ? 12 : 10;
  const std::size_t length = at(8) | at(9) << 8 | (wide ? at(10) << 16 | at(11) << 24 : 0);
  if (length > longest_header)
    refuse(name, concat("says that its NumPy header has ", length, " bytes"), writes_such);
  if (length > bytes.size() - first)
    refuse(name, "ends inside its NumPy header", "write it again");
  NpyHeader h = header_of(name, std::string(bytes.substr(first, length)));
  h.data_at = Index(first + length);
  check_length(name, h, Index(bytes.size()) - h.data_at);
  return h;
}

NpyFile::NpyFile(const fs::path& path) : file_(path), header_(read_header(file_)) {}

std::size_t NpyFile::read(std::span<std::int64_t> out) {
  if ((header_.kind != 'i' && header_.kind != 'u') || header_.width > 8) {
    refuse(file_.path(), concat("holds numbers of the type '", header_.type, "'"),
           "little-endian whole numbers: ids.astype('uint32')");
  }
  std::size_t done = 0;
  while (done < out.size() && read_ < header_.numbers) {
    const Index count =
        std::min({buffer_numbers, Index(out.size() - done), header_.numbers - read_});
    buffer_.resize(std::size_t(count * header_.width));
    read_exactly(file_, buffer_, "became shorter while it was read");
    for (Index i = 0; i < count; ++i) {
      const std::uint64_t v = whole_number(buffer_.data() + i * header_.width, header_);
      if (header_.kind == 'u' && v > std::uint64_t(INT64_MAX)) {
        refuse(file_.path(), concat("has ", v, " at position ", read_ + i, ", above 2^63 - 1"),
               "numbers that fit 63 bits");
      }
      out[done + std::size_t(i)] = std::int64_t(v);
    }
    done += std::size_t(count);
    read_ += count;
  }
  return done;
}

}  // namespace moe
