// moe tokenizer: text to ids and back by the file of any model, what such a file is, and a new one
// from text.
#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "apps/arguments.h"
#include "apps/command.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "datasets/text_domains.h"
#include "lib/core/error.h"
#include "lib/core/parallel.h"
#include "lib/files/file.h"
#include "lib/tokenizer/open.h"
#include "lib/tokenizer/pattern.h"
#include "lib/tokenizer/trainer.h"
#include "lib/tokenizer/utf8.h"

namespace moe {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kLongestLine = std::size_t(1) << 30;
constexpr std::size_t kBatchLines = 512, kBatchBytes = 16 << 20;

struct Options {
  std::string path, special = "own";
  bool jsonl = false, strict = false, skip_special = false;
  int threads = 0;
  OutputOptions out;
};

SpecialText special_text(const std::string& name) {
  return name == "text" ? SpecialText::text : name == "ids" ? SpecialText::ids : SpecialText::own;
}

// Lines of standard input, some at a time.
class InputLines {
 public:
  struct Line {
    std::string text;
    std::int64_t number;
  };
  bool next(std::vector<Line>& batch) {
    batch.clear();
    std::size_t bytes = 0;
    std::string text;
    while (batch.size() < kBatchLines && bytes < kBatchBytes && std::getline(std::cin, text)) {
      ++number_;
      if (text.size() > kLongestLine) {
        throw Error(Exit::input, concat("line ", number_, " of standard input has ", text.size(),
                                        " bytes, more than the 1 GiB that one may have"));
      }
      if (text.ends_with('\r'))
        text.pop_back();
      bytes += text.size();
      batch.push_back({std::move(text), number_});
    }
    return !batch.empty();
  }

 private:
  std::int64_t number_ = 0;
};

Error line_error(std::int64_t line, const std::string& why, const char* example) {
  return Error(Exit::input, concat("line ", line, " of standard input ", why)).hint(example);
}

// The object of a line with the field; nothing where the line is no such object.
std::optional<Json> object_with(const std::string& line, const char* field) {
  Json value = Json::parse(line, nullptr, false);
  const bool fits = value.is_object() && value.contains(field);
  return fits ? std::optional(std::move(value)) : std::nullopt;
}

// Whether lines are JSON: said so, or seen by the first one.
bool lines_are_json(const Options& o, const std::string& first, const char* field) {
  return o.jsonl || object_with(first, field).has_value();
}

// Lines in, lines out, in order, a batch on all threads at a time.
template <class Convert>
int convert_lines(const Options& o, const char* field, Convert&& convert) {
  set_threads(o.threads > 0 ? o.threads : threads());
  InputLines input;
  std::vector<InputLines::Line> lines;
  std::optional<bool> json;
  while (stop_signal() == 0 && input.next(lines)) {
    if (!json)
      json = lines_are_json(o, lines[0].text, field);
    std::vector<std::string> out(lines.size());
    parallel_for(Index(lines.size()), 1, [&](Index first, Index last) {
      for (Index i = first; i < last; ++i)
        out[i] = convert(lines[i], *json);
    });
    for (const std::string& line : out)
      fmt::print("{}", line);
  }
  return stop_signal() ? 128 + stop_signal() : 0;
}

// An object from the text alone, or the one of a JSON line.
Json text_object(const InputLines::Line& line, bool json) {
  if (!json)
    return Json{{"text", whole_text(line.text).text}};
  auto object = object_with(line.text, "text");
  if (!object && line.text.find_first_not_of(" \t") == line.text.npos)
    return Json();
  if (!object || !(*object)["text"].is_string())
    throw line_error(line.number, "is no JSON object with a text", "{\"text\": \"Hello\"}");
  return *object;
}

std::string encoded_line(const Tokenizer& tokenizer, const Options& o, const InputLines::Line& line,
                         bool json) {
  if (o.strict && !json && !is_valid_utf8(line.text)) {
    throw line_error(line.number,
                     concat("is no valid UTF-8 from byte ", whole_text(line.text).first),
                     "without --strict each broken part becomes U+FFFD");
  }
  Json object = text_object(line, json);
  if (object.is_null())
    return "";
  const auto text = object["text"].get<std::string>();
  const SpecialText special = special_text(o.special);
  const Encoded bare = tokenizer.encode(text, {.offsets = true, .special = special});
  std::vector<std::uint32_t> at;
  for (const ByteRange& r : bare.at) {
    at.push_back(r.begin);
    at.push_back(r.end);
  }
  object["ids"] = bare.ids;
  object["full"] = tokenizer.encode(text, {.frame = true, .special = special}).ids;
  object["at"] = at;
  object["text"] = whole_text(tokenizer.decode(bare.ids, o.skip_special)).text;
  return object.dump() + "\n";
}

int encode(const Options& o) {
  const auto tokenizer = open_tokenizer(o.path);
  return convert_lines(o, "text", [&](const InputLines::Line& line, bool json) {
    return encoded_line(*tokenizer, o, line, json);
  });
}

constexpr const char* kIdsExample = "{\"ids\": [1, 5, 7]}, or 1 5 7";

std::vector<int> ids_of_words(const InputLines::Line& line) {
  std::vector<int> out;
  std::string words = line.text;
  std::ranges::replace(words, ',', ' ');
  for (const std::string& word : split(words, ' ')) {
    if (word.empty())
      continue;
    const bool digits = word.find_first_not_of("0123456789") == word.npos;
    if (word.size() > 9 || !digits)
      throw line_error(line.number, concat("has ", in_quotes(word), ", which is no id"),
                       kIdsExample);
    out.push_back(std::stoi(word));
  }
  return out;
}

std::string decoded_line(const Tokenizer& tokenizer, const Options& o, const InputLines::Line& line,
                         bool json) {
  if (!json) {
    const std::string text = tokenizer.decode(ids_of_words(line), o.skip_special);
    return Json{{"text", whole_text(text).text}}.dump() + "\n";
  }
  auto object = object_with(line.text, "ids");
  if (!object && line.text.find_first_not_of(" \t") == line.text.npos)
    return "";
  std::vector<int> ids;
  if (!object || !(*object)["ids"].is_array())
    throw line_error(line.number, "is no JSON object with ids", kIdsExample);
  for (const Json& id : (*object)["ids"]) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= (1u << 31))
      throw line_error(line.number, concat("has ", id.dump(), ", which is no id"), kIdsExample);
    ids.push_back(id.get<int>());
  }
  (*object)["text"] = whole_text(tokenizer.decode(ids, o.skip_special)).text;
  return object->dump() + "\n";
}

