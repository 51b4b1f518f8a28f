// moe bench tokenizer: bytes of text a second through a tokenizer, by domain and by number of
// threads, and what one long word costs. A hash of the ids says whether another program made the
// same (scripts/tokenizer-peers.sh).
#include <fmt/format.h>

#include <cmath>
#include <ctime>
#include <memory>

#include "apps/arguments.h"
#include "apps/bench/bench.h"
#include "apps/values.h"
#include "datasets/text_domains.h"
#include "lib/core/parallel.h"
#include "lib/core/rng.h"
#include "lib/files/sha256.h"
#include "lib/tokenizer/open.h"

namespace moe {
namespace {

constexpr Index kLongWord = 100'000;

struct Options {
  std::string tokenizer;
  std::vector<std::string> data;
  Index document = 4096;
  BenchOptions bench;
};

using Texts = std::vector<std::string>;

struct Sample {
  std::string name;
  Texts documents;
};

// Documents of `most` bytes at most that cut no character; 0 = as they are.
void add_documents(Texts& out, const std::string& text, Index most) {
  const Index size = Index(text.size());
  for (Index at = 0; at < size;) {
    const Index end = most > 0 && size - at > most ? character_edge(text, at + most) : size;
    out.push_back(text.substr(std::size_t(at), std::size_t(end - at)));
    at = end;
  }
}

// Small letters without a blank: for most tokenizers one piece.
std::string long_word() {
  Rng rng(3);
  std::string out;
  while (Index(out.size()) < kLongWord)
    out += char('a' + rng.below(26));
  return out;
}

std::vector<Sample> samples(const Options& o) {
  std::vector<Sample> out;
  each_text_domain(o.data, [&](DomainText&& domain) {
    Sample sample{domain.name, {}};
    for (const Document& d : domain.documents)
      add_documents(sample.documents, d.text, o.document);
    if (!sample.documents.empty())
      out.push_back(std::move(sample));
  });
  if (out.empty()) {
    throw Error(Exit::usage, "the data have no text")
        .hint("--data text:path=FILE or FOLDER, or --data system");
  }
  if (out.size() > 1) {
    Sample all{"all", {}};
    // in turn, as a shuffled corpus mixes them
    for (std::size_t d = 0, left = out.size(); left > 0; ++d) {
      left = 0;
      for (const Sample& s : out) {
        left += d < s.documents.size();
        if (d < s.documents.size())
          all.documents.push_back(s.documents[d]);
      }
    }
    out.push_back(std::move(all));
  }
  out.push_back({"one word", {long_word()}});
  return out;
}

Index bytes_of(const Texts& documents) {
  Index out = 0;
  for (const std::string& text : documents)
    out += Index(text.size());
  return out;
}

// least: seconds of processor time of the fastest run so far, all threads
void encode(const Tokenizer& tokenizer, const Texts& documents, double& least) {
  const std::clock_t start = std::clock();
  parallel_for(Index(documents.size()), 8, [&](Index first, Index last) {
    for (Index d = first; d < last; ++d)
      tokenizer.encode(documents[d]);
  });
  least = std::min(least, double(std::clock() - start) / CLOCKS_PER_SEC);
}

// Ids of all documents, one after the other.
std::vector<int> ids_of(const Tokenizer& tokenizer, const Texts& documents) {
  std::vector<int> out;
  for (const std::string& text : documents) {
    const std::vector<int> ids = tokenizer.encode(text);
    out.insert(out.end(), ids.begin(), ids.end());
  }
  return out;
}

void add_row(Rows& rows, const Sample& sample, const std::vector<int>& ids, int threads,
             const Timing& t, double processor) {
  const auto bytes = double(bytes_of(sample.documents));
  rows.next();
  rows.text("text", sample.name);
  rows.whole("documents", std::int64_t(sample.documents.size()));
  rows.whole("bytes", std::int64_t(bytes));
  rows.whole("ids", std::int64_t(ids.size()));
  rows.whole("threads", threads);
  add_times(rows, t);
  rows.number("rate", "MB/s", "10^6 bytes of text a second, of the median",
              bytes / t.median() / 1e6);
  rows.number("processor", "MB/s", "10^6 bytes a second of processor time, of the least",
              bytes / processor / 1e6);
  const std::string_view numbers(reinterpret_cast<const char*>(ids.data()),
                                 ids.size() * sizeof(int));
  rows.text("hash", sha256_hex(numbers).substr(0, 16));
}

int bench(Options& o) {
  settle(o.bench);
  std::shared_ptr<const Tokenizer> tokenizer;
  const double loading = seconds_of([&] { tokenizer = open_tokenizer(o.tokenizer); });
  const std::vector<Sample> all = samples(o);
  Rows rows;
  std::vector<Timing> times;
  for (const Sample& sample : all) {
    const std::vector<int> ids = ids_of(*tokenizer, sample.documents);
    for (const int n : o.bench.threads) {
      set_threads(n);
      double processor = INFINITY;
      const auto run = [&] {
        encode(*tokenizer, sample.documents, processor);
      };
      times.push_back(time_in_turn({run}, o.bench.seconds)[0]);
      add_row(rows, sample, ids, n, times.back(), processor);
    }
  }
  return write_bench(
      std::move(rows).table("tokenizer", fmt::format("Text to ids: {}", tokenizer->id()),
                            fmt::format("Opening the file took {:.2f} s. Documents are encoded one "
                                        "by one, without offsets; `hash` begins the SHA-256 of "
                                        "all ids as 32-bit numbers.",
                                        loading)),
      "Tokenizers", times, o.bench);
}

}  // namespace

Run bench_tokenizer(CommandLine& cli) {
  auto o = std::make_shared<Options>();
  cli.add_option("tokenizer", o->tokenizer,
                 "tokenizer.json, .model, ranks, tekken.json, GGUF, or a folder with one")
      .required();
  add_data(cli, o->data, true);
  cli.add_option("--document", o->document, "bytes of a document; 0 = documents as they are")
      .show_default()
      .check(whole(0));
  add_bench_on_host(cli, o->bench);
  return [o] {
    return bench(*o);
  };
}

}  // namespace moe
