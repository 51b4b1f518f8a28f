// The three formats. Positions in messages count from 0 within their row, line or file; lines count
// from 1.
#include "datasets/ids.h"

#include <charconv>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"

namespace moe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t longest_line = std::size_t(256) << 20, buffer_bytes = 1 << 20;

struct File {
  fs::path path;
  Index vocabulary;
  std::ifstream in;

  File(const fs::path& p, Index v) : path(p), vocabulary(v), in(p, std::ios::binary) {
    std::error_code code;
    if (!fs::is_regular_file(p, code)) {
      throw Error(Exit::input, concat("'", p.native(), "' ",
                                      fs::exists(p, code) ? "is not a file" : "does not exist"))
          .hint("name a file of token ids: .npy, .txt or .jsonl");
    }
    if (!in) {
      throw Error(Exit::io, concat("'", p.native(), "' cannot be read"))
          .hint("check its permissions");
    }
  }
  [[noreturn]] void refuse(const std::string& why, const std::string& hint) const {
    throw Error(Exit::input, concat("'", path.native(), "' ", why)).hint(hint);
  }
  [[noreturn]] void wrong_id(const std::string& id, const std::string& where) const {
    if (vocabulary > 0) {
      refuse(concat("has the id ", id, " at ", where, ", which is not from 0 to ", vocabulary - 1),
             "the ids of the model's own tokenizer, or vocabulary= of a larger one");
    }
    refuse(concat("has ", id, " at ", where, ", which is no token id"),
           "ids are whole numbers from 0 on");
  }
  bool fits(std::int64_t id) const {
    return id >= 0 && id < (vocabulary > 0 ? vocabulary : Index(std::numeric_limits<int>::max()));
  }
};

// ---- NumPy: magic, version, length of a Python dictionary, the dictionary, the numbers

struct Npy {
  int width = 0;
  bool is_signed = false;
  Index rows = 1, cols = 0;
};

std::string value_of(const File& f, const std::string& dictionary, const std::string& key) {
  const auto at = dictionary.find("'" + key + "':");
  if (at == dictionary.npos)
    f.refuse(concat("has no '", key, "' in its NumPy header"), "numpy.save writes such files");
  const auto first = dictionary.find_first_not_of(' ', at + key.size() + 3);
  if (first == dictionary.npos)
    f.refuse("has a NumPy header that is cut short", "numpy.save writes such files");
  const auto end = dictionary[first] == '(' ? dictionary.find(')', first)
                                            : dictionary.find_first_of(",}", first);
  return dictionary.substr(first,
                           end == dictionary.npos ? end : end - first + (dictionary[first] == '('));
}

Npy npy_header(File& f) {
  unsigned char head[12] = {};
  f.in.read(reinterpret_cast<char*>(head), 10);
  if (!f.in || std::memcmp(head, "\x93NUMPY", 6) != 0)
    f.refuse("is not a NumPy file", "format=text or format=jsonl says otherwise");
  std::size_t length = std::size_t(head[8]) | std::size_t(head[9]) << 8;
  if (head[6] > 1) {
    f.in.read(reinterpret_cast<char*>(head + 10), 2);
    length |= std::size_t(head[10]) << 16 | std::size_t(head[11]) << 24;
  }
  if (!f.in || length > (1 << 16)) {
    f.refuse(concat("says that its NumPy header has ", length, " bytes"),
             "numpy.save writes such files");
  }
  std::string text(length, '\0');
  f.in.read(text.data(), std::streamsize(length));
  if (!f.in)
    f.refuse("ends inside its NumPy header", "write it again");
  const std::string type = value_of(f, text, "descr");
  Npy out;
  static constexpr std::pair<const char*, int> types[] = {
      {"'<u2'", 2},  {"'<u4'", 4}, {"'<i4'", -4}, {"'<i8'", -8},
      {"'<i2'", -2}, {"'|u1'", 1}, {"'<u8'", 8}};
  for (const auto& [name, width] : types) {
    if (type == name) {
      out.width = std::abs(width);
      out.is_signed = width < 0;
    }
  }
  if (out.width == 0) {
    f.refuse(concat("holds numbers of the type ", type),
             "little-endian whole numbers: ids.astype('uint32')");
  }
  if (value_of(f, text, "fortran_order") != "False")
    f.refuse("is stored column by column", "numpy.ascontiguousarray(ids) before numpy.save");
  std::vector<Index> shape;
  const std::string dims = value_of(f, text, "shape");
  for (const std::string& word :
       split(std::string_view(dims).substr(1, dims.size() < 2 ? 0 : dims.size() - 2), ',')) {
    const auto first = word.find_first_not_of(' ');
    if (first == word.npos)
      continue;
    Index n = -1;
    std::from_chars(word.data() + first, word.data() + word.size(), n);
    shape.push_back(n);
  }
  if (shape.empty() || shape.size() > 2 ||
      std::ranges::any_of(shape, [](Index n) { return n < 0; })) {
    f.refuse(concat("has the shape ", dims), "one sequence, or one a row");
  }
  out.cols = shape.back();
  out.rows = shape.size() == 2 ? shape[0] : 1;
  Index bytes = 0;
  const Index there = Index(fs::file_size(f.path)) - Index(f.in.tellg());
  if (__builtin_mul_overflow(out.rows, out.cols, &bytes) ||
      __builtin_mul_overflow(bytes, out.width, &bytes) || bytes != there) {
    f.refuse(concat("has ", there, " bytes behind its header, which is not what the shape ", dims,
                    " of ", type, " takes"),
             "the file is cut short, or is no plain array");
  }
  return out;
}

