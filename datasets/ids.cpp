// Records of lib/files as ids: an id outside the vocabulary is refused where it stands. Positions
// in messages count from 0 within their row, line or file; lines count from 1.
#include "datasets/ids.h"

#include <charconv>
#include <cstdint>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/lines.h"
#include "lib/files/npy.h"

namespace moe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* line_example = R"({"input_ids": [1, 2, 3], "domain": "code"}, or [1, 2, 3])";
constexpr Index numbers_at_once = 1 << 16;

// Numbers of one file, held against the vocabulary.
struct IdCheck {
  const fs::path& path;
  Index vocabulary;  // 0 = any id below 2^31 - 1

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

void require_file(const fs::path& path) {
  std::error_code code;
  if (!fs::is_regular_file(path, code)) {
    throw Error(Exit::input, concat("'", path.native(), "' ",
                                    fs::exists(path, code) ? "is not a file" : "does not exist"))
        .hint("name a file of token ids: .npy, .txt or .jsonl");
  }
  if (!std::ifstream(path, std::ios::binary)) {
    throw Error(Exit::io, concat("'", path.native(), "' cannot be read"))
        .hint("check its permissions");
  }
}

// A row of a NumPy array.
std::vector<int> read_row(NpyFile& file, const IdCheck& check, Index row, Index columns,
                          bool several) {
  std::vector<int> ids;
  ids.reserve(std::size_t(columns));
  std::vector<std::int64_t> numbers;
  while (Index(ids.size()) < columns) {
    const Index left = columns - Index(ids.size());
    numbers.resize(std::size_t(std::min(left, numbers_at_once)));
    file.read(numbers);
    for (const std::int64_t id : numbers) {
      if (!check.fits(id)) {
        check.wrong_id(concat(id),
                       concat(several ? concat("row ", row, ", ") : "", "position ", ids.size()));
      }
      ids.push_back(int(id));
    }
  }
  return ids;
}

void read_npy(const IdCheck& check, const std::function<void(IdDocument&&)>& each) {
  NpyFile file(check.path);
  const std::vector<Index>& shape = file.header().shape;
  if (shape.empty() || shape.size() > 2) {
    check.refuse(concat("has ", shape.size(), " dimensions"), "one sequence, or one a row");
  }
  const Index rows = shape.size() == 2 ? shape[0] : 1;
  for (Index r = 0; r < rows; ++r)
    each({.domain = "", .ids = read_row(file, check, r, shape.back(), rows > 1)});
}

void read_text(const IdCheck& check, const std::function<void(IdDocument&&)>& each) {
  WordReader words(check.path);
  IdDocument document;
  std::string word;
  for (Index position = 0; words.next(word); ++position) {
    std::int64_t id = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size() || !check.fits(id)) {
      check.wrong_id(
          word.size() > 40 ? concat("'", word.substr(0, 40), "...'") : concat("'", word, "'"),
          concat("position ", position));
    }
    document.ids.push_back(int(id));
  }
  each(std::move(document));
}

// [1, 2, 3], or {"input_ids": [1, 2, 3], "domain": "code"}.
IdDocument read_line(const JsonLineReader& lines, const IdCheck& check, const Json& line) {
  IdDocument out;
  const bool object = line.is_object();
  if (object && !line.contains("input_ids"))
    lines.refuse("has no input_ids");
  const Json& ids = object ? line["input_ids"] : line;
  if (!ids.is_array())
    lines.refuse("is no list of ids");
  if (object && line.contains("domain")) {
    if (!line["domain"].is_string())
      lines.refuse("has a domain that is not text");
    out.domain = line["domain"];
  }
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const bool whole =
        ids[i].is_number_unsigned() && ids[i].get<std::uint64_t>() <= std::uint64_t(INT64_MAX);
    const std::int64_t id = whole ? ids[i].get<std::int64_t>() : -1;
    if (!check.fits(id)) {
      check.wrong_id(ids[i].dump().substr(0, 40),
                     concat("line ", lines.number(), ", position ", i));
    }
    out.ids.push_back(int(id));
  }
  return out;
}

void read_json_lines(const IdCheck& check, const std::function<void(IdDocument&&)>& each) {
  JsonLineReader lines(check.path, line_example);
  Json line;
  while (lines.next(line))
    each(read_line(lines, check, line));
}

}  // namespace

void read_ids(const fs::path& path, IdFormat format, Index vocabulary,
              const std::function<void(IdDocument&&)>& each) {
  require_file(path);
  const IdCheck check{path, vocabulary};
  switch (format) {
    case IdFormat::npy:
      return read_npy(check, each);
    case IdFormat::text:
      return read_text(check, each);
    case IdFormat::jsonl:
      return read_json_lines(check, each);
  }
}

}  // namespace moe
