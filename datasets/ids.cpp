// Records of lib/files as ids: an id outside the vocabulary is refused where it stands. Positions
// in messages count from 0 within their row, line or file; lines count from 1.
#include "datasets/ids.h"

#include "datasets/json_ids.h"

#include <charconv>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/foreign.h"
#include "lib/files/lines.h"
#include "lib/files/npy.h"

namespace moe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* line_example = R"({"input_ids": [1, 2, 3], "domain": "code"}, or [1, 2, 3])";
constexpr Index numbers_at_once = 1 << 16;

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

// Ids as numpy.ndarray.tofile writes them cannot be told from any other bytes.
void refuse_binary(const IdCheck& check, const std::string& word) {
  const bool control = std::ranges::any_of(word, [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return u < 0x20 || u >= 0x7f;
  });
  if (!control)
    return;
  check.refuse("is binary and not text",
               "ids are read from .npy, .txt and .jsonl: numpy.save('ids.npy', "
               "numpy.fromfile('FILE', 'u2')), where u2 is what the file was written with");
}

void read_text(const IdCheck& check, const std::function<void(IdDocument&&)>& each) {
  WordReader words(check.path);
  IdDocument document;
  std::string word;
  for (Index position = 0; words.next(word); ++position) {
    std::int64_t id = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size() || !check.fits(id)) {
      refuse_binary(check, word);
      check.wrong_id(in_quotes(word.size() > 40 ? word.substr(0, 40) + "..." : word),
                     concat("position ", position));
    }
    document.ids.push_back(int(id));
  }
  each(std::move(document));
}

void read_json_lines(const IdCheck& check, const std::function<void(IdDocument&&)>& each) {
  JsonLineReader lines(check.path, line_example);
  Json line;
  while (lines.next(line))
    each(id_document(lines, line, check));
}

}  // namespace

void read_ids(const fs::path& path, IdFormat format, Index vocabulary,
              const std::function<void(IdDocument&&)>& each) {
  require_file(path);
  if (format != IdFormat::npy)
    refuse_foreign(path, "ids as text or JSON lines");
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
