#include "lib/golden/golden_tokenizers.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/text.h"
#include "lib/files/file.h"
#include "lib/files/json.h"
#include "lib/files/sha256.h"
#include "lib/tokenizer/open.h"
#include "lib/tokenizer/pattern.h"
#include "lib/tokenizer/trainer.h"

namespace moe {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct Sample {
  std::string bytes;  // what is encoded
  std::string text;   // the same as valid UTF-8
};
using Samples = std::map<std::string, Sample>;

std::string from_hex(const std::string& digits) {
  std::string out;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
    out += char(std::stoi(digits.substr(i, 2), nullptr, 16));
  return out;
}

Sample sample_of(const Json& entry) {
  if (entry.contains("hex"))
    return {from_hex(entry.at("hex").get<std::string>()), entry.at("text").get<std::string>()};
  std::string text;
  if (entry.contains("parts")) {
    for (const Json& part : entry.at("parts")) {
      for (int n = part.at(1).get<int>(); n > 0; --n)
        text += part.at(0).get_ref<const std::string&>();
    }
  } else {
    text = entry.at("text").get<std::string>();
  }
  return {text, text};
}

void read_samples(const fs::path& path, Samples& out) {
  if (!fs::exists(path))
    return;
  for (const Json& entry : read_json(path))
    out[entry.at("id").get<std::string>()] = sample_of(entry);
}

std::string hash_of(const std::vector<int>& ids) {
  std::string bytes;
  for (const int id : ids) {
    for (int shift = 0; shift < 32; shift += 8)
      bytes += char(std::uint32_t(id) >> shift & 0xFF);
  }
  return sha256_hex(bytes);
}

std::string list_text(const std::vector<int>& ids) {
  std::string out;
  for (std::size_t i = 0; i < ids.size() && i < 40; ++i)
    out += concat(i > 0 ? "," : "", ids[i]);
  return concat("[", out, ids.size() > 40 ? ",..." : "", "]");
}

// One case; says what differs first, "" where nothing does.
class CaseCheck {
 public:
  CaseCheck(const Tokenizer& tokenizer, const Sample& sample, const Json& expected)
      : tokenizer_(tokenizer), sample_(sample), expected_(expected) {}

  std::string run() {
    const Encoded bare = tokenizer_.encode(sample_.bytes, {.offsets = true});
    const std::vector<int> plain = tokenizer_.encode(sample_.bytes);
    full_ = tokenizer_.encode(sample_.bytes, {.frame = true}).ids;
    if (plain != bare.ids)
      return concat("ids with offsets ", list_text(bare.ids), ", without ", list_text(plain));
    std::string why = expected_.contains("ids") ? check_short(bare) : check_long(bare);
    if (why.empty())
      why = check_decoded(bare.ids);
    return why;
  }

 private:
  std::string check_short(const Encoded& bare) const {
    const auto ids = expected_.at("ids").get<std::vector<int>>();
    if (ids != bare.ids)
      return differ("ids", bare.ids, ids);
    const auto full =
        expected_.contains("full") ? expected_.at("full").get<std::vector<int>>() : ids;
    if (full != full_)
      return differ("full", full_, full);
    if (!expected_.contains("at"))
      return "";
    std::vector<int> at;
    for (const ByteRange& r : bare.at) {
      at.push_back(int(r.begin));
      at.push_back(int(r.end));
    }
    const auto wanted = expected_.at("at").get<std::vector<int>>();
    return at == wanted ? "" : differ("at", at, wanted);
  }
  std::string check_long(const Encoded& bare) const {
    const auto n = expected_.at("n").get<std::size_t>();
    if (bare.ids.size() != n)
      return concat(bare.ids.size(), " ids, expected ", n);
    if (hash_of(bare.ids) != expected_.at("sha256").get<std::string>())
      return "ids with another hash";
    const auto full = expected_.contains("full_n") ? expected_.at("full_n").get<std::size_t>() : n;
    return full_.size() == full ? "" : concat(full_.size(), " ids in full, expected ", full);
  }
  std::string check_decoded(const std::vector<int>& ids) const {
    const std::string text = tokenizer_.decode(ids, false);
    if (expected_.contains("text_sha256")) {
      return sha256_hex(text) == expected_.at("text_sha256").get<std::string>()
                 ? ""
                 : "text with another hash";
    }
    const std::string wanted = value("text", sample_.text);
    if (text != wanted)
      return concat("text ", in_quotes(text), ", expected ", in_quotes(wanted));
    const std::string without = value("text_skip", wanted);
    const std::string skipped = tokenizer_.decode(ids, true);
    return skipped == without ? ""
                              : concat("text without special tokens ", in_quotes(skipped),
                                       ", expected ", in_quotes(without));
  }
  std::string value(const char* name, const std::string& otherwise) const {
    return expected_.contains(name) ? expected_.at(name).get<std::string>() : otherwise;
  }
  static std::string differ(const char* what, const std::vector<int>& got,
                            const std::vector<int>& wanted) {
    return concat(what, " ", list_text(got), ", expected ", list_text(wanted));
  }

  const Tokenizer& tokenizer_;
  const Sample& sample_;
  const Json& expected_;
  std::vector<int> full_;
};

std::vector<fs::path> entries(const fs::path& folder) {
  std::vector<fs::path> out;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder, code))
    out.push_back(entry.path());
  std::ranges::sort(out);
  return out;
}