int decode(const Options& o) {
  const auto tokenizer = open_tokenizer(o.path);
  return convert_lines(o, "ids", [&](const InputLines::Line& line, bool json) {
    return decoded_line(*tokenizer, o, line, json);
  });
}

std::string id_text(const std::vector<std::string>& pieces, int id) {
  if (id < 0)
    return "none";
  return std::size_t(id) < pieces.size() ? concat(id, " ", in_quotes(pieces[id]))
                                         : std::to_string(id);
}

int show(const Options& o) {
  check_output(o.out);
  const auto tokenizer = open_tokenizer(o.path);
  const std::vector<std::string> pieces = tokenizer->pieces();
  const SpecialIds special = tokenizer->special();
  const std::vector<int> frame = tokenizer->encode("", {.frame = true}).ids;
  std::vector<std::string> framed;
  for (const int id : frame)
    framed.push_back(id_text(pieces, id));
  Report report{.title = o.path};
  report.facts = {{"tokenizer", tokenizer->id()},
                  {"vocabulary", std::to_string(tokenizer->vocabulary())},
                  {"put around a text", framed.empty() ? "nothing" : join(framed)},
                  {"bos", id_text(pieces, special.bos)},
                  {"eos", id_text(pieces, special.eos)},
                  {"pad", id_text(pieces, special.pad)},
                  {"unknown", id_text(pieces, special.unknown)},
                  {"between documents", id_text(pieces, tokenizer->boundary())}};
  write_report(report, o.out);
  return 0;
}

struct TrainOptions {
  std::vector<std::string> text, special;
  std::string pattern = "gpt2", sequences = "lines", file;
  int vocabulary = 4096, frequency = 2;
  bool force = false;
};

void add_text(BpeTrainer& trainer, const std::string& text, bool lines) {
  if (!lines)
    return trainer.add(text);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
    trainer.add(std::string_view(text).substr(at, end - at));
    at = end;
  }
}

