// moe data: what a data spec holds before anything is trained on it: domains and their sizes, what
// comes besides text, some samples as they are read, their pictures as files.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "apps/command.h"
#include "apps/output.h"
#include "apps/terminal.h"
#include "apps/values.h"
#include "datasets/files.h"
#include "datasets/samples.h"
#include "lib/core/error.h"
#include "lib/run/run_tokenizer.h"
#include "lib/signal/picture_file.h"

namespace moe {
namespace {

namespace fs = std::filesystem;

constexpr int longest = 1 << 16;       // rows of a sample that is shown whole
constexpr int text_rows = 256;         // of text alone
constexpr std::size_t most_text = 96;  // characters of a text that is not

struct Options {
  std::vector<std::string> data;
  std::string tokenizer = "bytes", pictures;
  int samples = 4;
  std::uint64_t seed = 1;
  OutputOptions out;
};

Table domains_table(const DatasetInfo& info) {
  std::vector<std::string> train;
  std::vector<std::int64_t> valid, samples;
  for (std::size_t d = 0; d < info.domains.size(); ++d) {
    const Index n = info.train_tokens[d];
    train.push_back(n == kEndless ? std::string("endless") : concat(n));
    valid.push_back(info.valid_tokens[d]);
    samples.push_back(info.valid_pieces.empty() ? -1 : info.valid_pieces[d]);
  }
  Table t{.id = "domains", .title = "Domains"};
  t.columns = {{.name = "domain", .cells = info.domains},
               {.name = "train", .unit = "tokens", .cells = train},
               {.name = "valid", .unit = "tokens", .cells = valid}};
  if (std::ranges::any_of(samples, [](std::int64_t n) { return n >= 0; })) {
    t.columns.push_back({.name = "valid samples",
                         .meaning = "whole samples of the validation split; -1 = text, which is "
                                    "cut into pieces",
                         .cells = samples});
  }
  return t;
}

Table signals_table(const DatasetInfo& info) {
  std::vector<std::string> kind;
  std::vector<std::int64_t> numbers, places;
  for (const SignalShape& s : info.signals) {
    kind.push_back(modality_names()[s.modality]);
    numbers.push_back(s.numbers);
    places.push_back(s.places);
  }
  Table t{.id = "signals",
          .title = "Besides text",
          .reading =
              "Rows of numbers that a model brings in by one product for each kind; each "
              "row has the id of its place, behind the ids of text."};
  t.columns = {{.name = "kind", .cells = kind},
               {.name = "numbers", .meaning = "of a row", .cells = numbers},
               {.name = "places", .meaning = "rows of a sample at most", .cells = places}};
  return t;
}

// What can be read of ids, those of places left out.
std::string text_of(const std::vector<int>& ids, const Tokenizer& tokenizer, bool whole) {
  std::vector<int> known;
  std::ranges::copy_if(ids, std::back_inserter(known),
                       [&](int id) { return id < tokenizer.vocabulary(); });
  std::string text = in_one_line(tokenizer.decode(known, true));
  if (!whole && text.size() > most_text) {
    text.resize(most_text);
    drop_cut_character(text);
    text += " ...";
  }
  return text;
}

struct Shown {
  std::vector<std::int64_t> number;
  std::vector<std::string> domain, rows, question, text, answer;
};

Table samples_table(const Shown& all) {
  Table t{.id = "samples", .title = "Samples"};
  t.columns = {{.name = "#", .cells = all.number},
               {.name = "domain", .cells = all.domain},
               {.name = "rows", .cells = all.rows},
               {.name = "kind", .meaning = "of its question", .cells = all.question},
               {.name = "text", .cells = all.text},
               {.name = "asked for", .cells = all.answer}};
  return t;
}

// The first and only sequence of a batch.
void add(const Batch& b, const Corpus& corpus, const Tokenizer& tokenizer, Shown& to) {
  const bool asks = !b.question.empty() && b.question[0] >= 0;
  std::vector<int> ids, asked;
  Index signals = 0;
  for (Index t = 0; t < b.tokens(); ++t) {
    const bool is_text = b.modality_of(t) == modality::text;
    signals += !is_text;
    if (is_text)
      ids.push_back(b.token[std::size_t(t)]);
    if (b.target[std::size_t(t)] >= 0)
      asked.push_back(b.target[std::size_t(t)]);
  }
  to.number.push_back(std::int64_t(to.number.size()));
  to.domain.push_back(corpus.info().domains[std::size_t(b.domain[0])]);
  to.rows.push_back(signals > 0 ? concat(signals, " + ", b.tokens() - signals, " of text")
                                : concat(b.tokens()));
  to.question.push_back(asks ? corpus.info().questions[std::size_t(b.question[0])] : "");
  to.text.push_back(text_of(ids, tokenizer, asks));
  to.answer.push_back(asks ? text_of(asked, tokenizer, true) : "all that follows");
}

void write_picture(const Batch& b, const fs::path& folder, std::int64_t number, Index& written) {
  for (const Signal& s : b.signal) {
    if (s.modality != modality::image)
      continue;
    fs::create_directories(folder);
    write_file(folder / fmt::format("{}.png", number), png_of(picture_of_rows(s.value.view())));
    ++written;
  }
}

Batch batch_of(const Corpus& corpus, int number) {
  const int length = corpus.info().valid_pieces.empty() ? text_rows : longest;
  if (corpus.split() == Split::train)
    return corpus.train(std::uint64_t(number), 1, length);
  const int domains = int(corpus.info().domains.size());
  return corpus.valid({{number % domains, number / domains}}, length);
}

int data(const Options& o) {
  check_output(o.out);
  const auto tokenizer = tokenizer_for_run(o.tokenizer, o.data);
  const Corpus corpus(o.data, *tokenizer, o.seed);
  const DatasetInfo& info = corpus.info();
  Report report{.title = info.spec};
  report.warnings = info.notes;
  report.tables = {domains_table(info)};
  if (!info.signals.empty())
    report.tables.push_back(signals_table(info));
  Shown all;
  Index pictures = 0;
  for (int n = 0; n < o.samples; ++n) {
    const Batch b = batch_of(corpus, n);
    if (b.sequences() == 0)
      break;
    if (!o.pictures.empty())
      write_picture(b, o.pictures, n, pictures);
    add(b, corpus, info.pieces ? *info.pieces : *tokenizer, all);
  }
  report.tables.push_back(samples_table(all));
  write_report(report, o.out);
  if (!o.pictures.empty() && pictures == 0)
    warning("none of the samples is a picture, so none was written");
  else if (pictures > 0)
    note(fmt::format("{} pictures: {}", pictures, (fs::path(o.pictures) / "*.png").string()));
  return 0;
}

}  // namespace

Run data_command(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("data", o->data, "where tokens come from (moe list datasets); several are joined")
      .type_name("SPEC")
      .required();
  cli.add_option("--samples", o->samples, "how many are shown").show_default().check(whole(0));
  cli.add_option("--pictures", o->pictures, "write the pictures of the samples to this folder")
      .type_name("FOLDER");
  cli.add_option("--tokenizer", o->tokenizer,
                 "text to ids: bytes, or a tokenizer.json or its folder")
      .type_name("SPEC")
      .show_default();
  cli.add_option("--seed", o->seed, "of what is drawn").show_default().check(whole(0));
  add_output(cli, o->out, "where the description goes");
  return [o] {
    return data(*o);
  };
}

}  // namespace moe