// All cases of a kind, or the one named.
GoldenTokenizerResult verify_kind(const fs::path& folder, const std::string& only) {
  GoldenTokenizerResult out{.name = folder.filename().string()};
  Samples samples;
  read_samples(folder.parent_path() / "strings.json", samples);
  read_samples(folder / "strings.json", samples);
  const Json expected = read_json(folder / "expected.json");
  const auto tokenizer = open_tokenizer(folder / expected.at("file").get<std::string>());
  for (const Json& c : expected.at("cases")) {
    const std::string name = c.at("s").get<std::string>();
    if (!only.empty() && name != only)
      continue;
    ++out.cases;
    const auto sample = samples.find(name);
    const std::string why = sample == samples.end()
                                ? "strings.json has no such string"
                                : CaseCheck(*tokenizer, sample->second, c).run();
    if (why.empty())
      continue;
    ++out.failed;
    if (out.why.empty())
      out.why = concat(name, ": ", why);
  }
  if (out.cases == 0) {
    throw Error(Exit::input, concat(in_quotes(folder), " has no case '", only, "'"))
        .hint("cases are named in its expected.json");
  }
  return out;
}

// What differs first between a training and the recorded one.
std::string training_difference(const Json& wanted, std::string_view text) {
  const std::string pattern = wanted.at("pattern").get<std::string>();
  const std::string_view known = known_pattern(pattern);
  BpeTrainer trainer({.vocabulary = wanted.at("vocab_size").get<int>(),
                      .frequency = wanted.at("min_frequency").get<int>(),
                      .special = wanted.at("special_tokens").get<std::vector<std::string>>(),
                      .pattern = known.empty() ? pattern : std::string(known)});
  while (!text.empty()) {  // sequences are lines with their ends
    const std::string_view line = text.substr(0, text.find('\n') + 1);
    trainer.add(line.empty() ? text : line);
    text.remove_prefix(line.empty() ? text.size() : line.size());
  }
  const Json model = Json::parse(trainer.train([](int) {})).at("model");
  const Json& merges = model.at("merges");
  const Json& wanted_merges = wanted.at("merges");
  for (std::size_t i = 0; i < std::min(merges.size(), wanted_merges.size()); ++i) {
    if (merges[i] != wanted_merges[i])
      return concat("merge ", i, " is ", merges[i].dump(), ", expected ", wanted_merges[i].dump());
  }
  if (merges.size() != wanted_merges.size())
    return concat(merges.size(), " merges, expected ", wanted_merges.size());
  return model.at("vocab") == wanted.at("vocab") ? "" : "another vocabulary";
}

// A folder of text.txt and trainings on it, a case each.
GoldenTokenizerResult verify_training(const fs::path& folder) {
  GoldenTokenizerResult out{.name = folder.filename().string()};
  const std::string text = read_file(folder / "text.txt", Index(1) << 28);
  for (const fs::path& path : entries(folder)) {
    if (path.extension() != ".json")
      continue;
    ++out.cases;
    const std::string why = training_difference(read_json(path), text);
    out.failed += why.empty() ? 0 : 1;
    if (out.why.empty() && !why.empty())
      out.why = concat(path.filename().string(), ": ", why);
  }
  return out;
}

// A malformed file or folder: right is an error of the input.
GoldenTokenizerResult verify_malformed(const fs::path& path) {
  GoldenTokenizerResult out{.name = concat("bad/", path.filename().string()), .cases = 1};
  try {
    open_tokenizer(path);
    out.failed = 1;
    out.why = "read without a word";
  } catch (const Error& e) {
    out.why = e.what();
    out.failed = e.code() == Exit::input ? 0 : 1;
  }
  return out;
}

bool is_kind(const fs::path& path) {
  return fs::exists(path / "expected.json") && !fs::exists(path / "config.json") &&
         (fs::exists(path / "strings.json") || fs::exists(path.parent_path() / "strings.json"));
}

bool is_training(const fs::path& path) {
  return fs::exists(path / "text.txt") && !fs::exists(path / "config.json");
}

// Json's own errors say nothing about the file.
template <class Verify>
GoldenTokenizerResult read_safely(const fs::path& path, Verify&& verify) {
  try {
    return verify();
  } catch (const Json::exception& e) {
    throw Error(Exit::input, concat(in_quotes(path), " is no golden case: ", e.what()))
        .hint("the README beside the golden data has the format");
  }
}

}  // namespace

bool is_golden_tokenizers(const fs::path& path) {
  if (is_kind(path) || is_training(path) || (!fs::exists(path) && is_kind(path.parent_path())))
    return true;
  const auto inside = entries(path);
  return std::ranges::any_of(inside, is_kind);
}

std::vector<GoldenTokenizerResult> verify_golden_tokenizers(const fs::path& path) {
  if (is_kind(path))
    return {read_safely(path, [&] { return verify_kind(path, ""); })};
  if (is_training(path))
    return {read_safely(path, [&] { return verify_training(path); })};
  if (!fs::exists(path)) {
    return {read_safely(path,
                        [&] { return verify_kind(path.parent_path(), path.filename().string()); })};
  }
  std::vector<GoldenTokenizerResult> out;
  for (const fs::path& kind : entries(path)) {
    if (is_kind(kind))
      out.push_back(read_safely(kind, [&] { return verify_kind(kind, ""); }));
    else if (is_training(kind))
      out.push_back(read_safely(kind, [&] { return verify_training(kind); }));
  }
  for (const fs::path& malformed : entries(path / "bad"))
    out.push_back(verify_malformed(malformed));
  return out;
}

}  // namespace moe