int train(const TrainOptions& o) {
  refuse_existing(o.file, o.force);
  std::string pattern(known_pattern(o.pattern));
  if (pattern.empty())
    no_such("pattern", o.pattern, known_pattern_names());
  BpeTraining training{.vocabulary = o.vocabulary, .frequency = o.frequency, .pattern = pattern};
  if (!o.special.empty())
    training.special = o.special;
  BpeTrainer trainer(training);
  each_text_domain(o.text, [&](DomainText&& domain) {
    for (const Document& document : domain.documents)
      add_text(trainer, document.text, o.sequences == "lines");
  });
  if (trainer.words() == 0) {
    throw Error(Exit::usage, "a tokenizer is trained on text, and the data have none")
        .hint("--data text:path=FILE, or a folder");
  }
  note(fmt::format("{} different words", trainer.words()));
  Progress progress("ids", o.vocabulary, "id");
  const std::string json = trainer.train([&](int ids) { progress.update(ids); });
  if (o.file == "-")
    fmt::print("{}", json);
  else
    write_file(o.file, json);
  return 0;
}

void add_path(CommandLine& cli, Options& o) {
  cli.add_option("tokenizer", o.path,
                 "tokenizer.json, .model, ranks, tekken.json, or a folder with one")
      .required();
}

void add_lines(CommandLine& cli, Options& o, const char* field) {
  cli.add_flag(
      "--jsonl", o.jsonl,
      concat("each line of standard input is {\"", field, "\": ...}; else so if the first one is"));
  cli.add_option("--threads", o.threads, "threads; 0 = all").show_default().check(whole(0));
  cli.add_flag("--skip-special", o.skip_special, "leave special tokens out of decoded text");
}

using Subject = Run (*)(CommandLine&);

Run encode_subject(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  add_path(cli, *o);
  add_lines(cli, *o, "text");
  cli.add_option("--special-tokens", o->special,
                 "what the text of a special token becomes: ids, text, or own (as its library "
                 "does)")
      .show_default()
      .check(one_of({"own", "ids", "text"}));
  cli.add_flag("--strict", o->strict, "refuse broken UTF-8");
  return [o] {
    return encode(*o);
  };
}

Run decode_subject(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  add_path(cli, *o);
  add_lines(cli, *o, "ids");
  return [o] {
    return decode(*o);
  };
}

Run show_subject(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  add_path(cli, *o);
  add_output(cli, o->out, "where the facts go");
  return [o] {
    return show(*o);
  };
}

Run train_subject(CommandLine& cli) {
  auto o = std::make_shared<TrainOptions>();
  cli.add_option("--data", o->text, "text:path=FILE or FOLDER, or system; all of it is read")
      .required()
      .repeatable();
  cli.add_option("--vocab", o->vocabulary, "ids, special tokens and bytes among them")
      .show_default()
      .check(whole(257));
  cli.add_option("--pattern", o->pattern,
                 concat("how text is cut into words: ", join(known_pattern_names())))
      .show_default();
  cli.add_option("--min-frequency", o->frequency, "pairs seen less often are not merged")
      .show_default()
      .check(whole(0));
  cli.add_option("--special", o->special, "a special token, <|endoftext|> if none is given")
      .repeatable();
  cli.add_option("--sequences", o->sequences, "words do not reach over the ends of lines, or files")
      .show_default()
      .check(one_of({"lines", "files"}));
  cli.add_option("-o,--output", o->file, "the tokenizer.json to write; - = standard output")
      .required();
  cli.add_flag("--force", o->force, "replace a file that exists");
  return [o] {
    return train(*o);
  };
}

struct SubjectEntry {
  const char *name, *about, *example;
  Subject make;
};

constexpr SubjectEntry kSubjects[] = {
    {"encode", "ids, framed ids, offsets and decoded text of each line",
     "moe tokenizer encode Qwen3/tokenizer.json < lines.jsonl", encode_subject},
    {"decode", "the text of the ids of each line", "echo 1 5 7 | moe tokenizer decode Qwen3",
     decode_subject},
    {"show", "what a tokenizer is", "moe tokenizer show Qwen3", show_subject},
    {"train", "a byte-level tokenizer from text, equal to what tokenizers trains",
     "moe tokenizer train --data text:path=corpus --vocab 4096 -o tokenizer.json", train_subject}};

}  // namespace

Run tokenizer_command(CommandLine& cli) {
  auto ready = std::make_shared<std::vector<std::pair<CommandLine, Run>>>();
  for (const SubjectEntry& entry : kSubjects) {
    CommandLine subject =
        cli.add_subject(entry.name, entry.about, concat("example:\n  ", entry.example));
    ready->emplace_back(subject, entry.make(subject));
  }
  return [ready] {
    catch_stop_signals();
    for (auto& [subject, go] : *ready) {
      if (subject.parsed())
        return go();
    }
    return 2;
  };
}

}  // namespace moe