std::int64_t number_at(const char* at, const Npy& n) {
  std::uint64_t v = 0;
  std::memcpy(&v, at, std::size_t(n.width));  // little-endian machines only, as the whole program
  if (n.is_signed && n.width < 8 && v >> (8 * n.width - 1))
    v |= ~std::uint64_t(0) << (8 * n.width);
  return std::int64_t(v);
}

void read_npy(File& f, const std::function<void(IdDocument&&)>& each) {
  const Npy n = npy_header(f);
  std::vector<char> buffer(buffer_bytes);
  for (Index r = 0; r < n.rows; ++r) {
    IdDocument document;
    document.ids.reserve(std::size_t(n.cols));
    for (Index c = 0; c < n.cols;) {
      const Index count = std::min(n.cols - c, Index(buffer_bytes) / n.width);
      f.in.read(buffer.data(), count * n.width);
      if (!f.in)
        f.refuse("became shorter while it was read", "write it again");
      for (Index i = 0; i < count; ++i) {
        const std::int64_t id = number_at(buffer.data() + i * n.width, n);
        if (!f.fits(id)) {
          f.wrong_id(concat(id), n.rows > 1 ? concat("row ", r, ", position ", c + i)
                                            : concat("position ", c + i));
        }
        document.ids.push_back(int(id));
      }
      c += count;
    }
    each(std::move(document));
  }
}

// ---- text and JSON lines

void read_text(File& f, const std::function<void(IdDocument&&)>& each) {
  IdDocument document;
  std::string word;
  for (Index position = 0; f.in >> word; ++position) {
    std::int64_t id = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size() || !f.fits(id)) {
      f.wrong_id(
          word.size() > 40 ? concat("'", word.substr(0, 40), "...'") : concat("'", word, "'"),
          concat("position ", position));
    }
    document.ids.push_back(int(id));
  }
  each(std::move(document));
}

void read_line(const File& f, Index number, const std::string& line, IdDocument& out) {
  const Json j = Json::parse(line, nullptr, false);
  const auto refuse = [&](const std::string& why) {
    f.refuse(concat("line ", number, " ", why),
             R"({"input_ids": [1, 2, 3], "domain": "code"}, or [1, 2, )"
             R"(3])");
  };
  if (j.is_discarded())
    refuse("is not JSON");
  const bool object = j.is_object();
  if (object && !j.contains("input_ids"))
    refuse("has no input_ids");
  const Json& ids = object ? j["input_ids"] : j;
  if (!ids.is_array())
    refuse("is no list of ids");
  if (object && j.contains("domain")) {
    if (!j["domain"].is_string())
      refuse("has a domain that is not text");
    out.domain = j["domain"];
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::int64_t id =
        ids[i].is_number_unsigned() && ids[i].get<std::uint64_t>() <= std::uint64_t(INT64_MAX)
            ? ids[i].get<std::int64_t>()
            : -1;
    if (!f.fits(id))
      f.wrong_id(ids[i].dump().substr(0, 40), concat("line ", number, ", position ", i));
    out.ids.push_back(int(id));
  }
}

void read_lines(File& f, const std::function<void(IdDocument&&)>& each) {
  std::string line;
  for (Index number = 1; std::getline(f.in, line); ++number) {
    if (line.size() > longest_line)
      f.refuse(concat("line ", number, " has ", line.size(), " bytes"), "a sequence a line");
    if (line.find_first_not_of(" \t\r") == line.npos)
      continue;
    IdDocument document;
    read_line(f, number, line, document);
    each(std::move(document));
  }
}

}  // namespace

void read_ids(const fs::path& path, IdFormat format, Index vocabulary,
              const std::function<void(IdDocument&&)>& each) {
  File file(path, vocabulary);
  switch (format) {
    case IdFormat::npy:
      return read_npy(file, each);
    case IdFormat::text:
      return read_text(file, each);
    case IdFormat::jsonl:
      return read_lines(file, each);
  }
}

}  // namespace moe
